"""Fitting what keeps a tolerated error rate: a calibrator over several signals, and thresholds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from core import risk
from core.risk import Certificate, Fitted, Judged, Labelled, Spread, Term, Thresholds

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS = 5
FEWEST_FOR_SIGNALS = 150
"""Among fewer labels a weight for each signal is fitted to chance more than to the signal."""
FEWEST_FOR_BENDS = 400
FEWEST_FOR_CURVE = 500
BENDS = (0.25, 0.5, 0.75, 0.9)
"""The quantiles of a signal at which its weight may change."""
PENALTY = 1.0
BENT_PENALTY = 10.0
ENTRY_PENALTY = 1.0
"""As if offsets were spread with a variance of 1 around 0, on the scale of log odds."""
BETTER = 0.995
"""A richer model is taken where its held-out log loss is below so much of the simpler one's."""
NEWTON_STEPS = 12
BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Thresholds with what they were tested on.

    Attributes:
        thresholds: What serves.
        judged: By language, the labels with the confidences of models that had not seen them.
        log_loss: By calibrator, held out: of what there was to choose from.
        chosen: Which calibrator was taken.
    """

    thresholds: Thresholds
    judged: Mapping[str, Sequence[Judged]]
    log_loss: Mapping[str, float]
    chosen: str


@dataclass(frozen=True)
class _Kind:
    """A form of calibrator; `penalty` is on the squares of the standardised weights."""

    name: str
    signals: tuple[str, ...] = ()
    is_bent: bool = False
    by_entry: bool = False
    penalty: float = PENALTY


@dataclass(frozen=True)
class _Table:
    """Labels as arrays: `values` of shape (labels, signals), NaN where a signal is missing."""

    names: tuple[str, ...]
    values: Floats
    right: Floats
    weight: Floats
    folds: NDArray[np.int64]
    entries: NDArray[np.str_]

    @classmethod
    def of(cls, labels: Sequence[Labelled]) -> _Table:
        names = tuple(sorted({name for label in labels for name in label.signals}))
        values = np.asarray(
            [[label.signals.get(name, np.nan) for name in names] for label in labels], np.float64
        ).reshape(len(labels), len(names))
        values[~np.isfinite(values)] = np.nan
        if "confidence" in names:
            column = names.index("confidence")
            kept = np.clip(values[:, column], risk.TINY, 1 - risk.TINY)
            values[:, column] = np.log(kept / (1 - kept))
        folds = [
            zlib.crc32((label.group or str(number)).encode()) % FOLDS
            for number, label in enumerate(labels)
        ]
        return cls(
            names,
            values,
            np.asarray([label.is_right for label in labels], np.float64),
            np.asarray([label.weight for label in labels], np.float64),
            np.asarray(folds),
            np.asarray([label.entry for label in labels], np.str_),
        )

    def column(self, name: str) -> Floats:
        return self.values[:, self.names.index(name)]


def fit(
    labels: Sequence[Labelled],
    tolerated: float,
    prior: float,
    *,
    delta: float = risk.DELTA,
    horizon: int | None = None,
    note: str = "",
    encoder: str = "",
) -> Calibration:
    """Return thresholds that keep a tolerated error rate, by language, and their calibrator.

    Confidences are cross-fitted: each label is tested with a calibrator that has not seen it.

    Args:
        labels: Of one knowledge base.
        tolerated: The share of wrong answers, in (0, 1).
        prior: The threshold on the shipped confidence, where nothing is certified.
        delta: The chance that a certificate is wrong.
        horizon: As in `core.risk.certify`.
        note: How the labels came about.
        encoder: Whose confidences they hold.
    """
    languages = {label.language for label in labels if label.certifies}
    table = _Table.of([_in_its_language(label, languages) for label in labels])
    held_out, losses, chosen = _choose(table, labels)
    fitted = _whole(table, chosen, held_out)
    chances = held_out if fitted is None or not fitted.curve else _on_curve(held_out, fitted)
    by_language: dict[str, list[Judged]] = {}
    for label, chance in zip(labels, chances, strict=True):
        if label.certifies:
            judged = Judged(float(chance), label.is_right)
            by_language.setdefault(label.language, []).append(judged)
    pool = [judged for some in by_language.values() for judged in some]

    def certified(some: Sequence[Judged]) -> Certificate:
        ahead = None if horizon is None else max(round(horizon * len(some) / len(pool)), 1)
        found = risk.certify(some, tolerated, delta, horizon=ahead)
        if found.threshold is not None or horizon is not None:
            return found
        return replace(found, missing=risk.missing_labels(some, tolerated, delta))

    thresholds = Thresholds(
        tolerated,
        delta,
        prior if fitted is None else 1 - tolerated,
        certified(pool),
        {language: certified(some) for language, some in by_language.items()},
        fitted,
        spread([label.signals["confidence"] for label in labels if label.certifies]),
        note,
        encoder,
    )
    return Calibration(thresholds, by_language, losses, chosen.name)


def _in_its_language(label: Labelled, languages: Set[str]) -> Labelled:
    if len(languages) < 2:
        return label
    signals = risk.with_language(label.signals, label.language, sorted(languages))
    return replace(label, signals=signals)


def spread(confidences: Sequence[float]) -> Spread:
    """Return how confidences are spread over bins that hold about as many each."""
    if not confidences:
        return Spread()
    values = np.asarray(confidences)
    edges = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Spread(tuple(float(e) for e in edges), tuple(int(c) for c in counts))


AS_IT_CAME = _Kind("as it came")


def _choose(table: _Table, labels: Sequence[Labelled]) -> tuple[Floats, Mapping[str, float], _Kind]:
    """Return held-out chances under the calibrator that foretells labels best, and which it is."""
    came = np.asarray([label.signals["confidence"] for label in labels], np.float64)
    best, chosen = np.clip(came, risk.TINY, 1 - risk.TINY), AS_IT_CAME
    losses = {chosen.name: _log_loss(best, table)} if len(labels) else {}
    for kind in _kinds(table):
        for found, chances in _cross_fitted(table, kind):
            losses[found.name] = _log_loss(chances, table)
            if losses[found.name] < losses[chosen.name] * BETTER:
                best, chosen = chances, found
    return (came if chosen is AS_IT_CAME else best), losses, chosen


def _kinds(table: _Table) -> list[_Kind]:
    """Return what so many labels can carry, the simplest first."""
    count, right = len(table.right), float(table.right.sum())
    if min(right, count - right) < FOLDS * 2 or count < FEWEST_FOR_SIGNALS:
        return []
    varying = tuple(
        name
        for number, name in enumerate(table.names)
        if np.isfinite(table.values[:, number]).any()
        and float(np.nanstd(table.values[:, number])) > 1e-9
    )
    alone = tuple(name for name in varying if name == "confidence")
    kinds = [_Kind("confidence alone", alone)] if alone else []
    if len(varying) > len(alone):
        kinds.append(_Kind("signals", varying))
    if count >= FEWEST_FOR_BENDS and kinds:
        richest = kinds[-1]
        kinds.append(
            replace(richest, name=f"{richest.name}, bent", is_bent=True, penalty=BENT_PENALTY)
        )
    return kinds


def _cross_fitted(table: _Table, kind: _Kind) -> Iterator[tuple[_Kind, Floats]]:
    """Yield held-out chances under a kind of calibrator, and under the same entry by entry."""
    plain, by_entry = np.empty(len(table.right)), np.empty(len(table.right))
    for fold in range(FOLDS):
        mine = table.folds == fold
        if mine.any():
            terms, bias = _logistic(table, kind, ~mine)
            scores = _scores(table, terms, bias, mine)
            plain[mine] = _sigmoid(scores)
            offsets = _offsets(table, terms, bias, ~mine)
            by_entry[mine] = _sigmoid(scores + _added(table, offsets, mine))
    yield kind, plain
    if len(np.unique(table.entries)) > 1:
        yield replace(kind, name=f"{kind.name}, entry by entry", by_entry=True), by_entry


def _whole(table: _Table, kind: _Kind, held_out: Floats) -> Fitted | None:
    """Return the calibrator of a kind, fitted on everything."""
    if kind is AS_IT_CAME:
        return None
    everything = np.ones(len(table.right), np.bool_)
    terms, bias = _logistic(table, kind, everything)
    entries = _offsets(table, terms, bias, everything) if kind.by_entry else {}
    return Fitted(terms, bias, _curve(table, held_out), entries)


def _offsets(table: _Table, terms: Sequence[Term], bias: float, some: Bools) -> dict[str, float]:
    """Return what each entry adds to the score: a random intercept, by one Newton step.

    An entry of which there are few labels keeps close to 0, the average of all.
    """
    chances = _sigmoid(_scores(table, terms, bias, some))
    weight, entries = table.weight[some], table.entries[some]
    names, places = np.unique(entries, return_inverse=True)
    surplus = np.bincount(places, weight * (table.right[some] - chances), len(names))
    surely = np.bincount(places, weight * chances * (1 - chances), len(names))
    steps = surplus / (surely + ENTRY_PENALTY)
    return {str(n): float(s) for n, s in zip(names, steps, strict=True) if n}


def _logistic(table: _Table, kind: _Kind, some: Bools) -> tuple[tuple[Term, ...], float]:
    """Fit a penalised logistic regression on some labels, by Newton's method."""
    terms: list[Term] = []
    columns: list[Floats] = []
    for name in kind.signals:
        seen = table.column(name)[some]
        for bend in _bends(seen, is_bent=kind.is_bent):
            values = seen if bend is None else np.maximum(0.0, seen - bend)
            mean, scale = float(np.nanmean(values)), float(np.nanstd(values))
            if scale > 1e-9:
                terms.append(Term(name, bend, mean, scale, 0.0))
                columns.append(np.nan_to_num((values - mean) / scale))
    design = np.column_stack([*columns, np.ones(int(some.sum()))])
    weights = _newton(design, table.right[some], table.weight[some], kind.penalty)
    fitted = [
        Term(t.name, t.bend, t.mean, t.scale, float(w))
        for t, w in zip(terms, weights, strict=False)
    ]
    return tuple(fitted), float(weights[-1])


