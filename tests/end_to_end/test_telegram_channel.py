"""The Telegram channel against a Bot API on the wire: real HTTP, real faults, no database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from bots.telegram import Telegram, TelegramSettings
from bots.telegram.polling import Patience
from core.errors import (
    ConfigurationError,
    PermanentError,
    TransientError,
    Unavailable,
    UncertainError,
)
from core.types import (
    Author,
    ConversationId,
    Delivery,
    DeliveryId,
    InboxId,
    Incoming,
    IncomingChange,
    IncomingEdit,
    IncomingFeedback,
    MessageId,
    MessageKind,
    Outcome,
    Receipt,
    Verdict,
)
from tests.emulators.telegram import TelegramEmulator

SECRET = "a-webhook-secret"
QUICK = Patience(conflict=0.05, refused=0.05, longest=0.05, webhook_check=0.05)
GROUP = -100200


class Inbox:
    """Our side of the `Receiver` port, without a database: it keeps each event and message once."""

    def __init__(self) -> None:
        self.said: list[Incoming] = []
        self.feedback: list[IncomingFeedback] = []
        self.changes: list[IncomingChange] = []
        self.reasons: list[str] = []
        self.refusals: list[str] = []
        self.troubles: list[str | None] = []
        self.duplicates = 0
        self.attempts = 0
        self.down = False
        self.poison: str | None = None
        self.stored_before_answer: Callable[[], None] = lambda: None
        self._changed = asyncio.Condition()

    async def receive(self, incoming: Incoming) -> Receipt:
        self.attempts += 1
        await self._notify()
        if self.down:
            raise Unavailable("The database is away.", retry_after=0.01)
        if self.poison is not None and incoming.text == self.poison:
            raise KeyError("a defect of ours")
        self.stored_before_answer()
        known = any(
            incoming.event_id == other.event_id
            or (incoming.chat, incoming.message_id) == (other.chat, other.message_id)
            for other in self.said
        )
        if known:
            self.duplicates += 1
        else:
            self.said.append(incoming)
        await self._notify()
        return Receipt(Outcome.DUPLICATE if known else Outcome.STORED)

    async def change(self, change: IncomingChange) -> Receipt:
        self.changes.append(change)
        await self._notify()
        return Receipt(Outcome.STORED)

    async def give_feedback(self, feedback: IncomingFeedback) -> Receipt:
        self.feedback.append(feedback)
        await self._notify()
        return Receipt(Outcome.STORED)

    def ignored(self, reason: str) -> None:
        self.reasons.append(reason)

    def rejected(self, reason: str) -> None:
        self.refusals.append(reason)

    async def starters(self, limit: int) -> list[str]:
        return []

    async def shut(self, trouble: str) -> None:
        raise AssertionError("Telegram tells of no such thing")

    async def report_trouble(self, trouble: str | None) -> None:
        if self.down:
            raise Unavailable("The database is away.")
        self.troubles.append(trouble)
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(happened)


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramEmulator]:
    async with TelegramEmulator() as emulator:
        yield emulator


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


def settings(telegram: TelegramEmulator, **fields: Any) -> TelegramSettings:
    return TelegramSettings(**{"bot_token": telegram.token, "api_url": telegram.url, **fields})


@asynccontextmanager
async def running(channel: Telegram) -> AsyncIterator[Telegram]:
    await channel.start()
    try:
        yield channel
    finally:
        await channel.close()


@pytest.fixture
async def channel(telegram: TelegramEmulator) -> AsyncIterator[Telegram]:
    async with running(Telegram(settings(telegram), QUICK)) as started:
        yield started


@asynccontextmanager
async def polling(channel: Telegram, inbox: Inbox) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(channel.poll(inbox, stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 10)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """Serve an app on a free port of this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    config = server.config
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await server.shutdown()


