"""Each turn is answered once, by one worker at a time, and a person always wins."""

from __future__ import annotations

import asyncio

import pytest

from core import conversations, sweeping, turns
from core.db import turns as rows
from core.errors import Conflict, InvalidInput
from core.types import Author, Decision, Holder, Question, Reply
from tests.storage.spine import Spine, said


async def expire_leases(spine: Spine) -> None:
    async with spine.database.transaction() as conn:
        await conn.execute("update conversation set lease_until = now() - interval '1 second'")


def sweeper(spine: Spine, attempts: int = 3, *, broker_up: bool = True) -> sweeping.Sweeping:
    async def ring_turn(conversation_id: object) -> bool:
        if broker_up:
            spine.rings.turns.append(conversation_id)  # type: ignore[arg-type]
        return broker_up

    async def ring_delivery(channel: str, inbox_id: int) -> bool:
        spine.rings.deliveries.append(inbox_id)
        return True

    async def ring_query(request_id: object) -> bool:
        return True

    return sweeping.Sweeping(
        spine.database, spine.rings, ring_turn, ring_delivery, ring_query, attempts, 3600.0
    )


async def test_a_turn_is_answered_with_what_the_customer_said(spine: Spine):
    conversation = await spine.hear("hi")
    await spine.hear("where is my parcel?")
    await spine.answer(conversation)

    messages = await spine.said(conversation)
    assert [(m.author, m.text) for m in messages][-1] == (
        Author.BOT,
        "You asked: hi / where is my parcel?",
    )
    assert await spine.value("select state from turn") == "answered"
    assert await spine.value("select state from delivery") == "pending"
    assert spine.rings.deliveries == [spine.inbox.id]


