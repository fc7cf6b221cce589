"""Vectors in memory, and the knowledge index that joins them with words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from numpy.typing import NDArray

from core.types import FaqEntry
from retrieval.dense import DenseIndex
from retrieval.fusion import Calibrator, Doubts, Signals, shipped_calibrator
from retrieval.index import Change, KnowledgeIndex, texts_of

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
    scores = index.best(query)
    for key, expected in best.items():
        assert scores[index.slot(key)] == pytest.approx(expected, abs=1e-5)


def test_a_mask_lets_only_its_entries_through():
    index = DenseIndex(2)
    index.put("one", np.stack([unit(1, 0)]))
    index.put("two", np.stack([unit(0, 1)]))
    assert [key for key, _ in index.search(unit(1, 0), 5, index.mask(["two"]))] == ["two"]


@pytest.fixture
def index() -> KnowledgeIndex:
    index = KnowledgeIndex(3, Calibrator((20, 20, 5, 1, 8, 0), (1, 1, 0), 8, {"0.05": 0.5}))
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