@asynccontextmanager
async def gateway(telegram: TelegramEmulator, inbox: Inbox) -> AsyncIterator[str]:
    """A gateway whose webhook is registered; yields the webhook's address."""
    app = FastAPI()
    async with served(app) as address:
        url = f"{address}/telegram/webhook"
        hooked = settings(telegram, webhook_url=url, webhook_secret=SECRET)
        async with running(Telegram(hooked, QUICK)) as channel:
            app.include_router(channel.routes(inbox))
            async with polling(channel, inbox):
                await telegram.until(lambda: telegram.webhook is not None, "setWebhook")
                yield url


def delivery(text: str, **fields: Any) -> Delivery:
    known: dict[str, Any] = {
        "id": DeliveryId(UUID(int=1)),
        "inbox_id": InboxId(1),
        "conversation_id": ConversationId(UUID(int=2)),
        "message_id": MessageId(UUID(int=3)),
        "chat": "42",
        "author": Author.BOT,
        "text": text,
    }
    return Delivery(**(known | fields))


async def send_all(channel: Telegram, what: Delivery) -> list[str]:
    return [await channel.send(what, part) for part in range(channel.parts(what))]


# --- in, by polling --------------------------------------------------------------------------


async def test_a_private_question_arrives_and_is_confirmed_after_it_is_stored(
    telegram, channel, inbox
):
    unconfirmed: list[int] = []
    inbox.stored_before_answer = lambda: unconfirmed.append(len(telegram.pending))

    async with polling(channel, inbox):
        await telegram.say("Where is my parcel?")
        await inbox.until(lambda: len(inbox.said) == 1)
        await telegram.confirmed()

    assert [incoming.text for incoming in inbox.said] == ["Where is my parcel?"]
    assert unconfirmed == [1]
    assert inbox.troubles == [None]


async def test_what_waited_for_a_webhook_is_polled_after_it_is_removed(telegram, channel, inbox):
    await telegram.set_webhook({"url": "http://127.0.0.1:9/nobody"})
    await telegram.say("Still there?")

    async with polling(channel, inbox):
        await inbox.until(lambda: len(inbox.said) == 1)

    assert telegram.webhook is None
    assert telegram.called("deleteWebhook")


async def test_the_same_message_under_the_same_and_under_a_new_update_id_is_stored_once(
    telegram, channel, inbox
):
    update = await telegram.say("Where is my parcel?")
    await telegram.repeat(update)
    await telegram.repeat(update, new_id=True)

    async with polling(channel, inbox):
        await telegram.confirmed()

    assert len(inbox.said) == 1
    assert inbox.duplicates == 2


async def test_while_the_database_is_down_the_offset_stays_and_nothing_is_lost(
    telegram, channel, inbox
):
    inbox.down = True
    async with polling(channel, inbox):
        await telegram.say("one")
        await telegram.say("two")
        await inbox.until(lambda: inbox.attempts >= 4)
        assert len(telegram.pending) == 2
        inbox.down = False
        await telegram.confirmed()

    assert [incoming.text for incoming in inbox.said] == ["one", "two"]


async def test_one_update_that_fails_by_itself_does_not_hold_up_the_others(
    telegram, channel, inbox
):
    inbox.poison = "bad"
    await telegram.say("bad")
    await telegram.say("good")
    async with polling(channel, inbox):
        await inbox.until(lambda: len(inbox.said) == 1 and inbox.attempts >= 4)
        assert len(telegram.pending) == 2
        inbox.poison = None
        await telegram.confirmed()

    assert {incoming.text for incoming in inbox.said} == {"bad", "good"}
    assert any("KeyError" in (trouble or "") for trouble in inbox.troubles)
    assert inbox.troubles[-1] is None


async def test_an_update_that_nobody_can_read_is_passed_over(telegram, channel, inbox):
    await telegram.update(message={"chat": "nonsense"})
    await telegram.say("hello")

    async with polling(channel, inbox):
        await telegram.confirmed()

    assert [incoming.text for incoming in inbox.said] == ["hello"]


