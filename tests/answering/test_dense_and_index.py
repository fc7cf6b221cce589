"""Vectors in memory, and the knowledge index that joins them with words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from core.types import FaqEntry
from retrieval.dense import DenseIndex
from retrieval.entities import About, talked_about
from retrieval.fusion import Calibrator, Doubts, Signals, shipped_calibrator
from retrieval.index import Change, KnowledgeIndex, blended, nameless, texts_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def unit(*values: float) -> NDArray[np.float32]:
    vector = np.asarray(values, np.float32)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def change(entry: FaqEntry, vector: NDArray[np.float32]) -> Change:
    return Change(entry, np.stack([vector] * len(texts_of(entry))))


def test_an_entry_that_is_put_again_is_found_by_its_new_vector_alone():
    index = DenseIndex(3)
    index.put("one", np.stack([unit(1, 0, 0)]))
    index.put("two", np.stack([unit(0, 1, 0)]))
    index.put("one", np.stack([unit(0, 0, 1)]))
    assert index.search(unit(0, 0, 1), 1)[0][0] == "one"
    assert dict(index.search(unit(1, 0, 0), 2))["one"] == pytest.approx(0.0, abs=1e-6)


def test_many_entries_come_and_go_and_the_rest_stay_exact():
    rng = np.random.default_rng(3)
    index, kept = DenseIndex(8), {}
    for step in range(400):
        key = f"entry-{rng.integers(150)}"
        if rng.random() < 0.3:
            index.remove(key)
            kept.pop(key, None)
        else:
            vectors = rng.normal(size=(rng.integers(1, 4), 8)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            index.put(key, vectors)
            kept[key] = vectors
        assert len(index) == len(kept), step
    query = unit(*rng.normal(size=8))
    best = {key: float((vectors @ query).max()) for key, vectors in kept.items()}
    scores = index.nearest(list(best), query)
    for (key, expected), score in zip(best.items(), scores, strict=True):
        assert score == pytest.approx(expected, abs=1e-5), key


def test_a_mask_lets_only_its_entries_through():
    index = DenseIndex(2)
    index.put("one", np.stack([unit(1, 0)]))
    index.put("two", np.stack([unit(0, 1)]))
    assert [key for key, _ in index.search(unit(1, 0), 5, index.mask(["two"]))] == ["two"]


@pytest.fixture
def index() -> KnowledgeIndex:
    index = KnowledgeIndex(
        3, Calibrator((20, 20, 5, 1, 8, 0, 3, -3, -30), (1, 1, 0), 8, {"0.05": 0.5})
    )
    index.apply(
        [
            change(FaqEntry("returns", "How do I return it?", "Post", tags=("a",)), unit(1, 0, 0)),
            change(FaqEntry("gifts", "Do you wrap gifts?", "Yes.", entity="Otter"), unit(0, 1, 0)),
            change(FaqEntry("退货", "怎么退货？", "寄回来。", locale="zh"), unit(1, 0, 0)),
        ]
    )  # fmt: skip
    return index


def test_an_entry_in_the_customers_language_comes_first(index: KnowledgeIndex):
    assert index.search("how do I return it", unit(1, 0, 0), locale="en")[0].entry.id == "returns"
    assert index.search("怎么退货", unit(1, 0, 0), locale="zh-CN")[0].entry.id == "退货"


def test_without_an_entry_in_their_language_another_one_is_found(index: KnowledgeIndex):
    assert index.search("wie gebe ich zurück", unit(1, 0, 0), locale="de")[0].dense > 0.9


def test_an_entry_is_not_found_before_or_after_its_time(index: KnowledgeIndex):
    entry = replace(index.entries["gifts"], valid_until=NOW)
    index.apply([change(entry, unit(0, 1, 0))])
    before, after = NOW - timedelta(days=1), NOW
    asked = ("do you wrap gifts", unit(0, 1, 0))
    assert index.search(*asked, locale="en", at=before)[0].entry.id == "gifts"
    assert all(p.entry.id != "gifts" for p in index.search(*asked, locale="en", at=after))


def test_a_removed_entry_is_gone(index: KnowledgeIndex):
    index.apply((), removed=["gifts"])
    found = index.search("do you wrap gifts", unit(0, 1, 0), locale="en")
    assert [p.entry.id for p in found] == ["returns"]


def test_tags_are_a_filter(index: KnowledgeIndex):
    found = index.search("gifts", unit(0, 1, 0), locale="en", tags=frozenset({"a"}))
    assert [p.entry.id for p in found] == ["returns"]


def test_confidences_of_competitors_sum_to_at_most_one(index: KnowledgeIndex):
    found = index.search("return gifts", unit(1, 1, 0), locale="en")
    assert 0 < sum(p.confidence for p in found) <= 1


def test_the_entity_named_last_is_what_is_talked_about(index: KnowledgeIndex):
    assert index.mentioned(["I like the Otter.", "thanks"]) == "Otter"
    assert index.mentioned(["hello"]) == ""


@pytest.fixture
def hotels() -> KnowledgeIndex:
    """Two hotels with the same questions, and one about no hotel."""
    index = KnowledgeIndex(3)
    entries = [
        FaqEntry("a-wifi", "Do you have wifi?", "Yes, free.", entity="AVALON"),
        FaqEntry("a-pets", "Are pets allowed?", "No.", entity="AVALON"),
        FaqEntry("g-wifi", "Is there wifi at Gonville Hotel?", "No.", entity="GONVILLE HOTEL"),
        FaqEntry("g-pets", "Are pets allowed?", "Yes.", entity="GONVILLE HOTEL"),
        FaqEntry("taxi", "How do I get a taxi?", "Ring us."),
    ]
    vectors = {"wifi": unit(1, 0.1, 0.1), "pets": unit(0.1, 1, 0.1), "taxi": unit(0.1, 0.1, 1)}
    index.apply([change(e, vectors[e.id[-4:]]) for e in entries])
    return index


@pytest.mark.parametrize(("entity", "found"), [("AVALON", "a-pets"), ("GONVILLE HOTEL", "g-pets")])
def test_of_entries_that_differ_only_in_their_entity_the_one_talked_about_is_found(
    hotels: KnowledgeIndex, entity: str, found: str
):
    asked = ("are pets allowed", unit(0.1, 1, 0.1))
    passages = hotels.search(*asked, locale="en", about=[About(entity, 0.9)])
    assert passages[0].entry.id == found
    assert passages[0].confidence > 3 * passages[1].confidence


def test_another_entitys_own_wording_does_not_beat_the_entity_talked_about(hotels: KnowledgeIndex):
    asked = ("Do you have wifi?", unit(1, 0.1, 0.1))
    passages = hotels.search(*asked, locale="en", about=[About("GONVILLE HOTEL", 0.9)])
    assert passages[0].entry.id == "g-wifi"


def test_a_question_about_no_entity_is_still_found_while_one_is_talked_about(
    hotels: KnowledgeIndex,
):
    asked = ("how do i get a taxi", unit(0.1, 0.1, 1))
    passages = hotels.search(*asked, locale="en", about=[About("AVALON", 0.9)])
    assert passages[0].entry.id == "taxi"


def test_an_entity_without_entries_is_no_entity_to_talk_about(hotels: KnowledgeIndex):
    asked = ("are pets allowed", unit(0.1, 1, 0.1))
    plain = hotels.search(*asked, locale="en")
    hotels.apply((), removed=["a-wifi", "a-pets"])
    left = hotels.search(*asked, locale="en", about=[About("AVALON", 0.9)])
    assert plain[0].confidence < left[0].confidence
    assert left[0].entry.id == "g-pets"


def test_an_entry_asked_what_it_is_not_for_is_lowered():
    index = KnowledgeIndex(3)
    sending = FaqEntry(
        "sending", "How do I send it back?", "Post.", not_for=("Is it back in stock?",)
    )
    near, against = unit(1, 0.3, 0), unit(1, 0.6, 0)
    vectors = [against if t in sending.not_for else near for t in texts_of(sending)]
    stock = FaqEntry("stock", "When is it in stock?", "Soon.")
    index.apply([Change(sending, np.stack(vectors)), change(stock, unit(1, 1.1, 0))])
    lowered = index.search("is it back in stock", against, locale="en")
    index.apply([change(replace(sending, not_for=()), near)])
    before = index.search("is it back in stock", against, locale="en")
    chance = {p.entry.id: p.confidence for p in before}
    assert chance["sending"] > 2 * next(p.confidence for p in lowered if p.entry.id == "sending")


def test_what_an_entry_is_not_for_does_not_find_it():
    index = KnowledgeIndex(3)
    entry = FaqEntry("sending", "How do I send it back?", "Post.", not_for=("Is it in stock?",))
    vectors = [unit(0, 1, 0) if t in entry.not_for else unit(1, 0, 0) for t in texts_of(entry)]
    index.apply([Change(entry, np.stack(vectors))])
    assert index.search("stock", unit(0, 1, 0), locale="en")[0].dense == pytest.approx(0, abs=0.01)


def test_a_question_without_its_entity_is_what_is_asked_of_any():
    asked = FaqEntry(
        "x", "Can I bring my dog to the Gonville Hotel?", "No.", entity="GONVILLE HOTEL"
    )
    assert nameless(asked) == "Can I bring my dog?"
    assert nameless(replace(asked, question="Gonville Hotel?")) == "Gonville Hotel?"
    assert nameless(replace(asked, question="Are dogs allowed?")) == "Are dogs allowed?"
    assert nameless(replace(asked, entity=None)) == asked.question


def test_the_last_text_of_an_entry_is_its_question_with_its_answer():
    entry = FaqEntry("x", "Wifi at Avalon?", "Yes.", entity="AVALON", not_for=("TV?",))
    assert texts_of(entry) == ["Wifi at Avalon?", "Wifi?", "TV?", "Wifi at Avalon?\nYes."]


def test_a_question_and_its_gist_meet_half_way():
    both = blended(unit(1, 0, 0), unit(0, 1, 0))
    assert both == pytest.approx(unit(1, 1, 0))
    assert blended(unit(1, 0, 0), None) == pytest.approx(unit(1, 0, 0))


def test_the_shipped_calibrator_is_surer_of_nearer_entries():
    calibrator = shipped_calibrator()
    near, far = Signals(0.2, 0.22, 0.8, 0.6, 0, 0), Signals(0.12, 0.13, 0.1, 0.0, 0, 0)
    chances = calibrator.chances([near, far], Doubts(0.0, 0.25, 0.2))
    assert chances[0] > 0.5 > chances[1]


def test_a_rival_as_good_halves_the_chance():
    near = Signals(0.2, 0.22, 0.8, 0.6, 0, 0)
    chances = shipped_calibrator().chances([near, near], Doubts(0.0, 0.25, 0.0))
    assert chances[0] == pytest.approx(chances[1])
    assert chances[0] <= 0.5


def test_less_tolerance_means_a_higher_threshold():
    calibrator = shipped_calibrator()
    assert (
        calibrator.answer_from(0.01) >= calibrator.answer_from(0.05) >= calibrator.answer_from(0.2)
    )
    assert calibrator.answer_from(0.001) == calibrator.answer_from(0.01)


def test_a_base_whose_entries_name_no_entity_is_searched_by_the_names_in_its_texts():
    index = KnowledgeIndex(3)
    texts = [
        ("Is there parking at {}?", "Yes."),
        ("Are pets allowed?", "No, not at {}."),
        ("Is the pool at {} open?", "Yes."),
        ("Do you have wifi?", "Yes, all of {} has."),
    ]
    firsts = ("Gonville", "Acorn", "Avalon", "Hobson")
    names = [f"{first} {kind}" for first in firsts for kind in ("Hotel", "Lodge")]
    entries = [
        FaqEntry(f"{h}/{n}", question.format(name), answer.format(name))
        for h, name in enumerate(names)
        for n, (question, answer) in enumerate(texts)
    ]
    index.apply([change(e, unit(1, int(e.id[-1]), 0)) for e in entries])
    about = talked_about([("customer", "i am at the acorn lodge")], index.entities)
    found = index.search("are pets allowed", unit(1, 1, 0), locale="en", about=about)
    assert found[0].entry.id == "3/1"
