"""Which messages to label next: those that models are unsure of and that are unlike each other.

Source: uncertainty and margin sampling, Settles 2009, sections 3.1 and 5.1 (weighted by how often
a message is met: information density); diversity by greedily taking what is farthest from all
that is taken or labelled, as in Sener & Savarese 2018 (k-center), here times the uncertainty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.words import likeness, words

Floats = NDArray[np.float64]

NEAR = 0.15
"""How far from the threshold a confidence still counts as near: there the figure is about 1/e."""
LEAST_DISTANCE = 0.05
"""What is left of a message that says the same as one already taken: it comes last, not never."""
WEIGHTS = {"threshold": 1.0, "margin": 0.7, "intent": 0.6, "disagreement": 1.0, "refuted": 1.5}
"""What each doubt counts; staff's minute is best spent where a customer has spoken against us."""
REASONS = {
    "threshold": "its chance is near the threshold",
    "margin": "two entries compete",
    "intent": "the intent is unclear",
    "disagreement": "intent and search disagree",
    "refuted": "a customer or an agent spoke against the answer",
    "none": "the bot is sure of it",
}


@dataclass(frozen=True)
class Doubtful:
    """What models made of a message.

    Attributes:
        confidence: The best entry's chance, in [0, 1].
        runner_up: The second one's.
        answer_from: From which chance on the bot answers.
        intent: The likeliest intent's probability; None where no intents were told.
        out_of_scope: The probability that it is none of the business.
        refuted: Somebody spoke against the answer.
        times: How often it was asked.
    """

    text: str
    confidence: float
    runner_up: float = 0.0
    answer_from: float = 0.5
    intent: float | None = None
    out_of_scope: float = 0.0
    refuted: bool = False
    times: int = 1


@dataclass(frozen=True)
class Pick:
    """A message to label: its place in what was given, how doubtful it is in [0, 1], and why."""

    place: int
    doubt: float
    why: str


def doubts(message: Doubtful) -> dict[str, float]:
    """Return how doubtful a message is by each sign, in [0, 1]."""
    distance = abs(message.confidence - message.answer_from)
    # at a runner-up of nothing there is no competition, whatever the lead
    close = 1.0 - (message.confidence - message.runner_up)
    return {
        "threshold": math.exp(-distance / NEAR),
        "margin": max(close, 0.0) * min(2 * message.runner_up, 1.0),
        "intent": 0.0 if message.intent is None else 1.0 - message.intent,
        "disagreement": min(2 * message.out_of_scope * message.confidence, 1.0),
        "refuted": float(message.refuted),
    }


def doubt(message: Doubtful) -> tuple[float, str]:
    """Return how doubtful a message is, in [0, 1], and the sign that says so most."""
    signs = {name: WEIGHTS[name] * value for name, value in doubts(message).items()}
    strongest = max(signs, key=signs.__getitem__)
    # as if the signs were independent: one strong one is enough, several add up
    left = math.prod(1.0 - min(value / max(WEIGHTS.values()), 1.0) for value in signs.values())
    return 1.0 - left, strongest if signs[strongest] > 0.2 else "none"


def choose(
    messages: Sequence[Doubtful],
    limit: int,
    *,
    labelled: Sequence[str] = (),
    vectors: NDArray[np.float32] | None = None,
) -> list[Pick]:
    """Return the messages to label next, in order.

    Args:
        messages: What customers asked.
        limit: At most so many.
        labelled: Texts that need no label any more; what is like them comes later.
        vectors: Unit vectors of the messages, shape (messages, hidden), for distances by meaning;
            without them the distance is by words, and needs no model.
    """
    told = [doubt(message) for message in messages]
    worth = np.asarray([d * (1.0 + math.log(m.times)) for (d, _), m in zip(told, messages)])  # noqa: B905
    sets = [words(message.text) for message in messages]
    nearest = _nearest_labelled(sets, [words(text) for text in labelled])
    alike = _alike_by_words(sets) if vectors is None else _alike_by_vectors(vectors)
    picks: list[Pick] = []
    taken = np.zeros(len(messages), np.bool_)
    for _ in range(min(limit, len(messages))):
        gain = worth * np.maximum(1.0 - nearest, LEAST_DISTANCE)
        place = int(np.where(taken, -1.0, gain).argmax())
        taken[place] = True
        picks.append(Pick(place, round(told[place][0], 4), REASONS[told[place][1]]))
        nearest = np.maximum(nearest, alike(place))
    return picks


def _alike_by_words(sets: Sequence[AbstractSet[str]]) -> Callable[[int], Floats]:
    def alike(place: int) -> Floats:
        return np.asarray([likeness(sets[place], other) for other in sets])

    return alike


def _alike_by_vectors(vectors: NDArray[np.float32]) -> Callable[[int], Floats]:
    """Return cosines; encoders crowd all texts into a cone, so the mean is taken out first."""
    centred = vectors - vectors.mean(axis=0)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)

    def alike(place: int) -> Floats:
        return np.maximum(centred @ centred[place], 0.0).astype(np.float64)

    return alike


def _nearest_labelled(
    sets: Sequence[AbstractSet[str]], labelled: Sequence[AbstractSet[str]]
) -> Floats:
    """Return how like each message is to the most alike labelled one; by an inverted index."""
    holding: dict[str, list[int]] = {}
    for number, held in enumerate(labelled):
        for word in held:
            holding.setdefault(word, []).append(number)
    nearest = np.zeros(len(sets))
    for place, said in enumerate(sets):
        others = {number for word in said for number in holding.get(word, ())}
        nearest[place] = max((likeness(said, labelled[n]) for n in others), default=0.0)
    return nearest