async def test_an_edited_message_is_passed_on_with_the_id_of_the_first(telegram, channel, inbox):
    update = await telegram.say("Where is my parcel?")
    await telegram.edit(update, "Where is my order?")

    async with polling(channel, inbox):
        await telegram.confirmed()

    (said,) = inbox.said
    assert inbox.changes == [IncomingEdit(said.chat, said.message_id, "Where is my order?")]


async def test_a_new_thumb_under_a_reply_is_a_verdict_and_other_reactions_are_not(
    telegram, channel, inbox
):
    telegram.know(42)
    await channel.send(delivery("We open at nine.", chat="42"), 0)
    sent = telegram.sent[0]
    await telegram.react(sent, "👎")
    await telegram.react(sent, "👍", before="👎")
    await telegram.react(sent, "🎉", before="👍")

    async with polling(channel, inbox):
        await telegram.confirmed()

    told = [(f.verdict, f.external_id) for f in inbox.feedback]
    reply = str(sent.message["message_id"])
    assert told == [(Verdict.DOWN, reply), (Verdict.UP, reply)]


async def test_unknown_updates_are_ignored_and_counted(telegram, channel, inbox):
    await telegram.say("Where is my parcel?")
    await telegram.update(a_thing_of_tomorrow={"x": 1})

    async with polling(channel, inbox):
        await telegram.confirmed()

    assert len(inbox.said) == 1
    assert inbox.reasons == ["an update of a kind that is not used"]


async def test_only_what_is_addressed_to_the_bot_in_a_group_is_taken_in(telegram, channel, inbox):
    telegram.know(GROUP)
    await channel.send(delivery("We open at nine.", chat=str(GROUP), private=False), 0)
    ours = telegram.sent[0]
    await telegram.say("Nice weather", chat=GROUP)
    await telegram.say("😀 @deskhand_bot where is it?", chat=GROUP)
    await telegram.say("/help@otherbot", chat=GROUP)
    await telegram.say("And on Sunday?", chat=GROUP, reply_to=ours)
    await telegram.say(
        "I am a bot",
        chat=GROUP,
        mentions=True,
        **{"from": {"id": 8, "is_bot": True, "first_name": "B"}},
    )

    async with polling(channel, inbox):
        await telegram.confirmed()

    assert [incoming.text for incoming in inbox.said] == ["😀 where is it?", "And on Sunday?"]


async def test_two_topics_of_a_group_are_two_conversations_each_answered_in_its_topic(
    telegram, channel, inbox
):
    await telegram.say("orders?", chat=GROUP, thread=3, mentions=True)
    await telegram.say("returns?", chat=GROUP, thread=9, mentions=True)
    async with polling(channel, inbox):
        await telegram.confirmed()

    for incoming in inbox.said:
        answer = delivery(
            incoming.text,
            chat=incoming.chat,
            thread=incoming.thread,
            private=incoming.private,
            reply_to=incoming.message_id,
        )
        await channel.send(answer, 0)

    assert [incoming.conversation_key for incoming in inbox.said] == [f"{GROUP}#3", f"{GROUP}#9"]
    assert [(sent.thread, sent.text, sent.reply_to) for sent in telegram.sent] == [
        (3, "orders?", 1),
        (9, "returns?", 2),
    ]


async def test_start_keeps_its_payload_and_asks_for_a_greeting(telegram, channel, inbox):
    await telegram.say("/start promo_7")

    async with polling(channel, inbox):
        await telegram.confirmed()

    (incoming,) = inbox.said
    assert (incoming.kind, incoming.payload) == (MessageKind.START, "promo_7")


async def test_a_caption_is_the_question_and_a_voice_note_is_unreadable(telegram, channel, inbox):
    photo = [{"file_id": "p", "file_unique_id": "p", "width": 1, "height": 1}]
    await telegram.say(None, photo=photo, caption="Is this broken?")
    await telegram.say(None, voice={"file_id": "v", "file_unique_id": "v", "duration": 2})

    async with polling(channel, inbox):
        await telegram.confirmed()

    assert [(i.kind, i.text) for i in inbox.said] == [
        (MessageKind.TEXT, "Is this broken?"),
        (MessageKind.UNREADABLE, ""),
    ]


