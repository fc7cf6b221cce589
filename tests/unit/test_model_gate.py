"""The gate: worse beyond noise is refused, chance is not."""

from __future__ import annotations

import random

import pytest

from core.errors import InvalidInput
from training.registering import compare


def scores(right: float, n: int, seed: int) -> list[float]:
    rng = random.Random(seed)
    return [float(rng.random() < right) for _ in range(n)]


def test_a_model_that_is_plainly_worse_is_told_with_both_figures_and_the_interval():
    old = [1.0] * 180 + [0.0] * 20
    new = [1.0] * 150 + [0.0] * 50

    verdict = compare(old, new)

    assert (verdict.old, verdict.new, verdict.n) == (0.9, 0.75, 200)
    assert verdict.difference == pytest.approx(-0.15)
    assert verdict.low < -0.15 < verdict.high < 0
    assert verdict.is_worse


def test_a_better_model_and_the_same_model_are_not_worse():
    old = scores(0.8, 200, seed=1)

    assert not compare(old, [1.0] * 200).is_worse
    same = compare(old, old)
    assert (same.low, same.high, same.is_worse) == (0.0, 0.0, False)


def test_pairs_count_so_that_a_small_loss_on_the_same_cases_is_seen_where_means_would_hide_it():
    old = [float(i % 2) for i in range(400)]
    new = [0.0 if i % 2 and i < 24 else float(i % 2) for i in range(400)]  # loses 12, wins none

    verdict = compare(old, new)

    assert verdict.is_worse
    assert verdict.difference == pytest.approx(-0.03)
    shuffled = random.Random(3).sample(new, len(new))  # the same mean, pairs torn apart
    assert not compare(old, shuffled).is_worse


def test_of_a_few_cases_nothing_is_told():
    assert not compare([1.0] * 19, [0.0] * 19).is_worse
    assert compare([1.0] * 20, [0.0] * 20).is_worse


def test_equal_models_are_rarely_refused():
    refused = sum(
        compare(scores(0.8, 150, i), scores(0.8, 150, 1000 + i), rounds=400).is_worse
        for i in range(200)
    )

    assert refused <= 12  # 2.5% on the side that refuses, and what 200 trials may add to it


def test_the_same_scores_always_get_the_same_verdict():
    old, new = scores(0.8, 100, 1), scores(0.7, 100, 2)

    assert compare(old, new) == compare(old, new)


@pytest.mark.parametrize(
    ("old", "new"), [([], []), ([1.0], []), ([1.0, 0.0], [1.0]), ([1.0], [float("nan")])]
)
def test_what_cannot_be_compared_is_refused(old: list[float], new: list[float]):
    with pytest.raises(InvalidInput):
        compare(old, new)
