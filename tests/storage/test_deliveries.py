"""Deliveries leave in order, once, within the limits, and never after a take-over."""

from __future__ import annotations

import asyncio

from core import conversations, deliveries
from core.db import deliveries as rows
from core.errors import PermanentError, TransientError, UncertainError
from core.types import ConversationId, Delivery, InboxId, Limits
from tests.storage.spine import Spine


async def answered(spine: Spine, *texts: str, chat: str = "C1") -> ConversationId:
    conversation = None
    for text in texts:
        conversation = await spine.hear(text, chat=chat)
        await spine.answer(conversation)
    assert conversation is not None
    return conversation


async def due_now(spine: Spine) -> None:
    async with spine.database.transaction() as conn:
        await conn.execute("update delivery set due_at = now() where state = 'pending'")
        await conn.execute("delete from pause")


async def test_answers_of_a_conversation_leave_in_order_one_at_a_time(spine: Spine):
    await answered(spine, "one?", "two?", "three?")
    under_way: list[int] = []
    most = 0

    async def watch(delivery: Delivery, part: int) -> None:
        nonlocal most
        under_way.append(1)
        most = max(most, len(under_way))
        await asyncio.sleep(0)
        under_way.pop()

    spine.wire.before_send = watch
    await asyncio.gather(
        *(deliveries.deliver(spine.sending(f"sender-{n}"), spine.inbox.id) for n in range(5))
    )
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.text for d, _ in spine.wire.sent] == [
        "You asked: one?",
        "You asked: two?",
        "You asked: three?",
    ]
    assert most == 1


async def test_a_delivery_is_dropped_when_a_person_takes_over_before_it_is_claimed(spine: Spine):
    conversation = await answered(spine, "one?")
    await conversations.take(spine.desk, str(conversation), "ann")
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert spine.wire.sent == []
    assert await spine.value("select state from delivery") == "dropped"


async def test_a_take_over_between_two_parts_stops_the_second(spine: Spine):
    conversation = await answered(spine, "one?")
    spine.wire.part_count = 2

    async def taken(delivery: Delivery, part: int) -> None:
        await conversations.take(spine.desk, str(conversation), "ann")

    spine.wire.before_send = taken
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [part for _, part in spine.wire.sent] == [0]
    assert await spine.value("select state from delivery") == "dropped"


async def test_what_an_agent_says_is_sent_whatever_the_epoch(spine: Spine):
    conversation = await answered(spine, "one?")
    await conversations.take(spine.desk, str(conversation), "ann")
    await conversations.say(spine.desk, str(conversation), "ann", "Hello, Ann here.")
    await conversations.release(spine.desk, str(conversation), "ann")
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.text for d, _ in spine.wire.sent] == ["Hello, Ann here."]


async def test_a_refused_connection_is_tried_again_and_sent_once(spine: Spine):
    await answered(spine, "one?")
    spine.wire.failures = [TransientError("no connection")]
    await deliveries.deliver(spine.sending(), spine.inbox.id)
    before = len(spine.wire.sent)
    await due_now(spine)
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert (before, len(spine.wire.sent)) == (0, 1)
    assert await spine.value("select state from delivery") == "sent"


async def test_a_platforms_wait_holds_for_its_chat_and_not_for_others(spine: Spine):
    await answered(spine, "one?", chat="C1")
    await answered(spine, "two?", chat="C2")
    spine.wire.failures = [TransientError("slow down", retry_after=30.0)]
    await deliveries.deliver(spine.sending(), spine.inbox.id)
    await answered(spine, "three?", chat="C1")
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.text for d, _ in spine.wire.sent] == ["You asked: two?"]


async def test_a_wait_for_the_whole_inbox_holds_for_all(spine: Spine):
    await answered(spine, "one?", chat="C1")
    await answered(spine, "two?", chat="C2")
    spine.wire.failures = [TransientError("slow down", retry_after=30.0, whole_inbox=True)]
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert spine.wire.sent == []


async def test_an_uncertain_post_that_stands_there_is_marked_sent(spine: Spine):
    await answered(spine, "one?")
    spine.wire.failures = [UncertainError("connection dropped")]
    spine.wire.found = lambda delivery, part: "post-77"
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert spine.wire.sent == []
    assert await spine.value("select state from delivery") == "sent"
    assert await spine.value("select external_id from post") == "post-77"


async def test_an_uncertain_post_that_surely_is_not_there_is_sent_again(spine: Spine):
    await answered(spine, "one?")
    spine.wire.failures = [UncertainError("connection dropped")]
    spine.wire.found = lambda delivery, part: None
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert len(spine.wire.sent) == 1
    assert await spine.value("select state from delivery") == "sent"