async def test_a_group_message_waits_until_the_bot_knows_its_name(telegram, inbox):
    telegram.fail("getMe", times=3, status=502)
    await telegram.say("where is it?", chat=GROUP, mentions=True)

    async with running(Telegram(settings(telegram), QUICK)) as channel, polling(channel, inbox):
        await telegram.confirmed()

    assert [incoming.text for incoming in inbox.said] == ["where is it?"]


async def test_a_conflict_is_said_once_and_shown_until_it_is_over(telegram, channel, inbox, caplog):
    telegram.fail(
        "getUpdates", times=4, status=409, description="Conflict: terminated by other getUpdates"
    )
    await telegram.say("hello")

    with caplog.at_level(logging.WARNING):
        async with polling(channel, inbox):
            await telegram.confirmed()
            await inbox.until(lambda: inbox.troubles[-1:] == [None] and len(inbox.troubles) == 3)

    lines = [record for record in caplog.records if "409" in record.getMessage()]
    assert len(lines) == 1
    assert [bool(trouble) for trouble in inbox.troubles] == [False, True, False]
    assert len(inbox.said) == 1


async def test_a_second_poller_gets_a_conflict_and_nothing_is_lost(telegram, inbox):
    first, second = Telegram(settings(telegram), QUICK), Telegram(settings(telegram), QUICK)
    async with running(first), running(second):
        async with polling(first, inbox), polling(second, inbox):
            await inbox.until(lambda: any("409" in (t or "") for t in inbox.troubles))
        await telegram.say("hello")
        async with polling(first, inbox):
            await telegram.confirmed()

    assert len(inbox.said) == 1


async def test_a_refused_token_is_trouble_that_names_the_setting(telegram, channel, inbox):
    telegram.revoke()

    async with polling(channel, inbox):
        await inbox.until(lambda: bool(inbox.troubles))

    assert "TELEGRAM_BOT_TOKEN" in (inbox.troubles[0] or "")
    assert telegram.token not in (inbox.troubles[0] or "")


async def test_polling_goes_on_after_the_platform_was_away(telegram, channel, inbox):
    async with polling(channel, inbox):
        await telegram.say("one")
        await telegram.confirmed()
        telegram.fail("getUpdates", times=3, reset=True)
        telegram.fail("getUpdates", times=1, status=502, body=b"<html>Bad Gateway</html>")
        await telegram.say("two")
        await telegram.say("three")
        await telegram.confirmed()

    assert [incoming.text for incoming in inbox.said] == ["one", "two", "three"]


# --- in, by webhook --------------------------------------------------------------------------


async def test_a_webhook_update_is_stored_before_it_gets_its_200(telegram, inbox):
    async with gateway(telegram, inbox):
        await telegram.say("Where is my parcel?")
        answers = await telegram.delivered(1)

    assert [status for _, status in answers] == [200]
    assert [incoming.text for incoming in inbox.said] == ["Where is my parcel?"]


async def test_the_webhook_is_registered_with_its_secret_and_the_updates_we_use(telegram, inbox):
    async with gateway(telegram, inbox) as url:
        (call,) = telegram.called("setWebhook")

    assert call.fields["url"] == url
    assert call.fields["secret_token"] == SECRET
    assert call.fields["allowed_updates"] == [
        "message",
        "edited_message",
        "callback_query",
        "message_reaction",
    ]


async def test_a_webhook_that_telegram_asks_to_wait_for_is_registered_later(telegram, inbox):
    telegram.rate_limit(1, method="setWebhook")

    async with gateway(telegram, inbox):
        assert len(telegram.called("setWebhook")) == 2


