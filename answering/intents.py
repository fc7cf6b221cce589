"""What a message wants: a calibrated classifier on embeddings, with out-of-scope as an outcome."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from core.types import Intent

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

OUT_OF_SCOPE = "out_of_scope"
QUESTION = "question"
"""What FAQ entries stand for: a question about this business that no own intent names."""
GENERAL = frozenset({"greeting", "thanks", "goodbye", "human_request", "complaint", "feedback"})
HUMAN_REQUEST = "human_request"
CUED_FROM = 0.15
CUED = 0.9
_PERSON = re.compile(
    r"\b(?:humans?|real (?:person|people|human)|(?:a|some) person|someone|somebody|"
    r"live (?:agent|chat|person)|"
    r"(?:an?|the|your) (?:agent|representative|employee|operator|advisor|manager|supervisor)|agent|"
    r"representative|colleague|staff|menschen?|mitarbeiter|berater|humain|personne|conseiller|"
    r"persona|humano|agente)\b|人工|真人|客服|坐席|经理|オペレーター|担当者",
    re.IGNORECASE,
)
GENERAL_EXAMPLES = Path(__file__).parent / "data" / "general_intents.csv"

INVERSE_PENALTY = 20.0
"""Logistic regression's C on centred unit vectors; 10 to 40 are alike on held-out BANKING77."""
NEIGHBOURS = 5
HELD_OUT = 0.2
FOLDS = 4
LARGE = 4_000
"""Above so many examples one held-out part is enough, and folds would take minutes."""


@dataclass(frozen=True)
class IntentFigures:
    """How well intents are told on labelled texts; `ece` is the expected calibration error."""

    accuracy: float
    macro_f1: float
    in_scope_accuracy: float
    oos_recall: float
    oos_precision: float
    mcc: float
    ece: float
    n: int