def _bends(seen: Floats, *, is_bent: bool) -> list[float | None]:
    if not is_bent:
        return [None]
    return [None, *(float(b) for b in np.unique(np.nanquantile(seen, BENDS)))]


def _newton(design: Floats, right: Floats, weight: Floats, penalty: float) -> Floats:
    ridge = np.full(design.shape[1], penalty)
    ridge[-1] = 1e-6  # the bias is free
    weights = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        chances = _sigmoid(design @ weights)
        gradient = design.T @ (weight * (chances - right)) + ridge * weights
        curvature = weight * np.maximum(chances * (1 - chances), 1e-6)
        step = np.linalg.solve((design * curvature[:, None]).T @ design + np.diag(ridge), gradient)
        weights = weights - step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-9))
        if float(np.abs(step).max()) < 1e-4:
            break
    return weights


def _added(table: _Table, offsets: Mapping[str, float], some: Bools) -> Floats:
    return np.asarray([offsets.get(str(entry), 0.0) for entry in table.entries[some]])


def _scores(table: _Table, terms: Sequence[Term], bias: float, some: Bools) -> Floats:
    scores = np.full(int(some.sum()), bias)
    for term in terms:
        seen = table.column(term.name)[some]
        bent = seen if term.bend is None else np.maximum(0.0, seen - term.bend)
        scores += np.nan_to_num(term.weight * (bent - term.mean) / term.scale)
    return scores


