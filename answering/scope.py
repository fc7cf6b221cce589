"""Whether a message is about anything known: from signals, and from how often it is not.

Two things are kept apart. The evidence says how much likelier a message's signals are where it is
out of scope than where it is not; it is fitted on held-out examples. The share says how much of
the traffic is out of scope; it differs from bot to bot, and unlabelled messages tell it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

PENALTY = 3e-3
LEAST_SHARE, LARGEST_SHARE = 0.002, 0.9
EXPECTED_MESSAGES = 20
"""How many messages' worth the expected share counts beside those that are seen."""
ROUNDS = 100
SURELY = 10.0


@dataclass(frozen=True)
class Scope:
    """The evidence for "out of scope" of some signals.

    Attributes:
        middle: Of each signal on examples in scope, shape (signals,).
        spread: Its standard deviation.
        weights: Shape (signals + 1,), the constant last.
    """

    middle: Floats
    spread: Floats
    weights: Floats

    def standardised_by(self, signals: Floats) -> Scope:
        """Return the same weights for signals whose middle and spread are those of examples.

        Heads that left some intents out see everything a little dimmer than those that are used.
        """
        middle, spread = _measured(signals)
        return Scope(middle, spread, self.weights)

    def evidence(self, signals: Floats) -> Floats:
        """Return log likelihood ratios, shape (texts,), from signals, shape (texts, signals)."""
        return _scaled(signals, self.middle, self.spread) @ self.weights

    def chance(self, signals: Floats, share: float) -> Floats:
        """Return the chance that each text is out of scope where `share` of all are."""
        return expit(self.evidence(signals) + logit(share))


def fit(signals: Floats, outside: Flags) -> Scope:
    """Return the evidence fitted by logistic regression with both sides of equal weight.

    Args:
        signals: Of held-out examples, shape (examples, signals).
        outside: Which are out of scope; where all or none are, the evidence is constant.
    """
    inside = signals[~outside] if not outside.all() else signals
    middle, spread = _measured(inside)
    if outside.all() or not outside.any():
        constant = SURELY if outside.all() else -SURELY
        return Scope(middle, spread, np.asarray([*[0.0] * signals.shape[1], constant]))
    scaled = _scaled(signals, middle, spread)
    share = outside.mean()
    importance = np.where(outside, 0.5 / share, 0.5 / (1 - share)) / len(outside)
    free = np.asarray([*[1.0] * signals.shape[1], 0.0])  # the constant is not held back

    def loss(weights: Floats) -> tuple[float, Floats]:
        chance = expit(scaled @ weights)
        likelihood = np.log(np.where(outside, chance, 1 - chance) + 1e-12)
        gradient = scaled.T @ (importance * (chance - outside)) + PENALTY * free * weights
        held_back = PENALTY / 2 * (free * weights) @ weights
        return float(held_back - importance @ likelihood), gradient

    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B")
    return Scope(middle, spread, np.asarray(found.x))


def share_in(evidence: Floats, expected: float) -> float:
    """Return which share of some unlabelled messages is out of scope.

    Args:
        evidence: Log likelihood ratios of the messages, shape (messages,).
        expected: The share to begin with; it decides where there are few messages.

    Source: expectation maximisation for a changed prior, Saerens, Latinne and Decaestecker
    (Neural Computation 2002), equation 2.9; the expected share is a Beta prior.
    """
    share = expected
    for _ in range(ROUNDS):
        outside = expit(evidence + logit(share)).sum()
        share = (outside + EXPECTED_MESSAGES * expected) / (len(evidence) + EXPECTED_MESSAGES)
        share = bounded(share)
    return share


def bounded(share: float) -> float:
    """Return a share that leaves both outcomes possible."""
    return float(np.clip(share, LEAST_SHARE, LARGEST_SHARE))


def _measured(signals: Floats) -> tuple[Floats, Floats]:
    known = np.where(np.isnan(signals).all(axis=0), 0.0, signals)
    return np.nanmean(known, axis=0), np.maximum(np.nanstd(known, axis=0), 1e-6)


def _scaled(signals: Floats, middle: Floats, spread: Floats) -> Floats:
    """Return standardised signals, cut where they lie far out, and the constant.

    A signal that is not known (nan) speaks neither way.
    """
    scaled = np.nan_to_num(np.clip((signals - middle) / spread, -6, 6), nan=0.0)
    return np.column_stack([scaled, np.ones(len(signals))])


def stacked(columns: Sequence[Floats]) -> Floats:
    """Return signals, shape (texts, signals), from one array a signal."""
    return np.column_stack(columns).astype(np.float64)
