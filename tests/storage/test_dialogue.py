"""What is being talked about is kept in the database: it outlives workers, not a hand-back."""

from __future__ import annotations

import json
from dataclasses import replace

from core import conversations
from core.dialogue import Clarification, Option, State, advance, from_json
from core.telemetry import mask
from core.types import Decision, Question, Reply, Trace
from tests.storage.spine import Scripted, Spine, said


async def follows(question: Question) -> Reply:
    """Answer, and go on from the state that the question brings."""
    text = " ".join(question.messages)
    state = advance(
        from_json(question.dialogue),
        text,
        asked=text,
        decision=Decision.CLARIFY,
        named=[("Heron", 0.9)] if "heron" in text else [],
        clarification=Clarification(text, (Option("a", "Germany"), Option("b", "France"))),
    )
    return replace(
        said("Which of these do you mean?", Decision.CLARIFY),
        dialogue=state.to_json(),
        trace=Trace(dialogue=state.to_json(mask)),
    )


async def test_a_new_worker_knows_what_is_being_talked_about(spine: Spine):
    spine.scripted.does = follows
    conversation = await spine.hear("tell me about the heron, ann@example.com")
    await spine.answer(conversation)
    after_restart = replace(spine, scripted=Scripted(follows))
    await after_restart.hear("the first one")
    await after_restart.answer(conversation)

    state = from_json(after_restart.scripted.asked[-1].dialogue)
    assert [m.entity for m in state.entities] == ["Heron"]
    assert state.slots == {"email": "ann@example.com"}
    assert state.clarification is not None
    assert [option.label for option in state.clarification.options] == ["Germany", "France"]


async def test_an_entity_outside_of_the_loaded_messages_is_still_known(spine: Spine):
    spine.scripted.does = follows
    conversation = await spine.hear("tell me about the heron")
    await spine.answer(conversation)
    for number in range(17):
        await spine.hear(f"and something else {number}")
        await spine.answer(conversation)

    asked = spine.scripted.asked[-1]
    assert not any("heron" in utterance.text for utterance in asked.history)
    assert [m.entity for m in from_json(asked.dialogue).entities] == ["Heron"]


async def test_a_trace_shows_the_state_without_personal_data(spine: Spine):
    spine.scripted.does = follows
    conversation = await spine.hear("where is the heron? ann@example.com")
    await spine.answer(conversation)

    trace = json.dumps(await spine.value("select trace from reply"))
    assert "Heron" in trace
    assert "[email]" in trace
    assert "ann@example.com" not in trace


async def test_after_a_hand_back_nothing_is_being_talked_about(spine: Spine):
    spine.scripted.does = follows
    conversation = await spine.hear("tell me about the heron")
    await spine.answer(conversation)
    await conversations.take(spine.desk, str(conversation), "ann")
    await conversations.release(spine.desk, str(conversation), "ann")
    await spine.hear("the first one")
    await spine.answer(conversation)

    assert from_json(spine.scripted.asked[-1].dialogue) == State()
