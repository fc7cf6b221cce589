"""Whether the bot keeps quiet where nothing answers: a set made by taking entries away.

Every question that an entry answers is asked twice: with all entries there, and with those that
answer it taken away. Nobody need write unanswerable questions, and they are as hard as they come:
the customer asks for what this base could well hold, and its neighbours are all still there. Where
another entry happens to answer too, an answer from it counts as a mistake here, so the share of
mistakes is an upper bound.

Source: unanswerable questions that look answerable, Rajpurkar et al., Know What You Don't Know
(ACL 2018), section 1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from core.errors import InvalidInput
from core.types import Decision, FaqEntry
from training.evaluation.replies import ABSTAINING, Case, Result, chance_of

MARK = " (left out)"
"""What is added to the id of a question whose entries were taken away."""
AIMED_ABSTENTION = 0.9
MOST_POINTS = 40


@dataclass(frozen=True)
class Fold:
    """A part of the base that is taken away, and the questions that nothing answers then."""

    removed: frozenset[str]
    cases: tuple[Case, ...]


def folds(
    entries: Sequence[FaqEntry], cases: Sequence[Case], share: float, seed: int = 11
) -> list[Fold]:
    """Return parts of about `share` of the entries that together are the whole base.

    An entry is taken away together with its translations. A question that entries of several
    parts answer is asked in none.

    Args:
        entries: The base.
        cases: Questions with the entries that answer them.
        share: Of the entries to take away at a time, in (0, 0.5].
        seed: Of chance.

    Raises:
        InvalidInput: No question can be asked in any part.
    """
    kin = sorted({_kin(entry) for entry in entries})
    random.Random(seed).shuffle(kin)
    parts = max(2, round(1 / share))
    part_of = {name: number % parts for number, name in enumerate(kin)}
    where = {entry.id: part_of[_kin(entry)] for entry in entries}
    asked: list[list[Case]] = [[] for _ in range(parts)]
    for case in cases:
        at = {where[key] for key in case.relevant if key in where}
        if len(at) == 1:
            asked[at.pop()].append(_unanswerable(case))
    made = [
        Fold(frozenset(key for key, at in where.items() if at == part), tuple(some))
        for part, some in enumerate(asked)
        if some
    ]
    if not made:
        raise InvalidInput("No case names an entry that could be left out.", field="leave_out")
    return made


def _kin(entry: FaqEntry) -> str:
    """Return what an entry has in common with its translations: its id without the language."""
    return entry.id.removesuffix(f"-{entry.locale}").removesuffix(f"-{entry.locale.split('-')[0]}")


def _unanswerable(case: Case) -> Case:
    return replace(
        case, id=case.id + MARK, relevant=frozenset(), reference="", answerable=False, expect=None
    )


def figures(present: Sequence[Result], absent: Sequence[Result]) -> dict[str, Any]:
    """Return how often the bot abstains where nothing answers, and answers where something does.

    Args:
        present: What was said with all entries there; only cases with relevant ones count.
        absent: What was said to the same questions without them.

    Returns:
        Shares, and `left_out_at_90`: what share of the answerable is answered, rightly or not, by
        the one threshold on the chance, chosen in hindsight, that abstains on 90% of the others.
    """
    asked = [r for r in present if r.case.relevant]
    right = [_is_right(r) for r in asked]
    return {
        "left_out_abstained": _share([_decided(r) in ABSTAINING for r in absent]),
        "left_out_answered": _share([_decided(r) is Decision.ANSWER for r in absent]),
        "left_out_clarified": _share([_decided(r) is Decision.CLARIFY for r in absent]),
        "present_answered": _share([_decided(r) is Decision.ANSWER for r in asked]),
        "present_answered_right": _share(right),
        "present_clarified": _share([_decided(r) is Decision.CLARIFY for r in asked]),
        "present_abstained": _share([_decided(r) in ABSTAINING for r in asked]),
        "left_out_auroc": auroc(
            [chance_of(r.reply) for r in asked], [chance_of(r.reply) for r in absent]
        ),
        "left_out_at_90": _at(asked, absent, AIMED_ABSTENTION),
        "left_out_n": len(absent),
        "present_n": len(asked),
    }


def curve(present: Sequence[Result], absent: Sequence[Result]) -> list[dict[str, float]]:
    """Return what one threshold on the chance would do, strictest first.

    Returns:
        Points of `threshold`, `abstained` (share of the unanswerable below it), `answered` (share
        of the answerable from it on) and `right` (of those, the best entry answers).
    """
    asked = [r for r in present if r.case.relevant]
    have = np.asarray([chance_of(r.reply) for r in asked])
    good = np.asarray([_is_found(r) for r in asked])
    lack = np.asarray([chance_of(r.reply) for r in absent])
    everything = np.concatenate([have, lack])
    wanted = np.linspace(0, 1, MOST_POINTS + 1)
    points: list[dict[str, float]] = []
    for threshold in np.unique(np.quantile(everything, wanted, method="lower"))[::-1]:
        answered = have >= threshold
        points.append(
            {
                "threshold": float(threshold),
                "abstained": float((lack < threshold).mean()) if len(lack) else 0.0,
                "answered": float(answered.mean()) if len(have) else 0.0,
                "right": float(good[answered].mean()) if answered.any() else 0.0,
            }
        )
    return points


def auroc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the chance that a positive one scores above a negative one; ties count half."""
    if not positive or not negative:
        return 0.0
    ours, theirs = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    return float(((ours > theirs) + 0.5 * (ours == theirs)).mean())


def paired(present: Sequence[Result], absent: Sequence[Result]) -> Iterator[tuple[Result, Result]]:
    """Yield what was said to each question with its entries there and without them."""
    with_entries: Mapping[str, Result] = {r.case.id: r for r in present}
    for result in absent:
        yield with_entries[result.case.id.removesuffix(MARK)], result


def _at(asked: Sequence[Result], absent: Sequence[Result], abstention: float) -> float:
    """Return the share answered from the lowest threshold that abstains so often."""
    lack = np.sort([chance_of(r.reply) for r in absent])
    if not len(lack) or not asked:
        return 0.0
    # Strictly above this chance: so many of the unanswerable lie at or below it.
    limit = lack[min(int(np.ceil(abstention * len(lack))), len(lack)) - 1]
    return _share([chance_of(r.reply) > limit for r in asked])


def _decided(result: Result) -> Decision:
    return result.reply.choice.decision


def _is_right(result: Result) -> bool:
    cited = {citation.entry_id for citation in result.reply.citations}
    return _decided(result) is Decision.ANSWER and bool(cited & result.case.relevant)


def _is_found(result: Result) -> bool:
    return bool(result.passages) and result.passages[0][0] in result.case.relevant


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
