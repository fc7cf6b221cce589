"""Politeness, languages, follow-ups and several questions in one message."""

from __future__ import annotations

import pytest

from answering.languages import language_of
from answering.politeness import question_part
from answering.reading import Reading, best_reading, of_the_entity, parts_of
from core.types import FaqEntry, Passage
from retrieval.rewriting import Context, candidates, must_lean, new_words, points_back


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("hi!", ""),
        ("Hello there", ""),
        ("ok thanks a lot!", ""),
        ("您好，在吗", ""),
        ("谢谢！", ""),
        ("👋 hey", ""),
        ("hi! how long does shipping take? thanks", "how long does shipping take"),
        ("Good morning, can I return sale items?", "can I return sale items?"),
        ("I have a question: do you ship to France?", "do you ship to France?"),
        ("你好，请问可以货到付款吗？", "可以货到付款吗？"),
        ("history of my orders", "history of my orders"),
        ("thanksgiving opening hours", "thanksgiving opening hours"),
    ],
)
def test_politeness_around_a_question_is_taken_off(message: str, left: str):
    assert question_part(message) == left


@pytest.mark.parametrize(
    ("message", "language"),
    [
        ("how long shipping germany", "en"),
        ("refund?", "en"),
        ("怎么退货", "zh"),
        ("返品したいです", "ja"),
        ("반품하고 싶어요", "ko"),
        ("wie lange dauert der versand", "de"),
        ("¿cuánto tarda el envío?", "es"),
        ("où est mon colis", "fr"),
        ("danke", "de"),
        ("我的 Otter bottle 坏了", "zh"),
    ],
)
def test_the_language_of_a_short_message_is_told(message: str, language: str):
    assert language_of(message) == language


def test_what_was_said_before_decides_where_a_message_cannot():
    assert language_of("BF-123456", earlier=["wo ist mein paket"], fallback="en") == "de"
    assert language_of("BF-123456", fallback="fr-CA") == "fr"


SHIPPING = Context("How much is shipping to France?", "", "How much is shipping to France?")
HERON = Context("is the heron waterproof", "Heron", "Is the Heron backpack waterproof?")


@pytest.mark.parametrize(
    ("message", "context", "expected"),
    [
        ("what about Germany?", SHIPPING, "How much is shipping to Germany?"),
        ("and to Spain?", SHIPPING, "How much is shipping to Spain?"),
        ("how much is it", HERON, "how much is Heron"),
        ("and for the blue one?", HERON, "is the heron waterproof for the blue one"),
        ("那德国呢？", Context("寄到法国要多少钱？"), "寄到德国要多少钱？"),
    ],
)
def test_a_follow_up_is_also_read_with_its_context(message: str, context: Context, expected: str):
    readings = candidates(message, context)
    assert readings[0] == message
    assert expected in readings


def test_a_whole_question_is_read_as_it_stands():
    asked = "Which payment methods do you accept in your online shop?"
    assert candidates(asked, SHIPPING) == [asked]
    assert not must_lean(asked)


def test_the_first_message_has_nothing_to_lean_on():
    assert candidates("and for the blue one?", Context()) == ["and for the blue one?"]


def test_a_pronoun_points_back_only_where_something_is_known():
    assert points_back("do you make it in red?", HERON)
    assert not points_back("do you make it in red?", Context())
    assert not points_back("is the Heron red? I like it", HERON)


def reading(text: str, name: str, confidence: float, question: str = "") -> Reading:
    entry = FaqEntry(name, question or name, "")
    return Reading(text, [Passage(entry, confidence, confidence)], ())


def test_the_surer_reading_wins():
    alone, whole = reading("it?", "a", 0.2), reading("the Heron?", "b", 0.9)
    assert best_reading([alone, whole]).text == "the Heron?"
    assert best_reading([reading("it?", "a", 0.95), whole]).text == "it?"


def test_an_entry_that_lacks_the_new_words_is_trusted_less():
    stuck = reading("How is shipping to France? Germany", "fr", 0.99, "shipping to France")
    moved = reading("How is shipping to Germany?", "de", 0.6, "shipping to Germany")
    best = best_reading([reading("Germany?", "x", 0.1), stuck, moved], fresh=["germani"])
    assert best.passages[0].entry.id == "de"


def test_what_a_pronoun_points_to_is_not_another_thing():
    drift = Passage(FaqEntry("drift", "How big is it?", "Big.", entity="Drift"), 0.99, 0.99)
    heron = Passage(FaqEntry("heron", "Size of the Heron?", "30 l.", entity="Heron"), 0.5, 0.5)
    shop = Passage(FaqEntry("shop", "Where are you?", "Here."), 0.4, 0.4)
    found = of_the_entity(Reading("how big is it", [drift, heron, shop], ()), "Heron")
    assert [p.entry.id for p in found.passages] == ["heron", "shop", "drift"]
    assert found.passages[2].confidence < 0.4


def test_new_words_are_those_that_were_not_said():
    assert new_words("and for Germany?", SHIPPING) == ["germani"]


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("Can I cancel? And why?", []),
        (
            "Can I cancel my order? And how do I get an invoice?",
            ["Can I cancel my order?", "how do I get an invoice?"],
        ),
        ("How long does shipping take?", []),
        ("My pan arrived. It is broken. What now?", []),
        ("可以取消订单吗？发票在哪里下载？", ["可以取消订单吗？", "发票在哪里下载？"]),
    ],
)
def test_a_message_with_several_plain_questions_is_parted(message: str, parts: list[str]):
    assert parts_of(message) == parts