async def test_a_webhook_that_somebody_took_away_is_registered_again(telegram, inbox):
    async with gateway(telegram, inbox):
        await telegram.delete_webhook({})
        await telegram.until(lambda: telegram.webhook is not None, "setWebhook")


@pytest.mark.parametrize("header", [None, "", "wrong", "a-webhook-secre", "ä" * 16, SECRET + " x"])
async def test_a_wrong_or_missing_secret_gets_403_and_nothing_is_stored(
    telegram, inbox, header, caplog
):
    update = {"update_id": 1, "message": {"text": "hello"}}
    raw = {} if header is None else {"X-Telegram-Bot-Api-Secret-Token": header.encode()}
    with caplog.at_level(logging.DEBUG):
        async with gateway(telegram, inbox) as url, httpx.AsyncClient() as client:
            response = await client.post(url, json=update, headers=raw)

    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden"
    assert inbox.attempts == 0
    assert inbox.refusals == ["wrong or missing Telegram secret"]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"update_id": "x"}', 400),
        (b"[" * 200_000, 400),
        (b'{"update_id": 1, "message": {"chat": 3}}', 200),
        (b" " * 1_000_001, 413),
    ],
)
async def test_a_body_that_is_no_update_is_refused(telegram, inbox, body, status):
    headers = {"X-Telegram-Bot-Api-Secret-Token": SECRET}
    async with gateway(telegram, inbox) as url, httpx.AsyncClient() as client:
        response = await client.post(url, content=body, headers=headers)

    assert response.status_code == status
    assert inbox.attempts == 0


async def test_with_the_database_down_the_webhook_says_later_and_telegram_comes_again(
    telegram, inbox
):
    inbox.down = True
    async with gateway(telegram, inbox):
        await telegram.say("Where is my parcel?")
        answers = await telegram.delivered(1)
        assert answers[0][1] == 503
        inbox.down = False
        await telegram.clock.advance(5)
        await telegram.confirmed()

    assert len(inbox.said) == 1


async def test_a_webhook_without_its_secret_is_refused_at_start(telegram):
    with pytest.raises(ConfigurationError, match="TELEGRAM_WEBHOOK_SECRET"):
        Telegram(settings(telegram, webhook_url="https://bot.example/telegram/webhook"))


async def test_in_polling_mode_the_webhook_route_is_closed(telegram, channel, inbox):
    app = FastAPI()
    app.include_router(channel.routes(inbox))
    async with served(app) as address, httpx.AsyncClient() as client:
        response = await client.post(f"{address}/telegram/webhook", json={"update_id": 1})

    assert response.status_code == 403


# --- out -------------------------------------------------------------------------------------


async def test_an_approved_answer_is_rendered_and_a_generated_one_stays_literal(telegram, channel):
    telegram.know(42)
    text = "😀 **Free** returns, `code`, [page](https://shop.example/a_b) <!channel> a_b*c."

    await send_all(channel, delivery(text, is_markdown=True))
    await send_all(channel, delivery(text))

    rendered, literal = telegram.sent
    assert rendered.text == "😀 Free returns, code, page <!channel> a_b*c."
    assert rendered.marked("bold") == ["Free"]
    assert rendered.marked("code") == ["code"]
    assert rendered.marked("text_link") == ["page"]
    assert literal.text == text
    assert literal.entities == ()
    assert "parse_mode" not in telegram.called("sendMessage")[0].fields
    assert telegram.called("sendMessage")[0].fields["link_preview_options"] == {"is_disabled": True}


async def test_a_long_answer_goes_out_as_several_messages_in_order(telegram, channel):
    telegram.know(42)
    text = "```\n" + "\n".join(f"line {n} 😀" for n in range(900)) + "\n```"
    what = delivery(text, is_markdown=True)

    ids = await send_all(channel, what)

    assert len(ids) == channel.parts(what) > 1
    assert all(sent.entities[0]["type"] == "pre" for sent in telegram.sent)
    lines = [line for sent in telegram.sent for line in sent.text.splitlines()]
    assert lines == [f"line {n} 😀" for n in range(900)]


