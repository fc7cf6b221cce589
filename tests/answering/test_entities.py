"""Which entities a message names, and which a conversation is about."""

from __future__ import annotations

import random

import pytest

from core.types import FaqEntry
from retrieval.entities import EntityIndex, gist, talked_about
from retrieval.mining import mined
from training.noise import misheard

NAMES = [
    "A AND B GUEST HOUSE", "ACORN GUEST HOUSE", "GONVILLE HOTEL", "THE GANDHI", "PIZZA HUT CENTRE",
    "PIZZA HUT FEN DITTON", "AVALON", "RAJMAHAL", "CITYROOMZ", "THE GOLDEN CURRY", "GOLDEN WOK",
    "J RESTAURANT", "ASK RESTAURANT", "HOBSONS HOUSE", "SALA THONG", "FITZBILLIES RESTAURANT",
]  # fmt: skip


def index_of(*names: str, locale: str = "en") -> EntityIndex:
    index = EntityIndex()
    for number, name in enumerate(names):
        question, answer = "Do you have wifi?", "Yes, in every room."
        index.put(FaqEntry(f"{number}", question, answer, entity=name, locale=locale))
    return index


@pytest.fixture(scope="module")
def index() -> EntityIndex:
    return index_of(*NAMES)


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("Does the Gonville Hotel have wifi?", "GONVILLE HOTEL"),
        ("is there parking at the gonville", "GONVILLE HOTEL"),
        ("is there parking at the gonvile hotel", "GONVILLE HOTEL"),
        ("um i mean the gone ville hotel", "GONVILLE HOTEL"),
        ("can i bring a dog to an b guest house", "A AND B GUEST HOUSE"),
        ("i booked the akorn guest house", "ACORN GUEST HOUSE"),
        ("Acorn, please", "ACORN GUEST HOUSE"),
        ("a table at raj mahal for two", "RAJMAHAL"),
        ("we stay at city rooms", "CITYROOMZ"),
        ("do they deliver from fits billies", "FITZBILLIES RESTAURANT"),
        ("pizza hut fen ditton", "PIZZA HUT FEN DITTON"),
        ("what about the golden curry then", "THE GOLDEN CURRY"),
    ],
)
def test_a_name_is_found_however_it_is_typed_or_heard(index: EntityIndex, text: str, entity: str):
    assert [m.entity for m in index.mentions(text)][:1] == [entity]


@pytest.mark.parametrize(
    "text",
    [
        "thanks, that is all I need", "is there a restaurant near my hotel", "one more thing",
        "do you have a room in a guest house in the city centre", "can i ask you something",
        "what time is breakfast", "",
    ],
)  # fmt: skip
def test_words_that_many_names_share_name_nobody(index: EntityIndex, text: str):
    assert index.mentions(text) == []


def test_a_mention_says_where_it_stands(index: EntityIndex):
    text = "Is the Gonville Hotel far?"
    (mention,) = index.mentions(text)
    assert text[mention.start : mention.end] == "Gonville Hotel"


def test_two_branches_of_one_name_are_both_meant(index: EntityIndex):
    named = {m.entity for m in index.mentions("does pizza hut deliver")}
    assert named == {"PIZZA HUT CENTRE", "PIZZA HUT FEN DITTON"}


def test_most_misheard_names_are_found(index: EntityIndex):
    rng = random.Random(11)
    said = [(name, misheard(f"do they have parking at {name}", rng)) for name in NAMES * 5]
    found = [bool(m := index.mentions(text)) and m[0].entity == name for name, text in said]
    assert sum(found) > 0.75 * len(found)


def test_a_removed_entity_is_not_found_any_more():
    index = index_of("GONVILLE HOTEL", "AVALON")
    index.remove("0")
    assert index.mentions("the gonville hotel") == []
    assert [m.entity for m in index.mentions("avalon")] == ["AVALON"]


def test_an_entity_stays_as_long_as_one_of_its_entries_does():
    index = index_of("AVALON", "AVALON")
    index.remove("0")
    assert [m.entity for m in index.mentions("avalon")] == ["AVALON"]


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("故宫博物院几点开门", "故宫博物院"),
        ("故宫要门票吗", "故宫博物院"),
        ("北京希尔顿酒店有停车场吗", "北京希尔顿酒店"),
        ("希尔顿能带宠物吗", "北京希尔顿酒店"),
        ("我住在如家快捷", "如家快捷酒店"),
    ],
)
def test_a_chinese_name_is_found_in_part(text: str, entity: str):
    names = ("故宫博物院", "北京希尔顿酒店", "北京长城饭店", "如家快捷酒店", "北京国际酒店")
    index = index_of(*names, "全聚德酒店", locale="zh")
    assert [m.entity for m in index.mentions(text)][:1] == [entity]