class IntentClassifier:
    """A logistic head for the known intents and a small one for "none of them".

    The second reads how the first one sees a text (its log-odds for the examples of
    out-of-scope, its largest probability) and how far the nearest known examples are, so that
    also what resembles no example is out of scope. Both are calibrated on held-out examples.
    """

    def __init__(
        self,
        labels: Sequence[str],
        centre: Matrix,
        weights: Floats,
        bias: Floats,
        known: Matrix,
        temperature: float,
        scope_weights: Floats,
    ) -> None:
        self.labels = tuple(labels)
        self._centre = centre
        self._weights = weights
        self._bias = bias
        self._known = known
        self._temperature = temperature
        self._scope = scope_weights

    @classmethod
    def fit(cls, vectors: Matrix, labels: Sequence[str], *, seed: int = 7) -> IntentClassifier:
        """Fit both heads on labelled unit vectors, shape (texts, hidden); takes seconds.

        Without examples of `out_of_scope`, intents that are left out in turn stand for them.
        """
        names = np.asarray(labels)
        rng = np.random.default_rng(seed)
        centre = vectors.mean(axis=0)
        parts = _held_out(names, rng)
        rehearsals = [_rehearse(vectors, names, train, test, centre) for train, test in parts]
        temperature = _fit_temperature(rehearsals)
        scope = _fit_scope(rehearsals)
        classes, weights, bias = _head(_centred(vectors, centre), names)
        known = vectors[names != OUT_OF_SCOPE]
        return cls(classes, centre, weights, bias, known, temperature, scope)

    def predict(self, vectors: Matrix) -> list[list[Intent]]:
        """Return the intents of each text, likeliest first; probabilities sum to 1."""
        probabilities = self.probabilities(vectors)
        names = self.names
        return [
            [Intent(names[i], float(row[i])) for i in np.argsort(-row, kind="stable")]
            for row in probabilities
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of `probabilities`: the known intents, then out of scope."""
        return (*(label for label in self.labels if label != OUT_OF_SCOPE), OUT_OF_SCOPE)

    def probabilities(self, vectors: Matrix) -> Floats:
        """Return calibrated probabilities, shape (texts, names)."""
        logits = _centred(vectors, self._centre) @ self._weights + self._bias
        signals = _scope_signals(logits, self.labels, _nearness(vectors, self._known))
        outside = _sigmoid(signals @ self._scope)
        inside = [i for i, label in enumerate(self.labels) if label != OUT_OF_SCOPE]
        known = softmax(logits[:, inside] / self._temperature, axis=1)
        return np.column_stack([known * (1 - outside)[:, None], outside])

    def evaluate(self, vectors: Matrix, labels: Sequence[str]) -> IntentFigures:
        """Return how well the labels of texts are told."""
        return figures(self.names, self.probabilities(vectors), labels)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Return what `restore` needs, as arrays."""
        return {
            "labels": np.asarray(self.labels),
            "centre": self._centre,
            "weights": self._weights.astype(np.float32),
            "bias": self._bias.astype(np.float32),
            "known": self._known.astype(np.float16),
            "temperature": np.asarray([self._temperature]),
            "scope": self._scope,
        }

    @classmethod
    def restore(cls, state: Mapping[str, NDArray[np.generic]]) -> IntentClassifier:
        """Return the classifier whose state this is."""
        return cls(
            [str(label) for label in state["labels"]],
            state["centre"].astype(np.float32),
            state["weights"].astype(np.float64),
            state["bias"].astype(np.float64),
            state["known"].astype(np.float32),
            float(state["temperature"].astype(np.float64)[0]),
            state["scope"].astype(np.float64),
        )


def with_cues(text: str, intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return intents in which plain words for a person count, where the classifier half agrees.

    To miss somebody who asks for a person is the worst of all mistakes.
    """
    wish = next((i for i in intents if i.name == HUMAN_REQUEST), None)
    if wish is None or wish.probability < CUED_FROM or not _PERSON.search(text):
        return intents
    rest = [i for i in intents if i is not wish]
    return [Intent(HUMAN_REQUEST, max(wish.probability, CUED)), *rest]


def general_examples() -> list[tuple[str, str]]:
    """Return the examples of general intents that come with the product, as (text, label)."""
    with GENERAL_EXAMPLES.open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def figures(names: Sequence[str], probabilities: Floats, labels: Sequence[str]) -> IntentFigures:
    """Return the figures of predictions whose columns are `names`."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    true = np.asarray(labels)
    best = probabilities.argmax(axis=1)
    told = np.asarray(names)[best]
    right = told == true
    out, said_out = true == OUT_OF_SCOPE, told == OUT_OF_SCOPE
    return IntentFigures(
        accuracy=float(right.mean()),
        macro_f1=float(f1_score(true, told, average="macro", labels=np.unique(true))),
        in_scope_accuracy=_mean(right[~out]),
        oos_recall=_mean(said_out[out]),
        oos_precision=_mean(out[said_out]),
        mcc=float(matthews_corrcoef(true, told)),
        ece=_calibration_error(probabilities.max(axis=1), right),
        n=len(true),
    )


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _calibration_error(confidence: Floats, right: NDArray[np.bool_], bins: int = 15) -> float:
    """Return the expected calibration error: Naeini et al. 2015, equal-width bins."""
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(
        sum(
            (inside := which == b).mean() * abs(confidence[inside].mean() - right[inside].mean())
            for b in range(bins)
            if (which == b).any()
        )
    )


@dataclass(frozen=True)
class _Rehearsal:
    """A head fitted on one part of the examples and what it sees on the other."""

    labels: tuple[str, ...]
    logits: Floats
    signals: Floats
    truth: NDArray[np.str_]


def _held_out(
    names: NDArray[np.str_], rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (train, test) parts; without out-of-scope examples whole intents are left out."""
    order = rng.permutation(len(names))
    folds = 1 if len(names) > LARGE else FOLDS
    size = max(int(len(names) * (HELD_OUT if folds == 1 else 1 / folds)), 1)
    parts = [order[i * size : (i + 1) * size] for i in range(folds)]
    unknown: list[set[str]] = [set() for _ in parts]
    if OUT_OF_SCOPE not in names:
        kinds = rng.permutation(np.unique(names))
        share = max(len(kinds) // 4, 1) if len(kinds) > 2 else 0
        unknown = [set(np.roll(kinds, i * share)[:share].tolist()) for i in range(folds)]
    splits: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for part, left_out in zip(parts, unknown, strict=True):
        outside = np.isin(names, list(left_out))
        tested = np.zeros(len(names), np.bool_)
        tested[part] = True
        train = np.flatnonzero(~tested & ~outside)
        if len(np.unique(names[train])) > 1:
            splits.append((train, np.flatnonzero(tested)))
    return splits


def _rehearse(
    vectors: Matrix,
    names: NDArray[np.str_],
    train: NDArray[np.int64],
    test: NDArray[np.int64],
    centre: Matrix,
) -> _Rehearsal:
    classes, weights, bias = _head(_centred(vectors[train], centre), names[train])
    logits = _centred(vectors[test], centre) @ weights + bias
    known = vectors[train][names[train] != OUT_OF_SCOPE]
    truth = np.where(np.isin(names[test], classes), names[test], OUT_OF_SCOPE)
    signals = _scope_signals(logits, classes, _nearness(vectors[test], known))
    return _Rehearsal(tuple(classes), logits, signals, truth)


def _head(vectors: Matrix, names: NDArray[np.str_]) -> tuple[list[str], Floats, Floats]:
    """Fit a multinomial logistic head; return its labels, weights (hidden, labels) and bias."""
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, class_weight="balanced")
    model.fit(vectors, names)
    weights, bias = np.asarray(model.coef_).T, np.asarray(model.intercept_)
    if weights.shape[1] == 1:  # of two labels scikit-learn keeps only the second's
        weights = np.column_stack([-weights[:, 0] / 2, weights[:, 0] / 2])
        bias = np.asarray([-bias[0] / 2, bias[0] / 2])
    return [str(c) for c in model.classes_], weights.astype(np.float64), bias.astype(np.float64)


def _centred(vectors: Matrix, centre: Matrix) -> Matrix:
    """Return unit vectors around the centre: e5's lie in a narrow cone (cosines 0.7 to 1)."""
    moved = vectors - centre
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6)


def _nearness(vectors: Matrix, known: Matrix) -> Floats:
    """Return the best cosine to a known example and the mean of the best few."""
    count = min(NEIGHBOURS, len(known))
    cosines = vectors @ known.T
    best = -np.partition(-cosines, count - 1, axis=1)[:, :count]
    return np.column_stack([best.max(axis=1), best.mean(axis=1)]).astype(np.float64)


def _scope_signals(logits: Floats, labels: Sequence[str], nearness: Floats) -> Floats:
    """Return the second head's inputs, shape (texts, 6); the last is the constant."""
    inside = [i for i, label in enumerate(labels) if label != OUT_OF_SCOPE]
    logs = log_softmax(logits, axis=1)
    odds = np.zeros(len(logits))
    if len(inside) < len(labels):
        outside = logs[:, labels.index(OUT_OF_SCOPE)]
        odds = np.clip(outside - np.log(-np.expm1(np.minimum(outside, -1e-9))), -12, 12)
    among = log_softmax(logits[:, inside], axis=1)
    largest = logits[:, inside].max(axis=1)
    # Cosines are stretched so that all signals have about the same size.
    return np.column_stack(
        [odds, among.max(axis=1), largest, 20 * (nearness - 0.85), np.ones(len(logits))]
    )


def _fit_temperature(rehearsals: Sequence[_Rehearsal]) -> float:
    """Return the temperature that makes held-out examples likeliest (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        total, count = 0.0, 0
        for r in rehearsals:
            inside = [i for i, label in enumerate(r.labels) if label != OUT_OF_SCOPE]
            columns = {r.labels[i]: j for j, i in enumerate(inside)}
            rows = np.flatnonzero(r.truth != OUT_OF_SCOPE)
            logs = log_softmax(r.logits[rows][:, inside] / np.exp(log_temperature), axis=1)
            total -= sum(logs[i, columns[str(t)]] for i, t in enumerate(r.truth[rows]))
            count += len(rows)
        return total / max(count, 1)

    if not rehearsals:
        return 1.0
    found = minimize_scalar(loss, bounds=(-2.5, 2.5), method="bounded")
    return float(np.exp(found.x))


def _fit_scope(rehearsals: Sequence[_Rehearsal]) -> Floats:
    """Return the weights of the second head, the constant last."""
    if not rehearsals:
        return np.asarray([0.0] * 5 + [-10.0])
    signals = np.concatenate([r.signals for r in rehearsals])
    outside = np.concatenate([r.truth == OUT_OF_SCOPE for r in rehearsals])
    if outside.all() or not outside.any():
        return np.asarray([0.0] * (signals.shape[1] - 1) + [10.0 if outside.all() else -10.0])

    def loss(weights: Floats) -> tuple[float, Floats]:
        chance = _sigmoid(signals @ weights)
        likelihood = np.log(np.where(outside, chance, 1 - chance) + 1e-12)
        gradient = signals.T @ (chance - outside) / len(outside) + 1e-3 * weights
        return float(-likelihood.mean() + 5e-4 * weights @ weights), gradient

    return minimize(loss, np.zeros(signals.shape[1]), jac=True, method="L-BFGS-B").x


def _sigmoid(z: Floats) -> Floats:
    return 1 / (1 + np.exp(-np.clip(z, -40, 40)))
