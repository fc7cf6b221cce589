"""Deciding, as a table: what was seen, and what is said."""

from __future__ import annotations

import pytest

from core.deciding import Policy, Seen, decide, decide_chosen
from core.types import Decision, FaqEntry, Holder, Intent, MessageKind, Passage

POLICY = Policy(answer_from=0.6)


def passage(confidence: float, name: str = "returns") -> Passage:
    return Passage(FaqEntry(name, f"About {name}?", "Yes."), confidence, confidence)


def intents(name: str, probability: float = 0.9) -> list[Intent]:
    return [Intent(name, probability), Intent("other", 1 - probability)]


SURE = [passage(0.9), passage(0.05, "shipping")]
TORN = [passage(0.4), passage(0.35, "shipping")]
LOST = [passage(0.05)]


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(intents("returns"), SURE), Decision.ANSWER),
        (Seen(intents("greeting"), SURE), Decision.ANSWER),
        (Seen(intents("greeting"), SURE, is_polite_only=True), Decision.SMALL_TALK),
        (Seen(intents("greeting"), LOST), Decision.SMALL_TALK),
        (Seen(intents("thanks"), TORN, is_polite_only=True), Decision.SMALL_TALK),
        (Seen(intents("human_request"), SURE), Decision.HAND_OFF),
        (Seen(intents("human_request", 0.3), SURE), Decision.ANSWER),
        (Seen([Intent("returns", 0.9), Intent("human_request", 0.8)], SURE), Decision.HAND_OFF),
        (Seen(intents("complaint"), SURE), Decision.ANSWER),
        (Seen(intents("complaint"), LOST), Decision.HAND_OFF),
        (Seen(intents("out_of_scope"), LOST), Decision.REFUSE),
        (Seen(intents("out_of_scope"), SURE), Decision.ANSWER),
        (Seen(intents("returns"), LOST), Decision.HAND_OFF),
        (Seen(intents("returns"), []), Decision.HAND_OFF),
        (Seen([], []), Decision.HAND_OFF),
        (Seen(intents("returns"), TORN), Decision.CLARIFY),
        (Seen(intents("returns"), TORN, asked_back=True), Decision.HAND_OFF),
        (Seen(intents("returns"), TORN, holder=Holder.WAITING), Decision.HAND_OFF),
        (Seen(intents("returns"), SURE, holder=Holder.WAITING), Decision.ANSWER),
        (Seen(intents("returns"), SURE, asks=0.9), Decision.ANSWER),
        (Seen(intents("returns"), SURE, asks=0.3), Decision.HAND_OFF),
        (Seen(intents("returns"), SURE, asks=0.05), Decision.SMALL_TALK),
        (Seen(intents("returns"), TORN, asks=0.3), Decision.HAND_OFF),
        (Seen(intents("thanks"), LOST, asks=0.1), Decision.SMALL_TALK),
        (Seen(intents("thanks"), LOST, asks=0.8), Decision.HAND_OFF),
        (Seen(intents("out_of_scope"), LOST, asks=0.05), Decision.REFUSE),
        (Seen(intents("out_of_scope"), LOST, asks=0.05, tells=True), Decision.SMALL_TALK),
        (Seen(intents("returns"), LOST, asks=0.9, tells=True), Decision.HAND_OFF),
        (Seen((), (), MessageKind.PERSON), Decision.HAND_OFF),
        (Seen((), (), MessageKind.START), Decision.SMALL_TALK),
        (Seen((), (), MessageKind.UNREADABLE), Decision.SMALL_TALK),
    ],
)
def test_what_was_seen_decides_what_is_said(seen: Seen, expected: Decision):
    assert decide(seen, POLICY).decision is expected


def test_a_customers_own_choice_needs_no_threshold():
    choice = decide_chosen([FaqEntry("returns", "Returns?", "Yes.")])
    assert (choice.decision, choice.passages[0].entry.id) == (Decision.ANSWER, "returns")
    assert decide_chosen([]).decision is Decision.HAND_OFF


def test_an_answer_rests_on_the_best_entry():
    assert [p.entry.id for p in decide(Seen(intents("returns"), SURE), POLICY).passages] == [
        "returns"
    ]


def test_a_clarifying_question_names_the_entries_that_compete():
    choice = decide(Seen(intents("returns"), TORN), POLICY)
    assert [p.entry.id for p in choice.passages] == ["returns", "shipping"]


def test_stricter_staff_get_fewer_answers():
    torn = [passage(0.7), passage(0.05, "shipping")]
    assert decide(Seen(intents("returns"), torn), Policy(0.6)).decision is Decision.ANSWER
    assert decide(Seen(intents("returns"), torn), Policy(0.9)).decision is Decision.HAND_OFF
