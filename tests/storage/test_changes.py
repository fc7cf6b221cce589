"""What customers change or take back counts as it stands when the reply is committed."""

from __future__ import annotations

import asyncio

from core import deliveries, faq
from core.types import (
    Author,
    IncomingDeletion,
    IncomingEdit,
    IncomingMove,
    MessageKind,
    Outcome,
    Question,
    Reply,
)
from tests.storage.spine import Spine, incoming, said


async def test_an_edit_within_an_open_turn_replaces_the_words(spine: Spine):
    conversation = await spine.hear("Where is my pracel?", message_id="m1")

    receipt = await spine.intake.change(IncomingEdit("C1", "m1", "Where is my parcel?"))
    await spine.answer(conversation)

    assert receipt.outcome is Outcome.STORED
    assert [m.text for m in await spine.said(conversation)] == [
        "Where is my parcel?", "You asked: Where is my parcel?",
    ]  # fmt: skip


async def test_an_edit_while_the_reply_is_made_has_it_made_anew(spine: Spine):
    conversation = await spine.hear("How do I send back a book?", message_id="m1")
    edits = [IncomingEdit("C1", "m1", "How do I send back a lamp?")]

    async def edited_meanwhile(question: Question) -> Reply:
        while edits:
            await spine.intake.change(edits.pop())
        return said(f"You asked: {question.messages[0]}")

    spine.scripted.does = edited_meanwhile
    await spine.answer(conversation)
    assert len(await spine.said(conversation)) == 1
    await spine.answer(conversation)

    *_, reply = await spine.said(conversation)
    assert reply.text == "You asked: How do I send back a lamp?"
    assert await spine.value("select count(*) from reply") == 1


async def test_an_edit_after_the_answer_or_without_a_change_does_nothing(spine: Spine):
    conversation = await spine.hear("Where is my parcel?", message_id="m1")
    same = await spine.intake.change(IncomingEdit("C1", "m1", "Where is my parcel?"))
    await spine.answer(conversation)
    late = await spine.intake.change(IncomingEdit("C1", "m1", "Where is my order?"))
    unknown = await spine.intake.change(IncomingEdit("C1", "m9", "Hello?"))

    assert [r.outcome for r in (same, late, unknown)] == [Outcome.IGNORED] * 3
    assert (await spine.said(conversation))[0].text == "Where is my parcel?"
    assert await spine.value("select state from turn") == "answered"
    assert await spine.value("select input_version from turn") == 1


async def test_a_message_that_is_taken_back_before_its_answer_gets_none(spine: Spine):
    conversation = await spine.hear("Where is my parcel?", message_id="m1")

    receipt = await spine.intake.change(IncomingDeletion("C1", "m1"))
    await spine.answer(conversation)

    assert receipt.outcome is Outcome.STORED
    assert spine.scripted.asked == []
    assert await spine.value("select state from turn") == "silent"
    (taken_back,) = await spine.said(conversation)
    assert (taken_back.text, taken_back.kind) == ("", MessageKind.DELETED)


async def test_of_two_quick_messages_the_one_that_stays_is_answered(spine: Spine):
    conversation = await spine.hear("Where is my parcel?", message_id="m1")
    await spine.hear("And when do you open?", message_id="m2")

    await spine.intake.change(IncomingDeletion("C1", "m1"))
    await spine.answer(conversation)

    assert [q.messages for q in spine.scripted.asked] == [("And when do you open?",)]


async def test_a_late_copy_of_a_message_that_was_taken_back_is_a_duplicate(spine: Spine):
    event = incoming("Where is my parcel?", message_id="m1")
    await spine.intake.receive(event)
    await spine.intake.change(IncomingDeletion("C1", "m1"))

    again = await spine.intake.receive(event)

    assert again.outcome is Outcome.DUPLICATE
    assert await spine.value("select count(*) from turn where state = 'open'") == 0


async def test_a_deletion_after_the_answer_leaves_the_transcript_as_it_was(spine: Spine):
    conversation = await spine.hear("Where is my parcel?", message_id="m1")
    await spine.answer(conversation)

    receipt = await spine.intake.change(IncomingDeletion("C1", "m1"))

    assert receipt.outcome is Outcome.IGNORED
    assert [m.author for m in await spine.said(conversation)] == [Author.CUSTOMER, Author.BOT]


async def test_an_edit_waits_for_a_commit_under_way_and_then_finds_it_answered(spine: Spine):
    conversation = await spine.hear("Where is my parcel?", message_id="m1")
    async with spine.database.transaction() as committing:
        await committing.execute(
            "select from conversation where id = %(id)s for update", {"id": conversation}
        )
        editing = asyncio.create_task(
            spine.intake.change(IncomingEdit("C1", "m1", "Where is my order?"))
        )
        await _blocked(spine)
        await committing.execute("update turn set state = 'answered', finished_at = now()")

    assert (await editing).outcome is Outcome.IGNORED
    assert (await spine.said(conversation))[0].text == "Where is my parcel?"


async def _blocked(spine: Spine) -> None:
    """Wait until another session of this database waits for a lock."""
    waiting = """select count(*) from pg_stat_activity
                  where datname = current_database() and wait_event_type = 'Lock'"""
    async with asyncio.timeout(20):
        while not await spine.value(waiting):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # PostgreSQL tells nobody that a session waits


async def test_a_chat_that_got_a_new_id_goes_on_as_the_same_conversation(spine: Spine):
    conversation = await spine.hear("Where is my parcel?", chat="-100")
    await spine.answer(conversation)

    await spine.intake.change(IncomingMove("-100", "-100200"))

    assert await spine.value("select chat from delivery") == "-100200"
    assert await spine.hear("And my refund?", chat="-100200") == conversation


async def test_an_album_or_forwarded_messages_are_one_turn_however_whole_each_looks(spine: Spine):
    first = await spine.hear("Is this broken?", is_burst=True)
    await spine.hear("What does it cost to mend?", is_burst=True)
    await spine.answer(first)
    assert spine.scripted.asked == []  # more may come

    await spine.until_due(first)
    await spine.answer(first)

    (question,) = spine.scripted.asked
    assert question.messages == ("Is this broken?", "What does it cost to mend?")


async def test_a_shut_inbox_holds_what_waits_and_sends_nothing_new(spine: Spine):
    before = await spine.hear("Where is my parcel?", chat="C1")
    await spine.answer(before)
    await spine.intake.shut("The app was removed.")
    after = await spine.hear("Where is my refund?", chat="C2")
    await spine.answer(after)

    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert spine.wire.sent == []
    assert await spine.value("select trouble from inbox where not active") == "The app was removed."
    states = "select array_agg(state order by created_at) from delivery"
    assert await spine.value(states) == ["held", "pending"]


async def test_an_inbox_offers_questions_of_its_base_to_begin_with(spine: Spine):
    row = {"question": "How do I send something back?", "answer": "Ask us.", "status": "published"}
    draft = {"question": "What comes next year?", "answer": "A lamp."}
    for entry in (row, draft):
        await faq.create(spine.database, entry, author="ada")

    assert list(await spine.intake.starters(4)) == ["How do I send something back?"]
