"""From the signals of each search to one order, and to the chance that an entry answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

COSINE_FLOOR = 0.70
"""multilingual-e5-small puts unrelated texts at 0.70 to 0.80: what lies below says nothing."""
DENSE_WEIGHT = 0.7
"""Share of the cosine in the convex combination that brings candidates in; the rest is lexical.

Fitted by `python -m training.calibrating` on left-out alternates (flat from 0.6 to 0.8). A tuned
convex combination beats reciprocal rank fusion: Bruch et al., TOIS 2023.
"""
EXACT_WEIGHT = 8.0
"""What it counts that a question is an entry's own; set, since no left-out wording can show it."""
AGAINST_WEIGHT = -60.0
"""What it counts, per cosine, that a question is nearer to what an entry is not for; set, since
no sample holds enough of them."""
ABOUT_SHARE = 0.3
"""What it adds to a fused score, before the calibrator, that an entity is talked about."""
CALIBRATION = Path(__file__).parent / "data" / "confidence.json"


def fuse(dense: float, lexical: float) -> float:
    """Return one score in [0, 1] from a cosine and a lexical score in [0, 1]."""
    normal = min(max((dense - COSINE_FLOOR) / (1 - COSINE_FLOOR), 0.0), 1.0)
    return DENSE_WEIGHT * normal + (1 - DENSE_WEIGHT) * lexical


@dataclass(frozen=True)
class Signals:
    """What speaks for one entry.

    Attributes:
        dense: The blended cosine of its texts, above COSINE_FLOOR.
        nearest: The cosine of its nearest text, above COSINE_FLOOR.
        lexical: The share of the question's words that it accounts for.
        wording: How much the question is one of its own wordings.
        exact: 1 where the question is one of its wordings, letter for letter.
        foreign: 1 where it is in another language than the question.
        about: How surely the conversation is about its entity, in [0, 1].
        elsewhere: How much surer it is about another entity; 0 where the entry has none.
        against: How much nearer the question is to what it is not for than to its own wordings.
    """

    dense: float
    nearest: float
    lexical: float
    wording: float
    exact: float
    foreign: float
    about: float = 0.0
    elsewhere: float = 0.0
    against: float = 0.0

    def values(self) -> tuple[float, ...]:
        """Return them in their order."""
        return (
            self.dense, self.nearest, self.lexical, self.wording, self.exact, self.foreign,
            self.about, self.elsewhere, self.against,
        )  # fmt: skip


SIGNALS = len(fields(Signals))


@dataclass(frozen=True)
class Doubts:
    """What speaks for no entry at all.

    Attributes:
        off_topic: The intents' chance that the message is out of scope.
        brevity: 1 / number of words asked: a single word can mean many things.
        spread: How far the best entry stands out of the others, as a fused score.
    """

    off_topic: float
    brevity: float
    spread: float

    def values(self) -> tuple[float, ...]:
        """Return them in their order."""
        return (self.off_topic, self.brevity, self.spread)


@dataclass(frozen=True)
class Calibrator:
    """A conditional logit: entries compete with each other and with "none of them".

    So a rival lowers an entry's chance, and the chances sum to at most 1. That several signals
    answer more at the same accuracy than the bare score: Kamath et al. 2020.

    Attributes:
        weights: One a signal.
        none_weights: One a doubt.
        bias: Of "none of them".
        thresholds: By tolerated error rate, from which chance on answers keep it.
    """

    weights: Sequence[float]
    none_weights: Sequence[float]
    bias: float
    thresholds: Mapping[str, float]

    def chances(self, signals: Sequence[Signals], doubts: Doubts) -> NDArray[np.float64]:
        """Return the chance of each entry that it answers; what is missing to 1 is "none"."""
        logits = np.asarray([s.values() for s in signals]).reshape(-1, SIGNALS) @ self.weights
        none = self.bias + float(np.dot(doubts.values(), self.none_weights))
        everything = np.append(logits, none)
        shifted = np.exp(everything - everything.max())
        return (shifted / shifted.sum())[:-1]

    def answer_from(self, tolerated_error: float) -> float:
        """Return the confidence from which answers keep the error rate that staff tolerate."""
        return threshold_for(self.thresholds, tolerated_error)


def threshold_for(thresholds: Mapping[str, float], tolerated_error: float) -> float:
    """Return the threshold of a tolerated error rate.

    The nearest stricter rate that was fitted stands for one in between.
    """
    fitted = sorted((float(rate), threshold) for rate, threshold in thresholds.items())
    usable = [threshold for rate, threshold in fitted if rate <= tolerated_error + 1e-9]
    return usable[-1] if usable else fitted[0][1]


@cache
def shipped_calibrator(path: Path = CALIBRATION) -> Calibrator:
    """Return the calibrator that comes with the product."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return Calibrator(
        tuple(stored["weights"]),
        tuple(stored["none_weights"]),
        stored["bias"],
        stored["thresholds"],
    )