async def test_a_pressed_question_is_taken_in_and_its_button_stops_waiting(
    telegram, channel, inbox
):
    telegram.know(42)
    asked = ("Where is my parcel?", "How do I return it?")
    await channel.send(delivery("Which one?", suggestions=asked), 0)
    press = await telegram.press(telegram.sent[0], "How do I return it?")
    await telegram.repeat(press, new_id=True)

    async with polling(channel, inbox):
        await telegram.confirmed()
        await telegram.requested("answerCallbackQuery")

    assert [incoming.text for incoming in inbox.said] == ["How do I return it?"]
    assert inbox.duplicates == 1


async def test_a_thumb_is_feedback_on_our_message(telegram, channel, inbox):
    telegram.know(42)
    await channel.send(delivery("Two days.", rateable=True), 0)
    await telegram.press(telegram.sent[0], "👎")

    async with polling(channel, inbox):
        await telegram.confirmed()
        (answered,) = await telegram.requested("answerCallbackQuery")

    (feedback,) = inbox.feedback
    assert feedback.verdict is Verdict.DOWN
    assert feedback.message_id == UUID(int=3)
    assert feedback.chat == "42"
    assert answered.fields["text"] == "✓"


async def test_429_says_how_long_to_wait_and_other_chats_go_on(telegram, channel):
    telegram.know(1)
    telegram.know(2)
    telegram.rate_limit(3, chat=1)

    with pytest.raises(TransientError) as limited:
        await channel.send(delivery("a", chat="1"), 0)
    await channel.send(delivery("b", chat="2"), 0)

    assert limited.value.retry_after == 3
    assert not limited.value.whole_inbox
    assert [sent.chat for sent in telegram.sent] == [2]


async def test_the_twenty_first_message_to_a_group_within_a_minute_is_told_to_wait(
    telegram, channel
):
    telegram.know(GROUP)
    what = delivery("Hi", chat=str(GROUP), private=False)
    assert channel.limits.per_chat == 20
    for _ in range(20):
        await channel.send(what, 0)

    with pytest.raises(TransientError) as limited:
        await channel.send(what, 0)
    await telegram.clock.advance((limited.value.retry_after or 0) + 1)
    await channel.send(what, 0)

    assert len(telegram.sent) == 21


@pytest.mark.parametrize(
    "fault",
    [
        {"reset": True, "stored": True},
        {"reset": True, "stored": False},
        {"status": 500, "stored": True},
        {"status": 502, "body": b"<html>Bad Gateway</html>"},
        {"body": b"<html>a proxy</html>", "stored": True},
        {"body": b"[]", "stored": True},
    ],
)
async def test_a_send_of_which_nobody_knows_is_uncertain_and_not_repeated(telegram, channel, fault):
    telegram.know(42)
    telegram.fail("sendMessage", **fault)

    with pytest.raises(UncertainError):
        await channel.send(delivery("Two days."), 0)

    assert len(telegram.called("sendMessage")) == 1
    assert len(telegram.sent) == (1 if fault.get("stored") else 0)
    with pytest.raises(UncertainError):
        await channel.find_sent(delivery("Two days."), 0)


async def test_an_answer_that_is_held_back_too_long_is_uncertain(telegram, channel, monkeypatch):
    telegram.know(42)
    held = asyncio.Event()
    telegram.fail("sendMessage", hold=held)
    monkeypatch.setattr("bots.telegram.wire.CALL_SECONDS", 0.2)

    with pytest.raises(UncertainError):
        await channel.send(delivery("Two days."), 0)
    held.set()

    assert len(telegram.sent) == 1


