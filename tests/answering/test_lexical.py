"""Words: tokens, typos, and an index that changes as if it had been built anew."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.types import FaqEntry
from retrieval.lexical import LexicalIndex, stem, tokens


def found(index: LexicalIndex, text: str) -> dict[str, float]:
    return dict(index.search(text, 100))


def entry(name: str, question: str, answer: str = "", *alternates: str) -> FaqEntry:
    return FaqEntry(name, question, answer, alternates)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("shipping", "shipped"),
        ("deliveries", "delivery"),
        ("returns", "returned"),
        ("sizes", "size"),
        ("colours", "colour"),
        ("boxes", "box"),
    ],
)
def test_forms_of_a_word_share_a_stem(one: str, other: str):
    assert stem(one) == stem(other)


def test_accents_case_and_width_do_not_matter():
    assert tokens("CAFÉ Ｏｔｔｅｒ") == tokens("cafe otter")


def test_a_product_code_is_kept_whole_and_in_parts():
    assert {"bf-123456", "bf", "123456"} <= set(tokens("my order BF-123456"))


def test_korean_particles_and_endings_are_no_part_of_a_word():
    assert tokens("호텔에 주차장이 있나요?")[:3] == ["호텔", "주차", "차장"]
    assert set(tokens("주차장에서")) == set(tokens("주차장은"))


def test_japanese_keeps_katakana_words_whole_and_drops_what_ties_words():
    assert tokens("クレジットカードは") == ["クレジットカード"]
    assert tokens("返品はできますか") == tokens("返品できますか？")
    assert "東京" in tokens("東京タワーはどこですか")


def test_chinese_becomes_pairs_without_fillers():
    assert tokens("我的订单到哪里了？") == ["订单", "单到", "到哪", "哪里"]


def test_a_japanese_voicing_mark_is_kept():
    assert tokens("ガラス") != tokens("カラス")


def test_the_entry_that_holds_the_words_comes_first():
    index = LexicalIndex()
    index.put(entry("returns", "How do I return an item?"))
    index.put(entry("shipping", "How much is shipping to Germany?"))
    scores = found(index, "shipping costs germany")
    assert max(scores, key=scores.__getitem__) == "shipping"


def test_one_wrong_letter_still_finds_the_word():
    index = LexicalIndex()
    index.put(entry("warranty", "How long is the warranty?"))
    index.put(entry("shipping", "How much is shipping?"))
    assert set(found(index, "warrenty")) == {"warranty"}
    assert found(index, "warranty")["warranty"] > found(index, "warrenty")["warranty"]


def test_words_that_stand_nowhere_lower_the_score():
    index = LexicalIndex()
    index.put(entry("returns", "How do I return an item?"))
    assert found(index, "return item")["returns"] > found(index, "return zebra item")["returns"]


def test_an_empty_index_finds_nothing():
    assert LexicalIndex().search("anything", 5) == []


WORDS = st.lists(
    st.sampled_from(["return", "refund", "shipping", "otter", "warranty", "退货", "运费", "café"]),
    min_size=1,
    max_size=5,
).map(" ".join)
CHANGES = st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), WORDS)), max_size=25)


@settings(deadline=None, max_examples=60)
@given(CHANGES, WORDS)
def test_an_index_that_changed_equals_one_built_anew(
    changes: list[tuple[int, str | None]], asked: str
):
    changed = LexicalIndex()
    standing: dict[str, FaqEntry] = {}
    for number, text in changes:
        name = f"entry-{number}"
        if text is None:
            changed.remove(name)
            standing.pop(name, None)
        else:
            standing[name] = entry(name, text, text)
            changed.put(standing[name])
    rebuilt = LexicalIndex()
    for known in standing.values():
        rebuilt.put(known)

    assert found(changed, asked) == pytest.approx(found(rebuilt, asked))
