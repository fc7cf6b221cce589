"""Unlabelled messages as further examples, where that helps on held-out ones; else not at all.

Two ways are tried: the head's own sure guesses (pseudo-labels: Lee 2013), and labels that spread
over the nearest neighbours (label spreading: Zhou et al. 2004). Either may just repeat the head's
own mistakes, so what wins must win on labelled messages that neither has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from core.errors import InvalidInput

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]
Names = NDArray[np.str_]

FOLDS = 5
FEWEST_LABELLED = 20
UNLABELLED_LIMIT = 20_000
"""More neighbours than this cost minutes and change little."""
SHARE = 0.5
"""Half of the unlabelled messages are taken, as many of each label.

A bar for sureness instead takes many of some labels and none of others, which those then swallow:
on BANKING77 with 5 examples an intent it cost 2 to 6 points although 97% of the guesses were right.
"""
SURE = 0.1
"""A guess below is no guess; what is out of scope spreads over all labels."""
NEIGHBOURS = 10
SPREAD = 0.8
"""How much a message takes from its neighbours in each step, against what it was told."""
STEPS = 30
CHANCE = 0.05
"""How likely a gain on the held-out messages may be by chance alone (sign test, one-sided)."""
INVERSE_PENALTY = 20.0
BLOCK = 2_048


@dataclass(frozen=True)
class Guesses:
    """What is taken of the unlabelled messages: their places, and a label for each."""

    places: NDArray[np.int64]
    labels: Names


@dataclass(frozen=True)
class Extension:
    """Unlabelled messages that help as examples.

    Attributes:
        way: `sure guesses` or `spreading`.
        before, after: Accuracy on held-out labelled messages, without and with them.
    """

    places: NDArray[np.int64]
    labels: tuple[str, ...]
    way: str
    before: float
    after: float


@dataclass(frozen=True)
class Trial:
    """How a way did on held-out labelled messages, against the head without it.

    Attributes:
        won, lost: Messages that only this way told right, and only the plain head.
    """

    way: str
    accuracy: float
    won: int
    lost: int

    @property
    def is_better(self) -> bool:
        """It wins by more than chance explains (an exact sign test)."""
        total = self.won + self.lost
        return total > 0 and float(binom.sf(self.won - 1, total, 0.5)) <= CHANCE


@dataclass
class Report:
    """What was tried; filled by `extend` where it is given."""

    before: float = 0.0
    trials: list[Trial] = field(default_factory=list[Trial])


Way = Callable[[Matrix, Names, Matrix], Guesses]


def extend(
    vectors: Matrix,
    labels: Sequence[str],
    unlabelled: Matrix,
    *,
    seed: int = 7,
    report: Report | None = None,
) -> Extension | None:
    """Return unlabelled messages to train on with their guessed labels, None if none help.

    Args:
        vectors: Unit vectors of labelled messages, shape (messages, hidden).
        labels: Theirs.
        unlabelled: Unit vectors of messages that customers wrote, shape (others, hidden); what
            is out of scope among them is left out by being unsure.
        seed: Of the folds.
        report: Is told what was tried.

    Raises:
        InvalidInput: The shapes do not fit, or there are too few labelled messages to hold any out.
    """
    names = np.asarray(labels)
    _check(vectors, names, unlabelled)
    some = _at_most(unlabelled, seed)
    tried = report if report is not None else Report()
    folds = _folds(names, seed)
    plain = np.zeros(len(names), np.bool_)
    right = {way: np.zeros(len(names), np.bool_) for way in WAYS}
    for test in folds:
        train = np.setdiff1d(np.arange(len(names)), test)
        known, told = vectors[train], names[train]
        plain[test] = _predict(known, told, vectors[test]) == names[test]
        for way, guess in WAYS.items():
            found = guess(known, told, unlabelled[some])
            more = np.concatenate([known, unlabelled[some][found.places]])
            said = np.concatenate([told, found.labels])
            right[way][test] = _predict(more, said, vectors[test]) == names[test]
    tried.before = float(plain.mean())
    tried.trials = [
        Trial(way, float(r.mean()), int((r & ~plain).sum()), int((plain & ~r).sum()))
        for way, r in right.items()
    ]
    best = max(tried.trials, key=lambda trial: trial.won - trial.lost)
    if not best.is_better:
        return None
    found = WAYS[best.way](vectors, names, unlabelled[some])
    chosen = tuple(str(label) for label in found.labels)
    return Extension(some[found.places], chosen, best.way, tried.before, best.accuracy)


def _check(vectors: Matrix, names: Names, unlabelled: Matrix) -> None:
    if len(vectors) != len(names) or vectors.ndim != 2 or vectors.shape[1:] != unlabelled.shape[1:]:
        raise InvalidInput("Labels and vectors do not fit together.", field="unlabelled")
    if len(names) < FEWEST_LABELLED or len(np.unique(names)) < 2:
        raise InvalidInput(
            f"At least {FEWEST_LABELLED} labelled messages of two labels are needed to see "
            "whether unlabelled ones help.",
            field="data",
        )


def _at_most(unlabelled: Matrix, seed: int) -> NDArray[np.int64]:
    order = np.random.default_rng(seed).permutation(len(unlabelled))[:UNLABELLED_LIMIT]
    return np.sort(order)


def _folds(names: Names, seed: int) -> list[NDArray[np.int64]]:
    """Return test parts in which each label is met as evenly as it can be."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(names))
    by_label = shuffled[np.argsort(names[shuffled], kind="stable")]
    return [np.sort(by_label[i::FOLDS]) for i in range(FOLDS)]


