"""Whether what customers ask still looks like what thresholds were fitted on; pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from core.risk import Spread

DRIFTED = 0.2
"""A population stability index from which on a score is commonly held to have shifted."""
CALM = 0.1
"""Below, an alert is cleared: between the two it stays as it is and does not flicker."""
CHI_SQUARE_99 = (6.63, 9.21, 11.34, 13.28, 15.09, 16.81, 18.48, 20.09, 21.67)
"""The 99% quantiles of chi-square by degrees of freedom: what chance alone hardly exceeds."""
FEWEST = 50
"""Fewer replies tell nothing."""
CHANGED = 0.1
"""A change of the share of questions without an answer that staff should know of."""
STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class Drift:
    """How far confidences have shifted.

    Attributes:
        index: The population stability index.
        chance: What the index of samples of these sizes hardly exceeds without any drift.
        seen: How many confidences were looked at.
    """

    index: float
    chance: float
    seen: int

    @property
    def is_drifted(self) -> bool:
        """The shift is large, and larger than chance makes it."""
        return self.index >= DRIFTED and self.index > self.chance

    @property
    def is_calm(self) -> bool:
        """There is no shift to speak of."""
        return self.index < max(CALM, min(self.chance, DRIFTED))


def drift(spread: Spread, confidences: Sequence[float]) -> Drift | None:
    """Compare confidences with how they were spread among the labels; None of too few.

    Source: the population stability index, sum (p - q) ln(p / q) over bins; its distribution
    without drift is chi-square times (1/n + 1/m): Yurdakul 2018.
    """
    labels, seen = sum(spread.counts), len(confidences)
    if min(labels, seen) < FEWEST or len(spread.counts) < 2:
        return None
    counts = [0] * len(spread.counts)
    for confidence in confidences:
        counts[bisect_right(spread.edges, confidence)] += 1
    bins = len(counts)
    index = 0.0
    for before, now in zip(spread.counts, counts, strict=True):
        p, q = (before + 0.5) / (labels + 0.5 * bins), (now + 0.5) / (seen + 0.5 * bins)
        index += (q - p) * math.log(q / p)
    degrees = min(bins - 1, len(CHI_SQUARE_99))
    return Drift(index, CHI_SQUARE_99[degrees - 1] * (1 / labels + 1 / seen), seen)


@dataclass(frozen=True)
class Change:
    """How the share of questions without an answer has changed.

    Attributes:
        before: The share before, in [0, 1].
        now: The share now.
        standard_error: Of the difference.
    """

    before: float
    now: float
    standard_error: float

    @property
    def is_large(self) -> bool:
        """It is one that staff should know of, and no chance."""
        size = abs(self.now - self.before)
        return size >= CHANGED and size > STANDARD_ERRORS * self.standard_error


def change(before: tuple[int, int], now: tuple[int, int]) -> Change | None:
    """Compare two shares, each as (how many, of how many); None of too few."""
    (some_before, all_before), (some_now, all_now) = before, now
    if min(all_before, all_now) < FEWEST:
        return None
    pooled = (some_before + some_now) / (all_before + all_now)
    error = math.sqrt(pooled * (1 - pooled) * (1 / all_before + 1 / all_now))
    return Change(some_before / all_before, some_now / all_now, error)