async def test_a_doorbell_rung_twice_finds_nothing_to_do(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    await spine.answer(conversation)
    await spine.answer(conversation)

    assert len(spine.scripted.asked) == 1
    assert await spine.value("select count(*) from reply") == 1


async def test_two_workers_never_answer_one_conversation_at_once(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")

    await asyncio.gather(*(spine.answer(conversation, f"worker-{n}") for n in range(8)))

    assert len(spine.scripted.asked) == 1
    assert await spine.value("select count(*) from message where author = 'bot'") == 1


async def test_a_worker_that_lost_its_lease_cannot_commit(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")

    async def slow(question: Question) -> Reply:
        spine.scripted.does = None
        await expire_leases(spine)
        await spine.answer(conversation, "worker-2")
        return said("too late")

    spine.scripted.does = slow
    await spine.answer(conversation, "worker-1")

    replies = [m.text for m in await spine.said(conversation) if m.author is Author.BOT]
    assert replies == ["You asked: Where is my parcel?"]


async def test_a_reply_begun_before_a_take_over_is_never_seen(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")

    async def taken_meanwhile(question: Question) -> Reply:
        await conversations.take(spine.desk, str(conversation), "ann")
        return said("It is on its way.")

    spine.scripted.does = taken_meanwhile
    await spine.answer(conversation)

    assert [m.author for m in await spine.said(conversation)] == [Author.CUSTOMER]
    assert await spine.value("select count(*) from delivery") == 0
    assert (await spine.conversation(conversation)).holder is Holder.AGENT


async def test_a_question_that_changed_meanwhile_is_answered_anew(spine: Spine):
    conversation = await spine.hear("where is my parcel?")

    async def more_meanwhile(question: Question) -> Reply:
        spine.scripted.does = None
        await spine.hear("the blue one?")
        return said("Which one?")

    spine.scripted.does = more_meanwhile
    await spine.answer(conversation)
    await spine.answer(conversation)

    replies = [m.text for m in await spine.said(conversation) if m.author is Author.BOT]
    assert replies == ["You asked: where is my parcel? / the blue one?"]
    assert await spine.value("select attempts from turn") == 1, "saying more is no failed attempt"


async def test_a_failed_turn_is_tried_again_then_dead_lettered_and_the_customer_told(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")

    async def broken(question: Question) -> Reply:
        raise RuntimeError("no model")

    spine.scripted.does = broken
    for _ in range(3):
        await spine.answer(conversation)
        async with spine.database.transaction() as conn:
            await conn.execute("update turn set due_at = now()")
    await sweeping.sweep(sweeper(spine))

    (dead,) = await turns.failed(spine.database)
    assert dead.text == "Where is my parcel?"
    assert "RuntimeError: no model" in dead.error
    now = await spine.conversation(conversation)
    assert now.holder is Holder.WAITING
    assert (await spine.said(conversation))[-1].author is Author.BOT
    assert spine.rings.deliveries == [spine.inbox.id]


async def test_a_dead_letter_can_be_answered_after_all(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    async with spine.database.transaction() as conn:
        await conn.execute("update turn set deadline_at = now() - interval '1 second'")
    await sweeping.sweep(sweeper(spine))
    (dead,) = await turns.failed(spine.database)

    await turns.replay(spine.database, spine.rings, dead.id, 30.0)
    await spine.answer(conversation)

    assert (await spine.said(conversation))[-1].text == "You asked: Where is my parcel?"
    assert await turns.failed(spine.database) == []


async def test_replaying_what_is_no_dead_letter_is_refused(spine: Spine):
    await spine.hear("Where is my parcel?")
    turn_id = await spine.value("select id from turn")

    with pytest.raises(InvalidInput, match="no dead letter"):
        await turns.replay(spine.database, spine.rings, turn_id, 30.0)  # type: ignore[arg-type]


async def test_past_the_deadline_the_customer_is_told_once_in_their_language(spine: Spine):
    conversation = await spine.hear("我的包裹在哪里？")
    async with spine.database.transaction() as conn:
        await conn.execute("update turn set deadline_at = now() - interval '1 second'")
    await sweeping.sweep(sweeper(spine))
    await sweeping.sweep(sweeper(spine))

    told = [m.text for m in await spine.said(conversation) if m.author is Author.BOT]
    assert len(told) == 1
    assert any("\u4e00" <= character <= "\u9fff" for character in told[0])


async def test_the_sweeper_rings_for_a_turn_whose_worker_died(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    async with spine.database.transaction() as conn:
        await rows.claim(conn, conversation, owner="dead", lease_seconds=30.0, attempts=3)
        await conn.execute("update turn set due_at = now() - interval '1 second'")
    spine.rings.turns.clear()

    await sweeping.sweep(sweeper(spine))
    while_it_lives = list(spine.rings.turns)
    await expire_leases(spine)
    await sweeping.sweep(sweeper(spine))

    assert (while_it_lives, spine.rings.turns) == ([], [conversation])


async def test_the_sweeper_rings_again_after_the_broker_was_away(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    async with spine.database.transaction() as conn:
        await conn.execute("update turn set due_at = now() - interval '1 second'")
    spine.rings.turns.clear()

    await sweeping.sweep(sweeper(spine, broker_up=False))
    await sweeping.sweep(sweeper(spine))
    await sweeping.sweep(sweeper(spine))

    assert spine.rings.turns == [conversation], "rung once, and not each second anew"


async def test_a_hand_off_lets_the_conversation_wait_and_still_says_so(spine: Spine):
    async def hands_off(question: Question) -> Reply:
        return said("A person will come.", Decision.HAND_OFF)

    spine.scripted.does = hands_off
    conversation = await spine.hear("A person please!")
    await spine.answer(conversation)

    now = await spine.conversation(conversation)
    assert (now.holder, now.epoch, now.hand_off_reason) == (Holder.WAITING, 1, "a test said so")
    assert await spine.value("select epoch from delivery") == 1
    assert await spine.value("select count(*) from handoff") == 1


async def test_what_the_bot_said_before_its_hand_off_is_still_sent(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    await spine.answer(conversation)

    async def hands_off(question: Question) -> Reply:
        return said("A person will come.", Decision.HAND_OFF)

    spine.scripted.does = hands_off
    await spine.hear("A person please!")
    await spine.answer(conversation)
    from core import deliveries

    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.text for d, _ in spine.wire.sent] == [
        "You asked: Where is my parcel?",
        "A person will come.",
    ]


async def test_while_waiting_a_reply_without_words_closes_the_turn_in_silence(spine: Spine):
    async def hands_off(question: Question) -> Reply:
        return said("A person will come.", Decision.HAND_OFF)

    async def silent(question: Question) -> Reply:
        return said("", Decision.HAND_OFF)

    conversation = await spine.hear("A person please!")
    spine.scripted.does = hands_off
    await spine.answer(conversation)
    spine.scripted.does = silent
    await spine.hear("hurry?!")
    await spine.answer(conversation)

    assert spine.scripted.asked[-1].holder is Holder.WAITING
    assert len([m for m in await spine.said(conversation) if m.author is Author.BOT]) == 1
    assert await spine.value("select count(*) from turn where state = 'silent'") == 1
    assert await spine.value("select count(*) from handoff") == 1


async def test_an_agent_cannot_take_what_another_holds(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    await conversations.take(spine.desk, str(conversation), "ann")
    await conversations.take(spine.desk, str(conversation), "ann")

    with pytest.raises(Conflict, match="held by ann"):
        await conversations.take(spine.desk, str(conversation), "bob")
    with pytest.raises(Conflict, match="held by ann"):
        await conversations.say(spine.desk, str(conversation), "bob", "hello")


async def test_an_agent_says_a_thing_once_under_one_id(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    await conversations.take(spine.desk, str(conversation), "ann")
    for _ in range(2):
        await conversations.say(spine.desk, str(conversation), "ann", "On its way", "id-1")

    agents = [m for m in await spine.said(conversation) if m.author is Author.AGENT]
    assert [(m.text, m.agent) for m in agents] == [("On its way", "ann")]


async def test_after_a_release_the_bot_starts_clean(spine: Spine):
    conversation = await spine.hear("do you have tents?")
    await spine.answer(conversation)
    await conversations.take(spine.desk, str(conversation), "ann")
    await conversations.say(spine.desk, str(conversation), "ann", "We do.")
    await conversations.release(spine.desk, str(conversation), "ann")
    await spine.hear("and lamps?")
    await spine.answer(conversation)

    assert spine.scripted.asked[-1].history == ()
    assert spine.scripted.asked[-1].messages == ("and lamps?",)


async def test_history_and_cited_entries_reach_the_answerer(spine: Spine):
    from dataclasses import replace

    from core.types import Citation

    async def cites(question: Question) -> Reply:
        return replace(said("In two days."), citations=(Citation("shipping", "How long?"),))

    spine.scripted.does = cites
    conversation = await spine.hear("How long does it take?")
    await spine.answer(conversation)
    await spine.hear("and to Germany?")
    await spine.answer(conversation)

    asked = spine.scripted.asked[-1]
    assert [u.text for u in asked.history] == ["How long does it take?", "In two days."]
    assert asked.cited == ("shipping",)