async def test_a_refused_connection_is_surely_not_sent_and_the_next_try_succeeds(telegram, channel):
    telegram.know(42)
    await telegram.go_down()
    with pytest.raises(TransientError) as away:
        await channel.send(delivery("Two days."), 0)
    await telegram.come_back()

    await channel.send(delivery("Two days."), 0)

    assert away.value.retry_after is None
    assert len(telegram.sent) == 1


@pytest.mark.parametrize(
    "description", ["can't parse entities: wrong offset", "BUTTON_DATA_INVALID"]
)
async def test_refused_formatting_is_sent_again_as_plain_text(telegram, channel, description):
    telegram.know(42)
    telegram.fail("sendMessage", status=400, description=f"Bad Request: {description}")

    await channel.send(delivery("**Free** returns", is_markdown=True, rateable=True), 0)

    (sent,) = telegram.sent
    assert (sent.text, sent.entities, sent.buttons) == ("Free returns", (), ())


@pytest.mark.parametrize(
    "description",
    ["bot was blocked by the user", "user is deactivated", "bot was kicked from the group chat"],
)
async def test_a_customer_who_is_gone_is_not_tried_again(telegram, channel, description):
    telegram.know(42)
    telegram.block(42, description)

    with pytest.raises(PermanentError, match=description) as refused:
        await channel.send(delivery("Hi"), 0)

    assert refused.value.contact_gone
    assert len(telegram.called("sendMessage")) == 1


async def test_an_unknown_chat_is_gone_too(telegram, channel):
    with pytest.raises(PermanentError, match="Chat not found") as refused:
        await channel.send(delivery("Hi", chat="777"), 0)

    assert refused.value.contact_gone


async def test_a_refused_token_holds_the_inbox(telegram, channel):
    telegram.revoke()

    with pytest.raises(PermanentError) as refused:
        await channel.send(delivery("Hi"), 0)

    assert refused.value.inbox_gone


async def test_a_group_that_moved_names_its_new_id_and_gets_the_message_once(
    telegram, channel, inbox
):
    telegram.know(-5)
    await telegram.migrate(-5, -1005)
    what = delivery("Two days.", chat="-5", private=False)
    with pytest.raises(PermanentError) as moved:
        await channel.send(what, 0)
    assert moved.value.moved_to == "-1005"

    await channel.send(replace(what, chat=moved.value.moved_to or ""), 0)
    async with polling(channel, inbox):
        await telegram.confirmed()

    assert [(sent.chat, sent.text) for sent in telegram.sent] == [(-1005, "Two days.")]
    assert inbox.said == []


async def test_typing_is_shown_in_its_topic_and_its_failure_is_no_matter(telegram, channel):
    await telegram.say("hi", chat=GROUP, thread=3)
    telegram.fail("sendChatAction", status=500)

    await channel.show_working(str(GROUP), "3")
    await channel.show_working(str(GROUP), "3")

    calls = telegram.called("sendChatAction")
    assert [(c.chat, c.fields["message_thread_id"]) for c in calls] == [(GROUP, "3")] * 2
    assert channel.working_seconds < 5


async def test_the_token_stands_in_no_log_and_no_error(telegram, inbox, caplog):
    with caplog.at_level(logging.DEBUG):
        for name in ("httpx", "httpcore", "telegram"):
            caplog.set_level(logging.DEBUG, logger=name)
        async with running(Telegram(settings(telegram), QUICK)) as channel:
            telegram.know(42)
            async with polling(channel, inbox):
                await telegram.say("hello")
                await telegram.confirmed()
            await channel.send(delivery("Hi"), 0)
            telegram.fail("sendMessage", reset=True)
            with pytest.raises(UncertainError) as uncertain:
                await channel.send(delivery("Hi"), 0)
            await telegram.go_down()
            with pytest.raises(TransientError) as away:
                await channel.send(delivery("Hi"), 0)

    assert "/bot[token]/sendMessage" in caplog.text
    assert telegram.token not in caplog.text
    assert telegram.token not in f"{uncertain.value!r}{away.value!r}{channel.settings!r}"
