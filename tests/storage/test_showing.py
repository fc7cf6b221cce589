"""A reply that is shown while it is written: nothing shown is taken back, and a person wins."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from core import conversations, sweeping, turns
from core.db import turns as rows
from core.db.connect import Database
from core.errors import LostClaim, TransientError
from core.ports import Show
from core.types import Author, Decision, Holder, Question, Reply
from tests.storage.spine import Spine, said
from tests.storage.test_turns import expire_leases, sweeper


@pytest.fixture
async def chat(database: Database) -> Spine:
    """The use cases with the web chat, which shows a reply while it is written."""
    return await Spine.build(database, "web")


async def bots(spine: Spine, conversation: object) -> list[str]:
    return [m.text for m in await spine.said(conversation) if m.author is Author.BOT]  # type: ignore[arg-type]


async def shown(spine: Spine) -> object:
    return await spine.value(
        "select coalesce(string_agg(text, '|' order by position), '') from sentence"
    )


async def test_sentences_are_there_before_their_reply_and_become_its_beginning(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def writes(_: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        assert await shown(chat) == "It takes 3 days."
        assert (await chat.conversation(conversation)).working
        await show("Islands take 5.")
        return said("It takes 3 days. Islands take 5. Weekends do not count.")

    chat.scripted.shows = writes
    await chat.answer(conversation)

    assert await bots(chat, conversation) == [
        "It takes 3 days. Islands take 5. Weekends do not count."
    ]
    assert await shown(chat) == "", "the message has taken their place"
    assert not (await chat.conversation(conversation)).working


async def test_a_channel_that_posts_whole_messages_is_given_nothing_to_show(spine: Spine):
    conversation = await spine.hear("How long does delivery take?")

    async def writes(_: Question, show: Show) -> Reply:
        raise AssertionError("Slack shows that the bot is at work instead")

    spine.scripted.shows = writes
    await spine.answer(conversation)

    assert await bots(spine, conversation) == ["You asked: How long does delivery take?"]


async def test_a_take_over_between_two_sentences_ends_the_reply_with_what_was_seen(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")
    lost: list[LostClaim] = []

    async def writes(_: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        await conversations.take(chat.desk, str(conversation), "ann")
        try:
            await show("Islands take 5.")
        except LostClaim as error:
            lost.append(error)
            raise
        return said("It takes 3 days. Islands take 5.")

    chat.scripted.shows = writes
    await chat.answer(conversation)

    assert len(lost) == 1
    assert await bots(chat, conversation) == ["It takes 3 days."]
    assert await shown(chat) == ""
    assert (await chat.conversation(conversation)).holder is Holder.AGENT
    assert await chat.value("select state from turn") == "silent"


async def test_a_worker_that_lost_its_lease_shows_nothing(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def slow(_: Question, show: Show) -> Reply:
        chat.scripted.shows = None
        await expire_leases(chat)
        async with chat.database.transaction() as conn:
            await rows.claim(conn, conversation, owner="worker-2", lease_seconds=30.0, attempts=3)
        await show("It takes 3 days.")
        raise AssertionError("another worker has the conversation")

    chat.scripted.shows = slow
    await chat.answer(conversation, "worker-1")

    assert await shown(chat) == ""
    assert await chat.value("select state from turn") == "open"


async def test_a_sentence_and_a_take_over_at_once_leave_the_same_words_on_both_sides(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def writes(_: Question, show: Show) -> Reply:
        await asyncio.gather(
            show("It takes 3 days."), conversations.take(chat.desk, str(conversation), "ann")
        )
        return said("It takes 3 days. Islands take 5.")

    chat.scripted.shows = writes
    await chat.answer(conversation)

    # Whoever got the conversation's lock first: either it was seen and stays, or neither.
    assert await bots(chat, conversation) in ([], ["It takes 3 days."])
    assert await shown(chat) == ""


async def test_a_message_after_the_first_sentence_opens_the_next_turn(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def writes(_: Question, show: Show) -> Reply:
        chat.scripted.shows = None
        await show("It takes 3 days.")
        await chat.hear("And to Malta?")
        chat.rings.turns.clear()  # whoever came to that ring found the conversation taken
        return said("It takes 3 days. Weekends do not count.")

    chat.scripted.shows = writes
    await chat.answer(conversation)
    assert chat.rings.turns == [conversation], "the next turn is rung for"
    await chat.answer(conversation)

    assert await bots(chat, conversation) == [
        "It takes 3 days. Weekends do not count.",
        "You asked: And to Malta?",
    ]
    assert [q.messages for q in chat.scripted.asked] == [
        ("How long does delivery take?",),
        ("And to Malta?",),
    ]
    assert await chat.value("select count(*) from turn where state = 'answered'") == 2


async def test_nobody_answers_the_next_turn_while_a_reply_is_shown(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def writes(_: Question, show: Show) -> Reply:
        chat.scripted.shows = None
        await show("It takes 3 days.")
        await chat.hear("And to Malta?")
        await chat.answer(conversation, "worker-2")
        return said("It takes 3 days.")

    chat.scripted.shows = writes
    await chat.answer(conversation, "worker-1")

    assert await bots(chat, conversation) == ["It takes 3 days."]


async def test_a_message_before_the_first_sentence_begins_the_turn_anew(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def writes(_: Question, show: Show) -> Reply:
        chat.scripted.shows = None
        await chat.hear("To Malta.")
        await show("It takes 3 days.")
        raise AssertionError("nobody wants this reply any more")

    chat.scripted.shows = writes
    await chat.answer(conversation)
    assert await shown(chat) == ""
    await chat.answer(conversation)

    assert await bots(chat, conversation) == ["You asked: How long does delivery take? / To Malta."]
    assert await chat.value("select attempts from turn") == 1


async def test_after_a_killed_worker_the_reply_begins_with_what_was_shown(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    class Killed(BaseException): ...

    async def dies(_: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        raise Killed

    chat.scripted.shows = dies
    with pytest.raises(Killed):
        await chat.answer(conversation, "worker-1")
    await chat.hear("And to Malta?")
    await expire_leases(chat)
    chat.scripted.shows = None
    await sweeping.sweep(sweeper(chat))
    await chat.answer(conversation, "worker-2")

    again = chat.scripted.asked[-1]
    assert (again.messages, again.shown) == (
        ("How long does delivery take?",),
        ("It takes 3 days.",),
    )
    assert [u.text for u in again.history] == [], "what was said later is the next turn's"
    assert await bots(chat, conversation) == [
        "It takes 3 days.\n\nYou asked: How long does delivery take?"
    ]
    await chat.answer(conversation, "worker-2")
    assert (await bots(chat, conversation))[-1] == "You asked: And to Malta?"


async def test_an_approved_text_below_a_shown_sentence_leaves_that_as_it_was_seen(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def falls_back(_: Question, show: Show) -> Reply:
        await show("Take the *fast* way_out.")
        return replace(said("Use **express**."), is_markdown=True)

    chat.scripted.shows = falls_back
    await chat.answer(conversation)

    assert await bots(chat, conversation) == ["Take the \\*fast\\* way\\_out.\n\nUse **express**."]


async def test_a_turn_that_is_given_up_ends_below_what_was_shown(chat: Spine):
    conversation = await chat.hear("How long does delivery take?")

    async def fails(_: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        raise TransientError("the model is away")

    chat.scripted.shows = fails
    await turns.answer(chat.answering(attempts=1), conversation)
    await sweeping.sweep(sweeper(chat, attempts=1))

    (text,) = await bots(chat, conversation)
    assert text.startswith("It takes 3 days.\n\n")
    assert await shown(chat) == ""
    assert (await chat.said(conversation))[-1].decision is Decision.HAND_OFF
    assert await chat.value("select state from turn") == "failed"