def _curve(table: _Table, held_out: Floats) -> tuple[tuple[float, float], ...]:
    """Return an isotonic curve from scores to chances, where it foretells held-out labels better.

    Source: Zadrozny and Elkan 2002, pool-adjacent-violators.
    """
    if len(held_out) < FEWEST_FOR_CURVE:
        return ()
    scores = np.log(held_out / (1 - held_out))
    curved = np.empty(len(scores))
    for fold in range(FOLDS):
        mine = table.folds == fold
        curve = _isotonic(scores[~mine], table.right[~mine], table.weight[~mine])
        curved[mine] = [risk.read(curve, float(score)) for score in scores[mine]]
    if _log_loss(curved, table) >= _log_loss(held_out, table) * BETTER:
        return ()
    return _isotonic(scores, table.right, table.weight)


def _isotonic(scores: Floats, right: Floats, weight: Floats) -> tuple[tuple[float, float], ...]:
    order = np.argsort(scores, kind="stable")
    blocks: list[list[float]] = []  # weight, of it right, weighted score
    for score, is_right, given in zip(scores[order], right[order], weight[order], strict=True):
        blocks.append([float(given), float(given * is_right), float(given * score)])
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][0] >= blocks[-1][1] * blocks[-2][0]:
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    # One right and one wrong label more in each block: a chance of 0 or 1 is never known.
    points = [(s / w, (r + 0.5) / (w + 1.0)) for w, r, s in blocks]
    rising = [points[0]]
    for before, after in pairwise(points):
        if after[0] > before[0]:
            rising.append((after[0], max(after[1], rising[-1][1])))
    return tuple(rising)


def _on_curve(held_out: Floats, fitted: Fitted) -> Floats:
    scores = np.log(held_out / (1 - held_out))
    return np.asarray([risk.read(fitted.curve, float(score)) for score in scores])


def _sigmoid(scores: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(scores, -60, 60)))


def _log_loss(chances: Floats, table: _Table) -> float:
    kept = np.clip(chances, risk.TINY, 1 - risk.TINY)
    told = np.where(table.right > 0.5, kept, 1 - kept)
    return float(-(table.weight * np.log(told)).sum() / max(float(table.weight.sum()), 1e-12))
