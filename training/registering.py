"""From a trained folder to what serves: registered, compared on a frozen evaluation, promoted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from core import model_store
from core.db.connect import Database
from core.db.models import ModelVersion
from core.errors import Conflict, InvalidInput
from core.settings import Settings
from training.evaluation import frozen
from training.evaluation.frozen import Evidence, Tell, tell_nobody

CONFIDENCE = 0.95
ROUNDS = 4_000
AT_ONCE = 200
FEWEST_CASES = 20
"""Of fewer cases nothing can be told: even three that are all worse may be chance."""


@dataclass(frozen=True)
class Verdict:
    """How a new model compares with an old one on the same cases.

    Attributes:
        old: Its mean score.
        new: Its mean score.
        low: Of the interval of the difference, new minus old.
        high: Of the same.
        n: How many cases.
        is_worse: The new one is worse beyond noise.
    """

    old: float
    new: float
    low: float
    high: float
    n: int
    is_worse: bool

    @property
    def difference(self) -> float:
        """New minus old."""
        return self.new - self.old


def compare(
    old: Sequence[float],
    new: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    rounds: int = ROUNDS,
    seed: int = 7,
) -> Verdict:
    """Compare the scores that two models got on the same cases, higher is better.

    The new one is worse beyond noise if the whole interval of the difference lies below zero; of
    fewer than 20 cases that is never said.

    Args:
        old: One score a case.
        new: One score a case, in the same order.
        confidence: Of the interval.
        rounds: How often the cases are drawn anew, with replacement.
        seed: Of the draws.

    Source: the paired bootstrap of Efron and Tibshirani 1993, percentile interval; for models on
    one test set: Koehn 2004.

    Raises:
        InvalidInput: The two are not about the same number of cases, or there is none.
    """
    if len(old) != len(new) or not len(old):
        raise InvalidInput(f"{len(old)} and {len(new)} cases cannot be compared pair by pair.")
    difference = np.asarray(new, float) - np.asarray(old, float)
    if not np.isfinite(difference).all():
        raise InvalidInput("A score is no number.")
    n = len(difference)
    rng = np.random.default_rng(seed)
    means = np.concatenate(
        [
            difference[rng.integers(0, n, (min(AT_ONCE, rounds - done), n))].mean(axis=1)
            for done in range(0, rounds, AT_ONCE)
        ]
    )
    beyond = (1 - confidence) / 2
    low, high = (float(edge) for edge in np.quantile(means, [beyond, 1 - beyond]))
    return Verdict(
        float(np.mean(old)), float(np.mean(new)), low, high, n, n >= FEWEST_CASES and high < 0
    )


@dataclass(frozen=True)
class Outcome:
    """What became of a wish to promote a version.

    Attributes:
        verdict: None where there was nothing to compare with.
        against: The version that it was compared with; None is what ships.
        note: What was measured on what, or why nothing was.
    """

    version: ModelVersion
    against: str | None
    verdict: Verdict | None
    note: str
    is_forced: bool = False


async def promote(
    database: Database,
    settings: Settings,
    name: str,
    *,
    base: str | None = None,
    cases: Path | None = None,
    results: tuple[Path, Path] | None = None,
    force: bool = False,
    why: str = "",
    author: str = "",
    tell: Tell = tell_nobody,
) -> Outcome:
    """Let a version serve unless it is worse than what serves, beyond noise.

    Both are measured on the frozen evaluation: the staff's labels where there are at least 50,
    else `cases`. The hash of the evaluation and its figures are kept with the version.

    Args:
        database: Has the registry, the labels and the entries.
        settings: Where models are.
        name: The version.
        base: For which knowledge base; the version's own, or all, when not given.
        cases: A file of cases, for where there are few labels; see `training.evaluation.frozen`.
        results: Of a reply adapter: what `eval replies --out` wrote with the old and the new one.
        force: Promote in spite of the verdict.
        why: The reason; must be given with `force`.
        author: Who wishes it.
        tell: Takes one line of progress at a time.

    Raises:
        Conflict: It is worse; the text has the figures. Or something else was promoted meanwhile.
        InvalidInput: The wish makes no sense.
        ConfigurationError: The version is not what its kind needs.
        NotFound: There is no such version or base.
    """
    if force and not why.strip():
        raise InvalidInput("Say --why when you --force a promotion: it is kept for the record.")
    version = await model_store.find(database, name)
    async with database.transaction() as conn:
        base_id = await model_store.target(conn, version, base)
    serving = await model_store.serving(database, version.kind, base_id)
    against = serving.name if serving else None
    await frozen.require_whole(database, settings, version)
    evidence = await frozen.measure(
        database, settings, version, serving, base_id, cases=cases, results=results, tell=tell
    )
    verdict = compare(evidence.old, evidence.new) if evidence.old else None
    is_worse = verdict is not None and verdict.is_worse and not evidence.old_breaks
    refusal = evidence.broken or (_figures(verdict) if verdict and is_worse else "")
    if refusal and not force:
        raise Conflict(
            f"{name} is not promoted: on {evidence.source} it is worse than "
            f"{against or 'what ships'} beyond noise ({refusal}). Use --force --why TEXT if it "
            "must serve all the same."
        )
    if verdict is not None:
        await model_store.note(
            database,
            name,
            settings={"evaluation": {"source": evidence.source, "sha256": evidence.sha256,
                                     "cases": verdict.n, "against": against}},
            metrics={"frozen": asdict(verdict)},
        )  # fmt: skip
    reason = why.strip() or (_figures(verdict) if verdict else evidence.note)
    await model_store.promote(
        database,
        name,
        base=base,
        why=f"forced: {reason}" if refusal else reason,
        author=author,
        instead_of=against,
    )
    return Outcome(version, against, verdict, _note(evidence, verdict), is_forced=bool(refusal))


def _figures(verdict: Verdict) -> str:
    return (
        f"{verdict.old:.4f} -> {verdict.new:.4f}, difference {verdict.difference:+.4f} "
        f"[{verdict.low:+.4f}, {verdict.high:+.4f}] at 95%, {verdict.n} cases"
    )


def _note(evidence: Evidence, verdict: Verdict | None) -> str:
    if verdict is None:
        return evidence.note
    text = f"{evidence.what} on {evidence.source}: {_figures(verdict)}"
    if verdict.n < FEWEST_CASES:
        text += f"; fewer than {FEWEST_CASES} cases tell nothing"
    return f"{text}; {evidence.note}" if evidence.note else text
