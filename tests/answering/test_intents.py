"""Intents on made-up vectors: clusters are told apart, and what is far from all is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from answering.clauses import several, spans
from answering.intents import (
    HUMAN_REQUEST,
    OUT_OF_SCOPE,
    IntentClassifier,
    figures,
    general_examples,
    in_words,
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


LABELS = [label for label in "abcd" for _ in range(40)]


def worded(seed: int, count: int = 40) -> list[str]:
    """Return texts in which one word tells the intent."""
    rng = np.random.default_rng(seed)
    filler = ["please", "now", "my card", "the app", "again", "today"]
    return [
        " ".join([*rng.permutation(filler)[:3], word])
        for word in ("freeze", "refund", "limit", "invoice")
        for _ in range(count)
    ]


def test_words_tell_intents_that_vectors_do_not():
    rng = np.random.default_rng(3)
    blurred = rng.normal(size=(160, HIDDEN)).astype(np.float32)
    blurred /= np.linalg.norm(blurred, axis=1, keepdims=True)
    by_vector = IntentClassifier.fit(blurred, LABELS)
    by_both = IntentClassifier.fit(blurred, LABELS, texts=worded(0))
    test = np.roll(blurred, 7, axis=0)

    def told(classifier: IntentClassifier, texts: list[str] | None) -> float:
        chances = classifier.probabilities(test, texts)[:, :-1]
        return float((np.asarray(classifier.names)[chances.argmax(axis=1)] == LABELS).mean())

    assert told(by_both, worded(9)) > 0.9 > 0.5 > told(by_vector, None)


def test_the_name_of_an_intent_counts_where_examples_are_few():
    vectors = np.concatenate([cloud(i, i, 2) for i in range(4)])
    labels = [label for label in "abcd" for _ in range(2)]
    misled = {"a": cloud(8, 9, 1)[0]}
    plain = IntentClassifier.fit(vectors, labels)
    named = IntentClassifier.fit(vectors, labels, named=misled)
    seen = cloud(20, 9, 5)
    assert named.probabilities(seen)[:, 0].mean() > plain.probabilities(seen)[:, 0].mean()


def test_traffic_tells_how_much_of_it_is_out_of_scope():
    classifier = IntentClassifier.fit(*known(0))
    inside = classifier.for_traffic(known(50)[0])
    outside = np.concatenate([known(60)[0][::4], *(cloud(90 + i, 15 + i) for i in range(5))])
    half = classifier.for_traffic(outside)
    assert inside.share < 0.05
    assert half.share > 0.5
    assert half.probabilities(outside)[-100:, -1].mean() > 0.9


def test_few_messages_change_the_expected_share_little():
    classifier = IntentClassifier.fit(*known(0))
    assert classifier.for_traffic(cloud(90, 20, 1)).share < 2 * classifier.share


def test_copies_of_an_example_do_not_raise_confidence():
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(80, HIDDEN)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    labels = [str(label) for label in rng.choice(list("abcd"), 80)]  # nothing to be learned
    copied, named = np.concatenate([vectors] * 3), labels * 3
    told = IntentClassifier.fit(copied, named, origins=[*range(80)] * 3)
    naive = IntentClassifier.fit(copied, named)

    def sureness(classifier: IntentClassifier) -> float:
        known = classifier.probabilities(vectors)[:, :-1]
        return float((known / known.sum(axis=1, keepdims=True)).max(axis=1).mean())

    assert sureness(naive) > sureness(told) + 0.1


def test_the_nearest_examples_explain_what_was_told():
    vectors, labels = known(0)
    classifier = IntentClassifier.fit(vectors, labels)
    nearest = classifier.explain(vectors[45])
    assert nearest[0].row == 45
    assert nearest[0].cosine == pytest.approx(1.0, abs=1e-3)
    assert {near.label for near in nearest} == {"b"}
    assert sum(near.weight for near in nearest) == pytest.approx(1.0)


def test_a_stored_head_with_words_says_the_same():
    vectors, labels = known(0)
    classifier = IntentClassifier.fit(vectors, labels, texts=worded(0))
    restored = IntentClassifier.restore(classifier.state())
    texts = worded(4)
    assert restored.probabilities(vectors, texts) == pytest.approx(
        classifier.probabilities(vectors, texts), abs=1e-2
    )


@pytest.mark.parametrize(
    ("label", "words"),
    [("card_arrival", "card arrival"), ("Get physicalCard", "get physical card"), ("退款", "退款")],
)
def test_an_intent_is_called_by_words(label: str, words: str):
    assert in_words(label) == words


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("cancel it and when do I get my money?", ["cancel it", "when do I get my money?"]),
        ("Where is my parcel? I want to return it.", ["Where is my parcel?",
                                                       "I want to return it."]),
        ("我要取消订单，什么时候退款？", ["我要取消订单", "什么时候退款"]),
        ("Wo ist mein Paket und wann kommt es?", ["Wo ist mein Paket", "wann kommt es?"]),
        ("I want a red and blue shirt", ["I want a red and blue shirt"]),
        ("", []),
    ],
)  # fmt: skip
def test_a_message_is_split_where_another_wish_begins(text: str, clauses: list[str]):
    assert spans(text) == clauses


def test_two_wishes_stand_beside_each_other_only_where_each_is_sure():
    whole = [Intent("cancel", 0.6), Intent("refund", 0.3)]
    sure = [[Intent("cancel", 0.9)], [Intent("refund", 0.8)]]
    unsure = [[Intent("cancel", 0.9)], [Intent("refund", 0.4)]]
    social = [[Intent("thanks", 0.99)], [Intent("refund", 0.8)]]
    assert [i.name for i in several(whole, sure)] == ["cancel", "refund"]
    assert [i.name for i in several(whole, unsure)] == ["cancel"]
    assert [i.name for i in several(whole, social)] == ["cancel"]


def test_words_in_letters_that_no_example_has_do_not_count():
    vectors, labels = known(0)
    classifier = IntentClassifier.fit(vectors, labels, texts=worded(0))
    seen = known(50)[0][:5]
    chinese = classifier.probabilities(seen, ["我的包裹在哪里"] * 5)
    alone = classifier.probabilities(seen)
    assert chinese == pytest.approx(alone)
    assert classifier.probabilities(seen, ["invoice"] * 5) != pytest.approx(alone)
