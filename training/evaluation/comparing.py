"""Whether one way of answering is better than another, on the same conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.types import Decision, FaqEntry
from training.evaluation import scores
from training.evaluation.generation_scores import support_of, text_of
from training.evaluation.replies import Result, as_expected
from training.evaluation.scores import Support

RESAMPLES = 2_000
INTERVAL = 0.95


@dataclass(frozen=True)
class Difference:
    """How a figure changes from one variant to another.

    Attributes:
        before: Its mean in the first variant.
        after: In the other.
        low: With `high`, the 95% interval of the difference.
        p: The two-sided chance of so large a difference where there is none.
        n: Cases that have this figure.
    """

    figure: str
    before: float
    after: float
    difference: float
    low: float
    high: float
    p: float
    n: int

    def as_json(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return asdict(self)


def compare(
    first: Sequence[Result], second: Sequence[Result], entries: Sequence[FaqEntry], seed: int = 5
) -> list[Difference]:
    """Return how each figure differs, by the paired bootstrap over conversations.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13; paired as in
    Koehn, Statistical Significance Tests for Machine Translation Evaluation (EMNLP 2004).

    Args:
        first: What one variant said.
        second: What the other said to the same conversations, in the same order.
        entries: The base.
        seed: Of chance.
    """
    by_id = {entry.id: entry for entry in entries}
    rows = [(_measured(a, by_id), _measured(b, by_id)) for a, b in zip(first, second, strict=True)]
    names = dict.fromkeys(name for before, _ in rows for name in before)
    return [
        difference(
            name,
            [before[name] for before, after in rows if name in before and name in after],
            [after[name] for before, after in rows if name in before and name in after],
            seed,
        )
        for name in names
    ]


def difference(
    name: str, before: Sequence[float], after: Sequence[float], seed: int = 5
) -> Difference:
    """Return how a figure differs between two paired samples."""
    gains = np.asarray(after, float) - np.asarray(before, float)
    drawn = np.random.default_rng(seed).integers(0, len(gains), (RESAMPLES, len(gains)))
    means = gains[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    # One is added to both: no finite number of draws shows that a chance is nil.
    sides = ((means <= 0).sum() + 1, (means >= 0).sum() + 1)
    return Difference(
        name,
        float(np.mean(before)),
        float(np.mean(after)),
        float(gains.mean()),
        float(low),
        float(high),
        min(1.0, 2 * float(min(sides)) / (RESAMPLES + 1)),
        len(gains),
    )


def _measured(result: Result, by_id: Mapping[str, FaqEntry]) -> dict[str, float]:
    """Return a case's share in each figure."""
    case, decision = result.case, result.reply.choice.decision
    is_answer = decision is Decision.ANSWER
    cited = {citation.entry_id for citation in result.reply.citations}
    shown = {"answered": float(is_answer), "seconds": result.seconds}
    if case.expect:
        shown["as_expected"] = float(as_expected(result))
    if case.relevant:
        shown["answered_right"] = float(is_answer and bool(cited & case.relevant))
        shown["answered_wrong"] = float(is_answer and not cited & case.relevant)
    found = support_of(result, by_id) if is_answer else Support.SUPPORTED
    shown["unsupported"] = float(found is Support.UNSUPPORTED)
    shown["contradicted"] = float(found is Support.CONTRADICTED)
    if case.reference:
        text = text_of(result)
        shown["rouge_l"] = scores.rouge_l(text, case.reference)
        shown["bleu_4"] = scores.bleu(text, case.reference)
        shown["meteor"] = scores.meteor(text, case.reference)
    return shown
