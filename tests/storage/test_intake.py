"""What comes in is stored once, in order, and opens one turn."""

from __future__ import annotations

import asyncio

from core.intake import Intake, Timing
from core.types import (
    Holder,
    IncomingFeedback,
    MessageKind,
    Outcome,
    Sender,
    Verdict,
)
from tests.storage.spine import Spine, incoming


async def test_an_event_delivered_three_times_is_stored_once(spine: Spine):
    event = incoming("Where is my parcel?")

    receipts = [await spine.intake.receive(event) for _ in range(3)]

    assert [r.outcome for r in receipts] == [
        Outcome.STORED,
        Outcome.DUPLICATE,
        Outcome.DUPLICATE,
    ]
    assert len({r.message_id for r in receipts}) == 1
    assert await spine.value("select count(*) from turn") == 1


async def test_an_event_delivered_ten_times_at_once_is_stored_once(spine: Spine):
    event = incoming("Where is my parcel?")

    receipts = await asyncio.gather(*(spine.intake.receive(event) for _ in range(10)))

    assert sorted(r.outcome for r in receipts) == ["duplicate"] * 9 + ["stored"]
    assert len({r.message_id for r in receipts}) == 1
    assert await spine.value("select count(*) from message") == 1


async def test_two_events_about_one_message_are_one(spine: Spine):
    first = await spine.intake.receive(incoming("hi", event_id="Ev1", message_id="170.1"))
    twin = await spine.intake.receive(incoming("hi", event_id="Ev2", message_id="170.1"))

    assert (first.outcome, twin.outcome) == (Outcome.STORED, Outcome.DUPLICATE)
    assert twin.message_id == first.message_id


async def test_the_same_message_id_in_another_chat_is_another_message(spine: Spine):
    await spine.hear("hi", chat="C1", message_id="170.1")
    receipt = await spine.intake.receive(incoming("hi", chat="C2", message_id="170.1"))

    assert receipt.outcome is Outcome.STORED


async def test_quick_messages_open_one_turn(spine: Spine):
    conversation = await spine.hear("hi")
    await spine.hear("where is my parcel?")

    assert await spine.value("select count(*) from turn") == 1
    assert await spine.value("select input_version from turn") == 2
    assert [m.text for m in await spine.said(conversation)] == ["hi", "where is my parcel?"]


async def test_messages_sent_at_once_get_places_without_gaps(spine: Spine):
    await asyncio.gather(*(spine.hear(f"message {n}") for n in range(20)))

    conversation = await spine.hear("last")
    positions = [m.position for m in await spine.said(conversation)]
    assert positions == sorted(positions)
    assert len(set(positions)) == 21
    assert await spine.value("select count(*) from turn") == 1


async def test_threads_of_a_chat_are_conversations_of_their_own(spine: Spine):
    one = await spine.hear("one", thread="1.0")
    two = await spine.hear("two", thread="2.0")

    assert one != two


async def test_talk_that_is_not_addressed_counts_only_in_a_thread_of_ours(spine: Spine):
    talk = await spine.intake.receive(incoming("lunch?", thread="1.0", addressed=False))
    await spine.hear("@bot hello", thread="1.0")
    follow_up = await spine.intake.receive(incoming("and now?", thread="1.0", addressed=False))

    assert (talk.outcome, follow_up.outcome) == (Outcome.IGNORED, Outcome.STORED)


async def test_a_platforms_odd_text_is_stored_as_far_as_it_can_be(spine: Spine):
    conversation = await spine.hear("a\x00b\ud800c" + "x" * 9000)

    (message,) = await spine.said(conversation)
    assert message.text.startswith("a\ufffdb\ufffdc")
    assert len(message.text) == 8000


async def test_a_bare_mention_is_a_greeting(spine: Spine):
    conversation = await spine.hear("  ")

    (message,) = await spine.said(conversation)
    assert message.kind is MessageKind.START


async def test_while_an_agent_holds_the_conversation_no_turn_opens(spine: Spine):
    from core import conversations

    conversation = await spine.hear("hello?")
    await conversations.take(spine.desk, str(conversation), "ann")
    receipt = await spine.intake.receive(incoming("are you there?"))

    assert receipt.outcome is Outcome.STORED
    assert receipt.turn_id is None
    assert await spine.value("select count(*) from turn where state = 'open'") == 0


async def test_a_message_to_a_resolved_conversation_opens_it_again(spine: Spine):
    from core import conversations

    conversation = await spine.hear("hello?")
    resolved = await conversations.resolve(spine.desk, str(conversation), "ann")
    receipt = await spine.intake.receive(incoming("one more thing"))

    now = await spine.conversation(conversation)
    assert receipt.turn_id is not None
    assert (now.holder, now.epoch) == (Holder.BOT, resolved.epoch + 1)


async def test_a_duplicate_does_not_open_a_resolved_conversation(spine: Spine):
    from core import conversations

    event = incoming("hello?")
    receipt = await spine.intake.receive(event)
    assert receipt.conversation_id is not None
    await conversations.resolve(spine.desk, str(receipt.conversation_id), "ann")
    await spine.intake.receive(event)

    assert (await spine.conversation(receipt.conversation_id)).holder is Holder.RESOLVED


async def test_after_a_day_of_silence_a_conversation_starts_clean(spine: Spine):
    conversation = await spine.hear("do you have tents?")
    await spine.answer(conversation)
    async with spine.database.transaction() as conn:
        await conn.execute("update conversation set last_message_at = now() - interval '25 hours'")
    await spine.hear("and in blue?")
    await spine.answer(conversation)

    assert [len(q.history) for q in spine.scripted.asked] == [0, 0]


async def test_an_unfinished_text_waits_for_more_and_a_whole_question_does_not(spine: Spine):
    spine.intake = Intake(spine.database, spine.rings, spine.inbox, Timing(debounce=5.0))
    unfinished = await spine.hear("so i wanted to ask", chat="C1")
    whole = await spine.hear("Where is my parcel?", chat="C2")
    await spine.answer(unfinished)
    await spine.answer(whole)

    assert [q.messages for q in spine.scripted.asked] == [("Where is my parcel?",)]


async def test_the_last_verdict_of_a_person_stands(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    await spine.answer(conversation)
    reply = (await spine.said(conversation))[-1]

    outcomes = [
        (
            await spine.intake.give_feedback(
                IncomingFeedback(event, "C1", Sender("U1"), verdict, message_id=reply.id)
            )
        ).outcome
        for event, verdict in [("f1", Verdict.UP), ("f1", Verdict.UP), ("f2", Verdict.DOWN)]
    ]

    assert outcomes == [Outcome.STORED, Outcome.DUPLICATE, Outcome.STORED]
    assert await spine.value("select string_agg(verdict, ',') from feedback") == "down"


async def test_a_verdict_on_another_chats_message_is_ignored(spine: Spine):
    conversation = await spine.hear("Where is my parcel?")
    await spine.answer(conversation)
    reply = (await spine.said(conversation))[-1]

    receipt = await spine.intake.give_feedback(
        IncomingFeedback("f1", "C2", Sender("U2"), Verdict.UP, message_id=reply.id)
    )

    assert receipt.outcome is Outcome.IGNORED


async def test_of_talk_that_is_not_for_us_nothing_is_stored_not_even_who_talks(spine: Spine):
    await spine.intake.receive(incoming("lunch?", thread="1.0", addressed=False))

    assert await spine.value("select count(*) from contact") == 0