def _head(vectors: Matrix, names: Names) -> tuple[LogisticRegression, Matrix]:
    centre = vectors.mean(axis=0)
    head = LogisticRegression(C=INVERSE_PENALTY, max_iter=300)
    head.fit(_centred(vectors, centre), names)
    return head, centre


def _predict(vectors: Matrix, names: Names, wanted: Matrix) -> Names:
    head, centre = _head(vectors, names)
    return np.asarray(head.predict(_centred(wanted, centre)))


def _centred(vectors: Matrix, centre: Matrix) -> Matrix:
    moved = vectors - centre
    return moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9)


def sure_guesses(vectors: Matrix, names: Names, unlabelled: Matrix) -> Guesses:
    """Return what a head fitted on the labelled messages is surest of, some of each label."""
    head, centre = _head(vectors, names)
    chances = np.asarray(head.predict_proba(_centred(unlabelled, centre)), np.float64)
    return _surest(chances, np.asarray(head.classes_))


def spreading(vectors: Matrix, names: Names, unlabelled: Matrix) -> Guesses:
    """Return the labels that reach unlabelled messages over their nearest neighbours."""
    everything = np.concatenate([vectors, unlabelled])
    graph = _neighbours(_centred(everything, everything.mean(axis=0)))
    classes, places = np.unique(names, return_inverse=True)
    told = np.zeros((len(everything), len(classes)))
    told[np.arange(len(names)), places] = 1.0
    told /= told.sum(axis=0)  # a label with many examples does not flow farther
    reached = told
    for _ in range(STEPS):
        reached = SPREAD * (graph @ reached) + (1 - SPREAD) * told
    chances = reached[len(names) :]
    total = chances.sum(axis=1, keepdims=True)
    return _surest(chances / np.maximum(total, 1e-12), classes)


WAYS: Mapping[str, Way] = {"sure guesses": sure_guesses, "spreading": spreading}


def _surest(chances: Floats, classes: Names) -> Guesses:
    best = chances.argmax(axis=1)
    sure = chances.max(axis=1)
    each = max(int(SHARE * len(chances) / len(classes)), 1)
    taken: list[NDArray[np.int64]] = []
    for column in range(len(classes)):
        mine = np.flatnonzero((best == column) & (sure >= SURE))
        taken.append(mine[np.argsort(-sure[mine], kind="stable")[:each]])
    places = np.sort(np.concatenate(taken))
    return Guesses(places, np.asarray(classes[best[places]]))


def _neighbours(vectors: Matrix) -> csr_array:
    """Return the symmetrically normalised graph of nearest neighbours, weighted by cosine."""
    count = len(vectors)
    width = min(NEIGHBOURS, count - 1)
    near = np.empty((count, width), np.int64)
    weight = np.empty((count, width))
    for start in range(0, count, BLOCK):
        block = vectors[start : start + BLOCK] @ vectors.T
        rows = np.arange(len(block))
        block[rows, start + rows] = -np.inf  # nobody is their own neighbour
        nearest = np.argpartition(-block, width - 1, axis=1)[:, :width]
        near[start : start + BLOCK] = nearest
        weight[start : start + BLOCK] = np.maximum(np.take_along_axis(block, nearest, axis=1), 0.0)
    rows = np.repeat(np.arange(count), width)
    graph = csr_array((weight.ravel(), (rows, near.ravel())), shape=(count, count))
    graph = graph.maximum(graph.T).tocoo()
    scale = 1.0 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1e-12))
    weights = graph.data * scale[graph.row] * scale[graph.col]
    return csr_array((weights, (graph.row, graph.col)), shape=(count, count))
