"""What is being talked about, and answering a question back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from answering.clarifying import leaning, meant, options_of
from answering.pipeline import Pipeline
from answering.understanding import about, recalled, state_before
from core.dialogue import (
    Clarification,
    Mention,
    Option,
    State,
    advance,
    from_json,
    slots_of,
)
from core.telemetry import mask
from core.types import (
    Author,
    Decision,
    FaqEntry,
    KnowledgeBase,
    KnowledgeBaseId,
    Passage,
    Question,
    Reply,
    Utterance,
)
from retrieval.index import Change, KnowledgeIndex, texts_of
from tests.answering.conftest import ShippedVectors

HERON = FaqEntry("heron", "Is the Heron waterproof?", "No.", entity="Heron")
OTTER = FaqEntry("otter", "Is the Otter waterproof?", "Yes.", entity="Otter")
BASE = KnowledgeBase(KnowledgeBaseId(1), "default")


def index_of(*entries: FaqEntry) -> KnowledgeIndex:
    index = KnowledgeIndex(4)
    index.apply([Change(e, np.full((len(texts_of(e)), 4), 0.5, np.float32)) for e in entries])
    return index


INDEX = index_of(HERON, OTTER)


def said(*texts: str) -> tuple[Utterance, ...]:
    """Return a conversation in which customer and bot take turns."""
    return tuple(
        Utterance(Author.BOT if i % 2 else Author.CUSTOMER, text) for i, text in enumerate(texts)
    )


def test_a_turn_is_remembered():
    state = advance(
        State(),
        "is the heron waterproof",
        asked="is the heron waterproof",
        decision=Decision.ANSWER,
        entries=[HERON],
        named=[("Heron", 0.9)],
    )
    assert state.question == "is the heron waterproof"
    assert state.entry == "heron"
    assert state.entities == (Mention("Heron", 0.9, 0),)
    assert state.recent == ("is the heron waterproof -> Is the Heron waterproof?",)


def test_small_talk_leaves_the_question_and_the_entry_as_they_are():
    before = State(question="is it waterproof", entry="heron", entities=(Mention("Heron", 0.9),))
    after = advance(before, "thanks!", decision=Decision.SMALL_TALK)
    assert (after.question, after.entry, after.turns) == ("is it waterproof", "heron", 1)
    assert 0.7 < after.entities[0].weight < 0.9


def test_what_is_named_now_displaces_what_was_named_before():
    before = State(entities=(Mention("Heron", 0.9),))
    after = advance(before, "and the otter?", named=[("Otter", 1.0)])
    assert [m.entity for m in after.entities] == ["Otter", "Heron"]
    assert after.entities[1].weight < 0.5


def test_what_is_named_again_counts_more():
    before = State(entities=(Mention("Heron", 0.5),))
    assert advance(before, "the heron", named=[("Heron", 0.5)]).entities[0].weight > 0.5


def test_an_entity_outside_of_the_loaded_messages_still_counts():
    state = advance(State(), "tell me about the heron", named=[("Heron", 1.0)])
    for _ in range(10):
        state = advance(state, "hm, let me think", decision=Decision.SMALL_TALK)
    loaded = said("hm, let me think", "Take your time.")
    told = about(from_json(json.loads(json.dumps(state.to_json()))), loaded, INDEX)
    assert [a.entity for a in told] == ["Heron"]


def test_an_entity_that_is_no_longer_in_the_base_is_not_talked_about():
    state = State(entities=(Mention("Gone", 0.9), Mention("Heron", 0.5)))
    assert [a.entity for a in about(state, (), INDEX)] == ["Heron"]


def test_the_state_survives_the_database():
    state = State(
        entities=(Mention("Heron", 0.9, 1),),
        entry="heron",
        question="is it waterproof",
        clarification=Clarification("colours?", (Option("heron", "Heron"), Option("o", "Otter"))),
        slots={"name": "Ann"},
        summary=("old -> answer",),
        recent=("new",),
        turns=4,
    )
    assert from_json(json.loads(json.dumps(state.to_json()))) == state
    assert State().to_json() == {}


@pytest.mark.parametrize(
    "stored",
    [
        {"entities": "x", "entry": 3, "clarification": {"options": [1]}, "turns": "many"},
        {"entities": [{"entity": "Heron"}, None, {"entity": "", "weight": 0.5}]},
        {"clarification": {"question": "a", "options": [{"entry_id": "a", "label": "A"}]}},
        {"slots": {"name": 3, "card": "4111"}, "of a later version": [1, 2]},
        {"entities": [{"entity": "Heron", "weight": 7.0}], "summary": 3},
    ],
)
def test_what_another_version_wrote_is_passed_over(stored: dict[str, Any]):
    assert from_json(stored) == State()


def test_a_long_conversation_stays_small():
    state = State()
    for turn in range(200):
        state = advance(
            state,
            f"question {turn} " + "word " * 2_000,
            asked="word " * 2_000,
            decision=Decision.ANSWER,
            entries=[HERON],
            named=[(f"Thing {turn}", 0.9)],
        )
    assert len(json.dumps(state.to_json())) < 4_000
    assert state.turns == 200
    assert "question 197" in state.summary[-1]


@pytest.mark.parametrize(
    ("message", "slots"),
    [
        ("my name is Ann Lee, hi", {"name": "Ann Lee"}),
        ("Hello, this is Peter", {"name": "Peter"}),
        ("this is broken", {}),
        ("我叫王小明，你好", {"name": "王小明"}),
        ("ich heiße Jana", {"name": "Jana"}),
        ("write to ann@example.com please", {"email": "ann@example.com"}),
        ("where is order BF-123456?", {"order": "BF-123456"}),
        ("my order number is 4711042", {"order": "4711042"}),
        ("订单号：A20391，什么时候到", {"order": "A20391"}),
        ("I ordered 2 bottles in 2024", {}),
        ("how do I order a 500 ml bottle", {}),
    ],
)
def test_what_customers_tell_of_themselves_is_kept(message: str, slots: dict[str, str]):
    assert slots_of(message) == slots


def test_a_trace_shows_no_personal_data():
    state = advance(
        State(),
        "my name is Ann, order BF-123456, ann@example.com, is it sent?",
        asked="ann@example.com, is it sent?",
    )
    shown = json.dumps(state.to_json(mask))
    assert json.loads(shown)["slots"] == {
        "email": "[email]",
        "name": "[name]",
        "order": "[order]",
    }
    assert "ann@example.com" not in shown
    assert "ann@example.com" in json.dumps(state.to_json())


def test_a_conversation_without_a_stored_state_is_told_from_its_messages():
    history = said("is the heron waterproof", "No.", "ok thanks", "You are welcome!")
    state = recalled(history, INDEX.entities, [HERON])
    assert state.question == "is the heron waterproof"
    assert state.entry == "heron"
    assert state.entities[0].entity == "Heron"


def test_a_stored_state_beats_what_the_messages_tell():
    asked = Question(BASE, ("hi",), history=said("the heron?", "Yes."), dialogue={"entry": "otter"})
    assert state_before(asked, INDEX).entry == "otter"
    assert state_before(replace(asked, dialogue={}), INDEX).entities[0].entity == "Heron"


DE = FaqEntry("de", "How much is shipping to Germany?", "€5", entity="Germany", tags=("shipping",))
FR = FaqEntry("fr", "How much is shipping to France?", "€9", entity="France", tags=("shipping",))
WEB = FaqEntry("web", "How do I change my password?", "Settings.", tags=("account", "website"))
APP = FaqEntry("app", "How do I change my password?", "Profile.", tags=("account", "app"))
BLUE = FaqEntry("blue", "Which bottles are there in blue?", "Two.", entity="Otter")
COLD = FaqEntry("cold", "How long does a bottle stay cold?", "24 h.", entity="Heron")


@pytest.mark.parametrize(
    ("entries", "labels"),
    [
        ([DE, FR], ["Germany", "France"]),
        ([WEB, APP], ["website", "app"]),
        ([DE, WEB], ["How much is shipping to Germany?", "How do I change my password?"]),
        # An entity alone would leave open what about it is meant.
        ([BLUE, COLD], [BLUE.question, COLD.question]),
    ],
)
def test_the_options_are_what_tells_the_entries_apart(entries: list[FaqEntry], labels: list[str]):
    assert [option.label for option in options_of(entries)] == labels


def asked_back(*entries: FaqEntry) -> tuple[Clarification, dict[str, FaqEntry]]:
    return Clarification("shipping", options_of(entries)), {e.id: e for e in entries}


@pytest.mark.parametrize(
    "message",
    [
        "France", "france!", "2", "2.", "#2", "(2)", "option 2", "2nd", "the second one",
        "Second please", "the last one", "the latter", "I mean the second", "to France please",
        "frnace", "no, I meant France", "How much is shipping to France?", "第二个",
        "第2个", "二", "das zweite", "le deuxième", "la segunda", "2番目",
    ],
)  # fmt: skip
def test_an_option_is_chosen_by_label_number_or_words(message: str):
    clarification, entries = asked_back(DE, FR)
    found = meant(message, clarification, entries)
    assert found is not None
    assert found.entry_ids == ("fr",)


@pytest.mark.parametrize(
    ("message", "chosen"), [("the blue one", "blue"), ("the 24 h one", "cold"), ("both", "both")]
)
def test_free_words_choose_the_option_they_belong_to(message: str, chosen: str):
    clarification, entries = asked_back(BLUE, COLD)
    found = meant(message, clarification, entries)
    assert found is not None
    assert found.entry_ids == (("blue", "cold") if chosen == "both" else (chosen,))


@pytest.mark.parametrize(
    "message", ["neither", "none of these", "no", "Neither, thanks", "都不是", "keine davon"]
)
def test_none_of_the_options_can_be_meant(message: str):
    clarification, entries = asked_back(DE, FR)
    found = meant(message, clarification, entries)
    assert found is not None
    assert found.neither


@pytest.mark.parametrize(
    "message",
    [
        "thanks", "How long does a refund take?", "2 bottles arrived broken", "shipping",
        "I would like to talk to a person", "5", "the third one", "",
        "how much is shipping to Spain?", "?",
    ],
)  # fmt: skip
def test_something_else_is_no_choice(message: str):
    clarification, entries = asked_back(DE, FR)
    assert meant(message, clarification, entries) is None


def test_a_short_answer_leans_to_the_option_that_it_finds():
    clarification, _ = asked_back(DE, FR)
    found = [Passage(FR, 0.4, 0.4), Passage(DE, 0.02, 0.02)]
    assert leaning("the parisian one", clarification, found) == "fr"
    torn = [Passage(FR, 0.4, 0.4), Passage(DE, 0.3, 0.3)]
    assert leaning("the parisian one", clarification, torn) is None
    assert leaning("the parisian one", clarification, [Passage(WEB, 0.9, 0.9)]) is None
    long = "I changed my mind, please tell me about your opening hours in Paris and Lyon instead"
    assert leaning(long, clarification, found) is None


def test_a_label_that_a_channel_cut_is_known_again():
    clarification, entries = asked_back(BLUE, COLD)
    found = meant("How long does a bottle stay…", clarification, entries)
    assert found is not None
    assert found.entry_ids == ("cold",)


def test_an_entry_that_was_taken_away_meanwhile_cannot_be_chosen():
    clarification, entries = asked_back(DE, FR)
    assert meant("2", clarification, {"de": entries["de"]}) is None


SMALL = KnowledgeBase(KnowledgeBaseId(77), "small")
CARDS = FaqEntry("cards", "Which cards do you accept?", "Visa.", tags=("payment",))
DAYS = FaqEntry("days", "How long can I return things?", "30 days.", tags=("returns",))


@pytest.fixture(scope="module")
def small(pipeline: Pipeline, vectors: ShippedVectors) -> Pipeline:
    """Return the pipeline with a base of four entries, two of them alike."""
    asyncio.run(pipeline.refresh(SMALL, [DE, FR, CARDS, DAYS], intents=[], vectors=vectors))
    return pipeline


def talk(pipeline: Pipeline, *messages: str) -> list[Reply]:
    """Return the replies to a conversation whose state is stored between its turns."""
    replies: list[Reply] = []
    history: tuple[Utterance, ...] = ()
    for message in messages:
        dialogue = json.loads(json.dumps(dict(replies[-1].dialogue))) if replies else {}
        question = Question(SMALL, (message,), history=history, dialogue=dialogue)
        replies.append(asyncio.run(pipeline.answer(question)))
        history += (
            Utterance(Author.CUSTOMER, message),
            Utterance(Author.BOT, replies[-1].text),
        )
    return replies


def test_where_two_entries_compete_the_customer_is_asked_and_their_answer_is_taken(
    small: Pipeline,
):
    back, answer = talk(small, "how much is shipping?", "2")
    assert back.choice.decision is Decision.CLARIFY
    assert set(back.suggestions) == {"Germany", "France"}
    assert f"2. {back.suggestions[1]}" in back.text
    chosen = {"Germany": "de", "France": "fr"}[back.suggestions[1]]
    assert [c.entry_id for c in answer.citations] == [chosen]
    assert answer.choice.decision is Decision.ANSWER
    assert "encode" not in answer.trace.milliseconds  # nothing was searched for again


def test_a_pressed_button_and_free_words_choose_too(small: Pipeline):
    for said_next in ("France", "the one for france please", "the French one"):
        _, answer = talk(small, "how much is shipping?", said_next)
        assert [c.entry_id for c in answer.citations] == ["fr"], said_next


def test_the_customer_is_never_asked_back_twice_in_a_row(small: Pipeline):
    first, second, third = talk(small, *["how much is shipping?"] * 3)
    assert first.choice.decision is Decision.CLARIFY
    assert second.choice.decision is Decision.HAND_OFF
    assert third.choice.decision is Decision.CLARIFY


def test_who_wants_none_of_the_options_gets_a_person(small: Pipeline):
    _, reply = talk(small, "how much is shipping?", "neither of them")
    assert reply.choice.decision is Decision.HAND_OFF
    assert "clarification" not in reply.dialogue


def test_after_a_question_back_another_question_is_answered(small: Pipeline):
    _, reply = talk(small, "how much is shipping?", "which cards do you accept?")
    assert [c.entry_id for c in reply.citations] == ["cards"]


def test_what_was_chosen_is_what_a_follow_up_goes_on_from(small: Pipeline):
    *_, reply = talk(small, "how much is shipping?", "Germany", "thanks!", "and to France?")
    assert [c.entry_id for c in reply.citations] == ["fr"]


def test_who_only_says_their_name_gets_no_search_result(small: Pipeline):
    (reply,) = talk(small, "my name is Ann")
    assert reply.choice.decision is Decision.SMALL_TALK
    assert reply.dialogue["slots"] == {"name": "Ann"}
    assert reply.trace.dialogue["slots"] == {"name": "[name]"}


def test_a_message_is_encoded_once_for_all_that_is_told_of_it(small: Pipeline):
    (reply,) = talk(small, "which cards do you accept?")
    assert reply.insight.sentiment is not None
    assert reply.trace.signals["asks"] > 0.5
    assert reply.trace.signals["seeking"] > 0.5
    assert set(reply.trace.milliseconds) >= {"encode", "intents", "retrieve"}
