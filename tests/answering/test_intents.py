"""Intents on made-up vectors: clusters are told apart, and what is far from all is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from answering.intents import (
    HUMAN_REQUEST,
    OUT_OF_SCOPE,
    IntentClassifier,
    figures,
    general_examples,
    with_cues,
)
from core.types import Intent

HIDDEN = 24


def cloud(seed: int, middle: int, count: int = 40) -> NDArray[np.float32]:
    """Return unit vectors around an axis, in the narrow cone in which encoders put texts."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, HIDDEN)) * 0.12 + 1.0
    vectors[:, middle] += 2.0
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def known(seed: int) -> tuple[NDArray[np.float32], list[str]]:
    vectors = np.concatenate([cloud(seed + i, i) for i in range(4)])
    return vectors, [label for label in "abcd" for _ in range(40)]


def test_known_intents_are_told_and_probabilities_sum_to_one():
    classifier = IntentClassifier.fit(*known(0))
    vectors, labels = known(50)
    assert classifier.evaluate(vectors, labels).accuracy > 0.95
    assert classifier.probabilities(vectors).sum(axis=1) == pytest.approx(1.0)
    assert classifier.predict(vectors[:1])[0][0].name == "a"


def test_what_resembles_no_example_is_out_of_scope_even_without_examples_of_that():
    classifier = IntentClassifier.fit(*known(0))
    strange = classifier.probabilities(cloud(90, 20))[:, -1]
    familiar = classifier.probabilities(known(50)[0])[:, -1]
    assert strange.mean() > 0.5 > familiar.mean()


def test_examples_of_out_of_scope_are_learned():
    vectors, labels = known(0)
    outside = np.concatenate([cloud(70 + i, 10 + i, 15) for i in range(4)])
    classifier = IntentClassifier.fit(
        np.concatenate([vectors, outside]), [*labels, *[OUT_OF_SCOPE] * len(outside)]
    )
    tested = np.concatenate([known(50)[0], cloud(99, 10, 20)])
    measured = classifier.evaluate(tested, [*known(50)[1], *[OUT_OF_SCOPE] * 20])
    assert measured.oos_recall > 0.9
    assert measured.oos_precision > 0.9
    assert measured.in_scope_accuracy > 0.95
    assert measured.ece < 0.15


def test_a_stored_head_says_the_same():
    classifier = IntentClassifier.fit(*known(0))
    restored = IntentClassifier.restore(classifier.state())
    vectors = known(50)[0]
    assert restored.names == classifier.names
    assert restored.probabilities(vectors) == pytest.approx(
        classifier.probabilities(vectors), abs=1e-2
    )


def test_two_labels_are_enough():
    vectors = np.concatenate([cloud(0, 0), cloud(1, 1)])
    classifier = IntentClassifier.fit(vectors, ["a"] * 40 + ["b"] * 40)
    assert classifier.predict(cloud(5, 1, 1))[0][0].name == "b"


def test_figures_count_what_they_say():
    chances = np.asarray([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.6, 0.2, 0.2]])
    measured = figures(["a", "b", OUT_OF_SCOPE], chances, ["a", "b", OUT_OF_SCOPE, OUT_OF_SCOPE])
    assert measured.accuracy == 0.75
    assert measured.in_scope_accuracy == 1.0
    assert measured.oos_recall == 0.5
    assert measured.oos_precision == 1.0
    assert measured.n == 4


def test_plain_words_for_a_person_count_only_where_the_classifier_half_agrees():
    half = [Intent("feedback", 0.6), Intent(HUMAN_REQUEST, 0.3)]
    hardly = [Intent("feedback", 0.95), Intent(HUMAN_REQUEST, 0.02)]
    assert with_cues("I'd prefer a human", half)[0].name == HUMAN_REQUEST
    assert with_cues("the human in your ad was funny", hardly)[0].name == "feedback"
    assert with_cues("I'd prefer it in blue", half)[0].name == "feedback"


def test_the_general_intents_come_with_examples():
    labels = {label for _, label in general_examples()}
    assert labels >= {"greeting", "thanks", "goodbye", HUMAN_REQUEST, "complaint", "feedback"}
    assert OUT_OF_SCOPE in labels