async def test_what_nobody_can_tell_stays_uncertain_and_holds_up_nothing(spine: Spine):
    await answered(spine, "one?", "two?")
    spine.wire.failures = [UncertainError("timed out")]

    def unknown(delivery: Delivery, part: int) -> str | None:
        raise UncertainError("the platform cannot tell")

    spine.wire.found = unknown
    await deliveries.deliver(spine.sending(), spine.inbox.id)
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.text for d, _ in spine.wire.sent] == ["You asked: two?"]
    assert await spine.value("select state from delivery order by position limit 1") == "uncertain"


async def test_staff_can_send_an_uncertain_delivery_again(spine: Spine):
    await answered(spine, "one?")
    spine.wire.failures = [UncertainError("timed out")]

    def unknown(delivery: Delivery, part: int) -> str | None:
        raise UncertainError("the platform cannot tell")

    spine.wire.found = unknown
    await deliveries.deliver(spine.sending(), spine.inbox.id)
    delivery_id = await spine.value("select id from delivery")
    await deliveries.resend(spine.database, spine.rings, delivery_id)  # type: ignore[arg-type]
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert len(spine.wire.sent) == 1


async def test_a_sender_that_died_leaves_its_delivery_uncertain(spine: Spine):
    await answered(spine, "one?")
    async with spine.database.transaction() as conn:
        await rows.claim_next(
            conn, InboxId(spine.inbox.id), owner="dead", lease_seconds=-1.0, limits=Limits()
        )
        abandoned = await rows.doubt_abandoned(conn)

    assert abandoned == 1
    assert await spine.value("select state from delivery") == "uncertain"


async def test_a_refusal_for_good_fails_without_another_try(spine: Spine):
    await answered(spine, "one?", "two?")
    spine.wire.failures = [PermanentError("blocked", contact_gone=True)]
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert await spine.value("select state from delivery order by position limit 1") == "failed"
    assert await spine.value("select gone_at is not null from contact") is True


async def test_a_revoked_token_holds_what_was_to_be_sent(spine: Spine):
    await answered(spine, "one?")
    spine.wire.failures = [PermanentError("token revoked", inbox_gone=True)]
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert await spine.value("select state from delivery") == "held"
    assert await spine.value("select active from inbox") is False


async def test_a_chat_that_moved_is_followed(spine: Spine):
    conversation = await answered(spine, "one?", chat="-100")
    spine.wire.failures = [PermanentError("moved", moved_to="-200")]
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.chat for d, _ in spine.wire.sent] == ["-200"]
    assert (await spine.conversation(conversation)).chat == "-200"


async def test_the_twenty_first_answer_to_a_group_in_a_minute_waits(spine: Spine):
    spine.wire.limits = Limits(per_chat=20, window_seconds=60.0)
    for number in range(21):
        conversation = await spine.hear("q?", chat="-100", thread=str(number), private=False)
        await spine.answer(conversation)
    await asyncio.gather(
        *(deliveries.deliver(spine.sending(f"s{n}"), spine.inbox.id) for n in range(4))
    )
    within = len(spine.wire.sent)
    async with spine.database.transaction() as conn:
        await conn.execute("update post set sent_at = sent_at - interval '61 seconds'")
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert (within, len(spine.wire.sent)) == (20, 21)


async def test_parts_that_are_out_are_not_sent_again(spine: Spine):
    await answered(spine, "one?")
    spine.wire.part_count = 3
    spine.wire.failures = []

    async def fails_at_second(delivery: Delivery, part: int) -> None:
        if part == 1 and not spine.wire.failures and delivery.attempts == 1:
            spine.wire.failures = [TransientError("no connection")]

    spine.wire.before_send = fails_at_second
    await deliveries.deliver(spine.sending(), spine.inbox.id)
    await due_now(spine)
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [part for _, part in spine.wire.sent] == [0, 1, 2]
    assert await spine.value("select count(*) from post") == 3


async def test_what_was_in_doubt_while_a_person_took_over_is_dropped_and_holds_up_nothing(
    spine: Spine,
):
    conversation = await answered(spine, "one?")
    spine.wire.failures = [UncertainError("connection dropped")]

    def taken_meanwhile(delivery: Delivery, part: int) -> str | None:
        return None

    async with spine.database.transaction() as conn:
        await rows.claim_next(
            conn, InboxId(spine.inbox.id), owner="dead", lease_seconds=-1.0, limits=Limits()
        )
    await conversations.take(spine.desk, str(conversation), "ann")
    await conversations.say(spine.desk, str(conversation), "ann", "Ann here.")
    async with spine.database.transaction() as conn:
        await rows.doubt_abandoned(conn)
    spine.wire.failures = []
    spine.wire.found = taken_meanwhile
    await deliveries.deliver(spine.sending(), spine.inbox.id)

    assert [d.text for d, _ in spine.wire.sent] == ["Ann here."]
    assert await spine.value("select state from delivery order by position limit 1") == "dropped"
