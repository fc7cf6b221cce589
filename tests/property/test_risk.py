"""The promise of certificates on labels of many shapes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from core.risk import Judged, ahead_tail, binomial_tail, certify, upper_bound

Floats = NDArray[np.float64]


def sharp(u: Floats) -> Floats:
    return 1 / (1 + np.exp(-12 * (u - 0.4)))


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "calibrated": lambda u: u,
    "sharp": sharp,
    "a few labels wrong everywhere": lambda u: 0.97 * sharp(u),
    "weakly informative": lambda u: 0.8 + 0.18 * u,
    "at the border": lambda u: np.full_like(u, 0.95),
    "wrong where surest": lambda u: np.where(u > 0.97, 0.8, 0.99 * sharp(u)),
    "a good fifth": lambda u: np.where(u > 0.8, 0.99, 0.2),
    "rounded": lambda u: sharp(np.round(u, 1)),
}
TOLERATED = 0.05
TRIALS = 60


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labels", [150, 500])
def test_the_certified_rate_is_exceeded_in_a_tenth_of_all_cases_at_most(shape: str, labels: int):
    """Of thresholds certified for the long run, the true rate is known here."""
    chance = np.random.default_rng(labels)
    everything = chance.random(100_000)
    if shape == "rounded":
        everything = np.round(everything, 1)
    wrong = 1 - SHAPES[shape](everything)
    broken = 0
    for _ in range(TRIALS):
        some = chance.integers(0, len(everything), labels)
        right = chance.random(labels) >= wrong[some]
        found = certify(
            [Judged(float(c), bool(r)) for c, r in zip(everything[some], right, strict=True)],
            TOLERATED,
        )
        if found.threshold is not None:
            broken += bool(wrong[everything >= found.threshold].mean() > TOLERATED)

    assert broken <= 0.1 * TRIALS + 2.3 * math.sqrt(0.09 * TRIALS)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("labels", [150, 500])
def test_so_is_what_turns_out_wrong_among_the_next_answers(shape: str, labels: int):
    chance = np.random.default_rng(labels + 1)
    broken = 0
    for _ in range(TRIALS):
        drawn = chance.random(2 * labels)
        if shape == "rounded":
            drawn = np.round(drawn, 1)
        right = chance.random(2 * labels) < SHAPES[shape](drawn)
        judged = [Judged(float(c), bool(r)) for c, r in zip(drawn, right, strict=True)]
        found = certify(judged[:labels], TOLERATED, horizon=labels)
        if found.threshold is not None:
            answered = [e for e in judged[labels:] if e.confidence >= found.threshold]
            broken += sum(not e.is_right for e in answered) > TOLERATED * len(answered)

    assert broken <= 0.1 * TRIALS + 2.3 * math.sqrt(0.09 * TRIALS)


@given(st.integers(1, 600), st.data(), st.floats(0.001, 0.5))
def test_the_tail_of_the_binomial_is_its_sum(answered: int, data: st.DataObject, rate: float):
    failures = data.draw(st.integers(0, answered))
    exact = math.fsum(
        math.comb(answered, k) * rate**k * (1 - rate) ** (answered - k) for k in range(failures + 1)
    )

    assert binomial_tail(failures, answered, rate) == pytest.approx(min(exact, 1.0), abs=1e-9)


@given(st.integers(1, 300), st.integers(1, 300), st.data(), st.floats(0.01, 0.3))
def test_the_tail_of_the_next_answers_is_hypergeometric(
    answered: int, ahead: int, data: st.DataObject, rate: float
):
    failures = data.draw(st.integers(0, answered))
    bad = failures + math.floor(rate * ahead + 1e-9) + 1
    everything = answered + ahead
    exact = (
        sum(
            math.comb(bad, k) * math.comb(everything - bad, answered - k)
            for k in range(failures + 1)
            if answered - k <= everything - bad
        )
        / math.comb(everything, answered)
        if bad <= everything
        else 0.0
    )

    assert ahead_tail(failures, answered, ahead, rate) == pytest.approx(exact, abs=1e-8)


@given(st.integers(1, 400), st.data(), st.floats(0.01, 0.3))
def test_the_bound_is_where_so_few_failures_are_as_unlikely_as_allowed(
    answered: int, data: st.DataObject, delta: float
):
    failures = data.draw(st.integers(0, answered - 1))

    bound = upper_bound(failures, answered, delta)

    assert binomial_tail(failures, answered, bound) == pytest.approx(delta, rel=1e-4)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=200), st.floats(0.01, 0.3))
def test_a_certificate_counts_what_its_threshold_answers(
    pairs: list[tuple[float, bool]], tolerated: float
):
    judged = [Judged(confidence, is_right) for confidence, is_right in pairs]

    found = certify(judged, tolerated)

    if found.threshold is not None:
        answered = [each for each in judged if each.confidence >= found.threshold]
        assert found.answered == len(answered)
        assert found.failures == sum(not each.is_right for each in answered)
        assert found.upper <= tolerated + 1e-6
    assert certify(list(reversed(judged)), tolerated) == found