def test_a_branch_in_brackets_is_told_from_the_others():
    index = index_of("庆丰包子铺(月坛店)", "庆丰包子铺(前门店)", "全聚德(王府井店)", locale="zh")
    assert [m.entity for m in index.mentions("庆丰包子铺(月坛店)的地址")] == ["庆丰包子铺(月坛店)"]
    assert len(index.mentions("庆丰包子铺的地址")) == 2


def test_a_korean_and_a_japanese_name_are_found():
    index = index_of("롯데호텔", "東京タワー", locale="ko")
    assert [m.entity for m in index.mentions("롯데호텔에 주차장이 있나요")] == ["롯데호텔"]
    assert [m.entity for m in index.mentions("東京タワーは何時までですか")] == ["東京タワー"]


def test_what_was_named_last_is_talked_about_most(index: EntityIndex):
    about = talked_about(
        [
            ("customer", "Tell me about the Gonville Hotel."),
            ("bot", "It is in the centre."),
            ("customer", "And Avalon?"),
            ("bot", "In the north."),
            ("customer", "do they have wifi"),
        ],
        index,
    )
    assert [a.entity for a in about] == ["AVALON", "GONVILLE HOTEL"]
    assert about[0].weight > about[1].weight


def test_what_was_named_long_ago_is_talked_about_where_nothing_came_after(index: EntityIndex):
    small_talk = [("customer", "thanks"), ("bot", "You are welcome.")] * 2
    said = [("bot", "How about Avalon?"), *small_talk, ("customer", "is there a pool")]
    (about,) = talked_about(said, index)
    assert about.entity == "AVALON"
    assert about.weight > 0.5


def test_the_customers_word_counts_more_than_the_bots(index: EntityIndex):
    by_bot = talked_about([("bot", "Avalon?"), ("customer", "No, Rajmahal")], index)
    assert by_bot[0].entity == "RAJMAHAL"
    both = talked_about([("bot", "Avalon or Rajmahal?"), ("customer", "rajmahal")], index)
    assert both[0].entity == "RAJMAHAL"


def test_the_gist_of_a_question_has_neither_names_nor_fillers(index: EntityIndex):
    assert gist("uh does the the gonville hotel have i mean wifi", index) == "does the have wifi"
    assert gist("avalon", index) == "avalon"


def test_density_is_the_share_of_entries_about_an_entity():
    index = index_of("AVALON")
    index.put(FaqEntry("general", "How do I pay?", "By card."))
    assert index.density == 0.5


HOTELS = ("Gonville Hotel", "Acorn Guest House", "Avalon")
ASKED = (
    ("Is there parking at {}?", "Yes, {} has a car park."),
    ("Can I bring my dog?", "No, {} allows no pets."),
    ("Do you have WiFi?", "Yes, the WiFi is free at {}."),
    ("When is check out at {}?", "At 11."),
    ("Is there a pool?", "No."),
)


def portal(*, ids: str) -> list[FaqEntry]:
    return [
        FaqEntry(ids.format(h, n), question.format(name), answer.format(name))
        for h, name in enumerate(HOTELS)
        for n, (question, answer) in enumerate(ASKED)
    ]


def test_entities_that_no_field_names_are_taken_from_the_texts_and_ids():
    found = mined(portal(ids="hotel/{}/{}"))
    assert found == {
        f"hotel/{h}/{n}": name for h, name in enumerate(HOTELS) for n in range(len(ASKED))
    }


def test_without_telling_ids_only_entries_that_name_their_entity_have_one():
    found = mined(portal(ids="{}x{}"))
    assert found["0x1"] == "Gonville Hotel"
    assert "0x4" not in found
    assert set(found.values()) == set(HOTELS)


def test_what_is_always_asked_in_the_same_words_is_no_entity():
    entries = [FaqEntry(f"{n}", "Do you accept Visa here?", f"Visa at desk {n}.") for n in range(9)]
    assert mined(entries) == {}
