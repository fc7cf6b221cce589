"""Telegram on the real database: from an update on the wire to the reply in the chat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest

from bots.telegram import Telegram, TelegramSettings
from bots.telegram.polling import Patience
from core import deliveries
from core.db.connect import Database
from core.types import Choice, Decision, InboxId, Question, Reply, Tier
from tests.emulators.telegram import TelegramEmulator
from tests.storage.spine import Spine

GROUP = -100200
QUICK = Patience(conflict=0.05, refused=0.05, longest=0.05)


@dataclass
class Shop:
    """A shop with a Telegram bot: all parts but Celery and the models."""

    telegram: TelegramEmulator
    channel: Telegram
    spine: Spine

    async def take_in(self) -> None:
        """Poll until everything that was said is confirmed."""
        stop = asyncio.Event()
        polling = asyncio.create_task(self.channel.poll(self.spine.intake, stop))
        try:
            await self.telegram.confirmed()
        finally:
            stop.set()
            await polling

    async def work(self) -> None:
        """Take in, answer and deliver what there is."""
        await self.take_in()
        while self.spine.rings.turns:
            await self.spine.answer(self.spine.rings.turns.pop(0))
        await self.deliver()

    async def deliver(self) -> None:
        channels = {InboxId(self.spine.inbox.id): self.channel}
        sending = replace(self.spine.sending(), channels=channels)
        await deliveries.deliver(sending, self.spine.inbox.id)

    async def states(self) -> list[str]:
        async with self.spine.database.transaction() as conn:
            rows = await conn.execute("select state from delivery order by created_at, position")
            return [row[0] for row in await rows.fetchall()]

    async def column(self, query: str) -> list[object]:
        async with self.spine.database.transaction() as conn:
            return [row[0] for row in await (await conn.execute(query)).fetchall()]  # type: ignore[arg-type]


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    async with TelegramEmulator() as telegram:
        settings = TelegramSettings.model_validate(
            {"bot_token": telegram.token, "api_url": telegram.url}
        )
        channel = Telegram(settings, QUICK)
        await channel.start()
        try:
            yield Shop(telegram, channel, await Spine.build(database, "telegram"))
        finally:
            await channel.close()


async def test_a_question_that_comes_three_times_is_answered_once(shop: Shop):
    update = await shop.telegram.say("Where is my parcel?")
    await shop.telegram.repeat(update)
    await shop.telegram.repeat(update, new_id=True)

    await shop.work()
    await shop.work()

    assert [sent.text for sent in shop.telegram.sent] == ["You asked: Where is my parcel?"]


async def test_each_topic_of_a_group_is_answered_in_its_place(shop: Shop):
    await shop.telegram.say("orders?", chat=GROUP, thread=3, mentions=True)
    await shop.telegram.say("returns?", chat=GROUP, thread=9, mentions=True)

    await shop.work()

    assert {(sent.thread, sent.reply_to, sent.text) for sent in shop.telegram.sent} == {
        (3, 1, "You asked: orders?"),
        (9, 2, "You asked: returns?"),
    }


async def test_a_message_of_which_nobody_knows_stays_uncertain_and_is_not_sent_again(shop: Shop):
    shop.telegram.fail("sendMessage", reset=True, stored=True)
    await shop.telegram.say("Where is my parcel?")

    await shop.work()
    await shop.deliver()

    assert len(shop.telegram.sent) == 1
    assert await shop.states() == ["uncertain"]


async def test_after_a_429_that_chat_waits_and_others_go_on(shop: Shop):
    shop.telegram.rate_limit(3, chat=1)
    await shop.telegram.say("one?", chat=1, sender=1)
    await shop.telegram.say("two?", chat=2, sender=2)

    await shop.work()
    await shop.deliver()

    assert [sent.chat for sent in shop.telegram.sent] == [2]
    assert sorted(await shop.states()) == ["pending", "sent"]
    assert await shop.column("select chat from pause where until > now() + interval '1 s'") == ["1"]


async def test_of_twenty_one_answers_to_a_group_the_last_waits_and_none_is_refused(shop: Shop):
    for number in range(21):
        await shop.telegram.say(f"{number}?", chat=GROUP, thread=number + 1, mentions=True)

    await shop.work()

    assert len(shop.telegram.sent) == 20
    assert len(shop.telegram.called("sendMessage")) == 20
    assert sorted(await shop.states()) == ["pending"] + ["sent"] * 20


async def test_a_customer_who_blocked_the_bot_is_noted_and_not_tried_again(shop: Shop):
    await shop.telegram.say("Where is my parcel?")
    shop.telegram.block(42)

    await shop.work()
    await shop.deliver()

    assert len(shop.telegram.called("sendMessage")) == 1
    assert await shop.states() == ["failed"]
    assert await shop.column("select gone_at is not null from contact") == [True]


async def test_a_reply_to_a_group_that_moved_follows_it_once(shop: Shop):
    await shop.telegram.say("orders?", chat=-5, mentions=True)
    await shop.take_in()
    await shop.telegram.migrate(-5, -1005)

    await shop.work()

    assert [(sent.chat, sent.text) for sent in shop.telegram.sent] == [
        (-1005, "You asked: orders?")
    ]
    assert await shop.column("select key from conversation") == ["-1005"]


async def test_a_thumb_down_lands_on_the_message_under_which_it_was_pressed(shop: Shop):
    await shop.telegram.say("Where is my parcel?")
    await shop.work()
    press = await shop.telegram.press(shop.telegram.sent[0], "👎")
    await shop.telegram.repeat(press, new_id=True)

    await shop.take_in()

    assert await shop.column("select verdict from feedback") == ["down"]
    rated = await shop.column("select m.text from feedback f join message m on m.id = f.message_id")
    assert rated == ["You asked: Where is my parcel?"]


async def test_a_pressed_question_is_answered_like_a_written_one(shop: Shop):
    async def clarify(question: Question) -> Reply:
        if question.messages == ("parcel",):
            choice = Choice(Decision.CLARIFY, "two entries compete")
            return Reply(choice, "Which one?", Tier.APPROVED, "en", suggestions=("Where is it?",))
        return Reply(
            Choice(Decision.ANSWER, "clear"), f"On {question.messages[-1]}", Tier.APPROVED, "en"
        )

    shop.spine.scripted.does = clarify
    await shop.telegram.say("parcel")
    await shop.work()
    await shop.telegram.press(shop.telegram.sent[0], "Where is it?")

    await shop.work()

    assert [sent.text for sent in shop.telegram.sent] == ["Which one?", "On Where is it?"]


async def test_a_revoked_token_holds_replies_instead_of_losing_them(shop: Shop):
    await shop.telegram.say("Where is my parcel?")
    await shop.take_in()
    shop.telegram.revoke()
    await shop.spine.answer(shop.spine.rings.turns.pop(0))

    await shop.deliver()

    assert await shop.states() == ["held"]
    assert await shop.column("select trouble is not null from inbox where name = 'telegram'") == [
        True
    ]
