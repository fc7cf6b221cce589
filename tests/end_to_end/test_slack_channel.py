"""The Slack channel against Slack on the wire; the database's side is tested elsewhere."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from pydantic import SecretStr

from bots.slack import Slack, SlackSettings
from core.errors import PermanentError, TransientError, Unavailable, UncertainError
from core.types import (
    Author,
    ConversationId,
    Delivery,
    DeliveryId,
    InboxId,
    Incoming,
    IncomingChange,
    IncomingDeletion,
    IncomingEdit,
    IncomingFeedback,
    MessageId,
    Outcome,
    Receipt,
    Verdict,
)
from tests.emulators import slack as emulated
from tests.emulators.slack import SlackEmulator


@dataclass
class Notes:
    """A receiver that only notes what it is told, once per event and message."""

    stored: list[Incoming] = field(default_factory=list[Incoming])
    feedback: list[IncomingFeedback] = field(default_factory=list[IncomingFeedback])
    changes: list[IncomingChange] = field(default_factory=list[IncomingChange])
    ignored_for: list[str] = field(default_factory=list[str])
    rejected_for: list[str] = field(default_factory=list[str])
    shut_for: list[str] = field(default_factory=list[str])
    troubles: list[str | None] = field(default_factory=list[str | None])
    away: int = 0
    """How many more times the database is away."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def receive(self, incoming: Incoming) -> Receipt:
        if self.away:
            self.away -= 1
            await self._tell()
            raise Unavailable("The database is away")
        for known in self.stored:
            same = (known.chat, known.message_id) == (incoming.chat, incoming.message_id)
            if same or known.event_id == incoming.event_id:
                return Receipt(Outcome.DUPLICATE)
        self.stored.append(incoming)
        await self._tell()
        return Receipt(Outcome.STORED)

    async def change(self, change: IncomingChange) -> Receipt:
        self.changes.append(change)
        return Receipt(Outcome.STORED)

    async def give_feedback(self, feedback: IncomingFeedback) -> Receipt:
        if feedback in self.feedback:
            return Receipt(Outcome.DUPLICATE)
        self.feedback.append(feedback)
        return Receipt(Outcome.STORED)

    def ignored(self, reason: str) -> None:
        self.ignored_for.append(reason)

    def rejected(self, reason: str) -> None:
        self.rejected_for.append(reason)

    async def starters(self, limit: int) -> list[str]:
        return ["How do I send something back?", "When do you open?"][:limit]

    async def shut(self, trouble: str) -> None:
        self.shut_for.append(trouble)

    async def report_trouble(self, trouble: str | None) -> None:
        self.troubles.append(trouble)
        await self._tell()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, true: Callable[[], bool]) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(true), 20)


def settings_for(slack: SlackEmulator, **more: Any) -> SlackSettings:
    given = {
        "bot_token": SecretStr(slack.bot_token),
        "signing_secret": SecretStr(slack.signing_secret),
        "api_url": slack.url,
    }
    return SlackSettings.model_validate(given | more)


@asynccontextmanager
async def started(settings: SlackSettings) -> AsyncGenerator[Slack]:
    channel = Slack(settings)
    await channel.start()
    try:
        yield channel
    finally:
        await channel.close()


@asynccontextmanager
async def serving(channel: Slack, notes: Notes) -> AsyncGenerator[httpx.AsyncClient]:
    """The channel's routes on a real port, with a client for them."""
    app = FastAPI()
    app.include_router(channel.routes(notes))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    ready = asyncio.Event()
    startup = server.startup

    async def announced(*args: Any, **more: Any) -> None:
        await startup(*args, **more)
        ready.set()

    server.startup = announced  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve())
    await ready.wait()
    port = server.servers[0].sockets[0].getsockname()[1]
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        yield client
    server.should_exit = True
    await task


@pytest.fixture
async def slack() -> AsyncIterator[SlackEmulator]:
    async with SlackEmulator() as running:
        yield running


@pytest.fixture
async def channel(slack: SlackEmulator) -> AsyncIterator[Slack]:
    async with started(settings_for(slack)) as running:
        yield running


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
async def gateway(channel: Slack, notes: Notes) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(channel, notes) as client:
        yield client


def a_delivery(text: str = "It is on its way.", **more: Any) -> Delivery:
    delivery = Delivery(
        id=DeliveryId(uuid4()),
        inbox_id=InboxId(1),
        conversation_id=ConversationId(uuid4()),
        message_id=MessageId(uuid4()),
        chat="D0001",
        author=Author.BOT,
        text=text,
        claimed_at=datetime.now(UTC),
    )
    return replace(delivery, **more)


# --- what comes in -----------------------------------------------------------------------------


async def test_an_event_delivered_three_times_is_stored_once(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    event = slack.mention("Where is my parcel?")

    for attempt in range(3):
        response = await gateway.post("/slack/events", **slack.signed(event, retry=attempt))
        assert response.status_code == 200

    assert [said.text for said in notes.stored] == ["Where is my parcel?"]


@pytest.mark.parametrize("mention_first", [True, False])
async def test_a_mention_that_arrives_as_two_events_is_stored_once(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes, mention_first: bool
) -> None:
    mention = slack.mention("Where is my parcel?")
    events = [mention, slack.twin(mention)]

    for event in events if mention_first else reversed(events):
        await gateway.post("/slack/events", **slack.signed(event))

    assert [(said.text, said.addressed, said.thread) for said in notes.stored] == [
        ("Where is my parcel?", True, mention.ts)
    ]


async def test_edits_and_deletions_are_passed_on(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    said = slack.direct("Where is my pracel?")
    events = [said, slack.edited(said, "Where is my parcel?"), slack.deleted(said)]

    for event in events:
        response = await gateway.post("/slack/events", **slack.signed(event))
        assert response.status_code == 200

    chat = notes.stored[0].chat
    assert notes.changes == [
        IncomingEdit(chat, said.ts, "Where is my parcel?"),
        IncomingDeletion(chat, said.ts),
    ]


async def test_who_opens_the_assistants_pane_is_offered_questions(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    pane = {"user_id": "U0001", "channel_id": "D0001", "thread_ts": "1700000000.000001"}
    event = {"type": "assistant_thread_started", "assistant_thread": pane}

    await gateway.post("/slack/events", **slack.signed(slack.envelope(event)))
    await slack.called("assistant.threads.setSuggestedPrompts")

    (offered,) = slack.prompts
    assert (offered["channel_id"], offered["thread_ts"]) == ("D0001", "1700000000.000001")
    assert [prompt["message"] for prompt in offered["prompts"]] == await notes.starters(4)


@pytest.mark.parametrize(
    "event",
    [{"type": "app_uninstalled"}, {"type": "tokens_revoked", "tokens": {"bot": ["U0BOT"]}}],
)
async def test_an_app_that_was_removed_shuts_its_inbox(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes, event: dict[str, Any]
) -> None:
    response = await gateway.post("/slack/events", **slack.signed(slack.envelope(event)))

    assert response.status_code == 200
    assert len(notes.shut_for) == 1
    assert "install" in notes.shut_for[0]


async def test_a_persons_own_token_that_is_revoked_shuts_nothing(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    event = {"type": "tokens_revoked", "tokens": {"oauth": ["U0001"]}}

    await gateway.post("/slack/events", **slack.signed(slack.envelope(event)))

    assert notes.shut_for == []


async def test_a_thumb_under_a_post_is_a_verdict_on_it(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    item = {"type": "message", "channel": "C0001", "ts": "1700000000.000001"}
    thumb = {"type": "reaction_added", "user": "U0001", "reaction": "-1::skin-tone-2", "item": item}
    events = [slack.envelope(thumb), slack.envelope(thumb | {"reaction": "tada"})]

    for event in events:
        await gateway.post("/slack/events", **slack.signed(event))

    (told,) = notes.feedback
    assert (told.verdict, told.chat, told.external_id) == (Verdict.DOWN, "C0001", item["ts"])


async def test_slack_gets_a_5xx_while_the_database_is_away_and_its_retry_is_stored(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    notes.away = 2
    slack.events_url = f"{str(gateway.base_url).rstrip('/')}/slack/events"

    status = await slack.push(slack.direct("Are you there?"))

    assert status == 200
    assert [code for _, code in slack.deliveries] == [503, 503, 200]
    assert [said.text for said in notes.stored] == ["Are you there?"]


BROKEN = [
    ("a wrong signature", {"X-Slack-Signature": "v0=" + "0" * 64}, None),
    ("a missing signature", {"X-Slack-Signature": None}, None),
    ("a signature that is not ASCII", {"X-Slack-Signature": "v0=é".encode("latin-1")}, None),
    ("a missing timestamp", {"X-Slack-Request-Timestamp": None}, None),
    ("a timestamp in words", {"X-Slack-Request-Timestamp": "yesterday"}, None),
    ("another body", {}, b'{"type": "event_callback"}'),
]


@pytest.mark.parametrize("path", ["/slack/events", "/slack/interactions", "/slack/commands"])
@pytest.mark.parametrize(
    ("headers", "content"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
async def test_a_request_that_slack_did_not_sign_gets_401(
    slack: SlackEmulator,
    gateway: httpx.AsyncClient,
    notes: Notes,
    path: str,
    headers: dict[str, Any],
    content: bytes | None,
) -> None:
    call = slack.signed(slack.direct("Let me in"))
    kept = {k: v for k, v in {**call["headers"], **headers}.items() if v is not None}

    response = await gateway.post(path, content=content or call["content"], headers=kept)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "unauthorized"
    assert notes.stored == []
    assert len(notes.rejected_for) == 1


async def test_a_stale_request_gets_401(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes
) -> None:
    stale = slack.signed(slack.direct("hello"), skew=-305)

    response = await gateway.post("/slack/events", **stale)

    assert response.status_code == 401
    assert notes.rejected_for == ["a signature that is too old"]


@pytest.mark.parametrize("body", [b"{broken", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000, b""])
async def test_a_signed_body_that_is_no_event_gets_401(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes, body: bytes
) -> None:
    timestamp = str(int(slack.clock()))
    headers = {
        "Content-Type": "application/json",
        "X-Slack-Request-Timestamp": timestamp,
        "X-Slack-Signature": slack.signature(body, timestamp),
    }

    response = await gateway.post("/slack/events", content=body, headers=headers)

    assert response.status_code == 401
    assert notes.stored == []


async def test_a_body_over_a_megabyte_gets_413(gateway: httpx.AsyncClient, notes: Notes) -> None:
    response = await gateway.post("/slack/events", content=b"x" * 1_000_001)

    assert response.status_code == 413
    assert len(notes.rejected_for) == 1


async def test_refused_requests_leave_no_secret_in_the_log(
    slack: SlackEmulator, gateway: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    call = slack.signed(slack.direct("my secret words"))
    call["headers"]["X-Slack-Signature"] = "v0=" + "ab" * 32

    await gateway.post("/slack/events", **call)

    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpcore", "httpx"))]
    for secret in ("ab" * 32, "my secret words", slack.signing_secret, slack.bot_token):
        assert not any(secret in line for line in ours)


async def test_a_new_address_is_confirmed_before_there_is_an_installation(
    slack: SlackEmulator, notes: Notes
) -> None:
    settings = settings_for(slack, bot_token=None)
    async with started(settings) as channel, serving(channel, notes) as gateway:
        response = await gateway.post(
            "/slack/events", **slack.signed(slack.url_verification("abc"))
        )

    assert response.status_code == 200
    assert response.json() == {"challenge": "abc"}


@pytest.mark.parametrize("kind", ["app_home_opened", "never_heard_of"])
async def test_an_unknown_kind_of_event_is_answered_200_and_counted(
    slack: SlackEmulator, gateway: httpx.AsyncClient, notes: Notes, kind: str
) -> None:
    event = slack.envelope({"type": kind, "user": "U0001", "event_ts": slack.next_ts()})

    response = await gateway.post("/slack/events", **slack.signed(event))

    assert response.status_code == 200
    assert notes.ignored_for == [f"an event of type {kind}"]


async def test_our_own_posts_and_other_bots_are_not_answered(
    slack: SlackEmulator, gateway: httpx.AsyncClient, channel: Slack, notes: Notes
) -> None:
    await channel.send(a_delivery(), 0)
    echo = slack.own_post_event(slack.posted[0])
    other = slack.direct("beep", user="U0OTHER", bot_id="B0OTHER")

    for event in (echo, other):
        response = await gateway.post("/slack/events", **slack.signed(event))
        assert response.status_code == 200

    assert notes.stored == []
    assert len(notes.ignored_for) == 2


async def test_events_are_stored_while_slack_does_not_say_who_we_are(
    slack: SlackEmulator, notes: Notes
) -> None:
    slack.fail("auth.test", emulated.Refused("internal_error"), times=1_000)
    async with started(settings_for(slack)) as channel, serving(channel, notes) as gateway:
        await slack.called("auth.test")
        mention = slack.mention("Where is my parcel?")
        for event in (slack.twin(mention), mention):
            response = await gateway.post("/slack/events", **slack.signed(event))
            assert response.status_code == 200

    assert [said.text for said in notes.stored] == ["Where is my parcel?"]


async def test_a_failed_auth_test_is_asked_again(slack: SlackEmulator) -> None:
    slack.fail("auth.test", emulated.ServerError())
    async with started(settings_for(slack)) as channel:
        await slack.called("auth.test", 2)
        identity = await asyncio.wait_for(channel.identified(), 20)

    assert (identity.user, identity.bot) == (emulated.BOT_USER, emulated.BOT_ID)


# --- buttons and commands ----------------------------------------------------------------------


async def test_a_button_pressed_twice_is_one_message(
    slack: SlackEmulator, gateway: httpx.AsyncClient, channel: Slack, notes: Notes
) -> None:
    await channel.send(a_delivery(suggestions=("How do I return it?",), rateable=True), 0)
    press = slack.press(slack.posted[0], "How do I return it?")

    for _ in range(2):
        response = await gateway.post(
            "/slack/interactions", **slack.signed_form({"payload": press})
        )
        assert (response.status_code, response.text) == (200, "")

    assert [(said.text, said.chat) for said in notes.stored] == [("How do I return it?", "D0001")]


async def test_thumbs_reach_us_as_feedback_on_the_message(
    slack: SlackEmulator, gateway: httpx.AsyncClient, channel: Slack, notes: Notes
) -> None:
    delivery = a_delivery(rateable=True)
    await channel.send(delivery, 0)
    press = slack.press(slack.posted[0], "👍")

    await gateway.post("/slack/interactions", **slack.signed_form({"payload": press}))

    assert [(f.verdict, f.message_id) for f in notes.feedback] == [
        (Verdict.UP, delivery.message_id)
    ]


async def test_a_command_is_answered_at_once_and_its_reply_comes_directly(
    slack: SlackEmulator, gateway: httpx.AsyncClient, channel: Slack, notes: Notes
) -> None:
    response = await gateway.post(
        "/slack/commands", **slack.signed_form(slack.command("Where is my parcel?"))
    )

    assert response.json()["response_type"] == "ephemeral"
    (said,) = notes.stored
    await channel.send(a_delivery(chat=said.chat), 0)
    assert slack.posted[0].channel == "D0001"


# --- what goes out -----------------------------------------------------------------------------


async def test_a_reply_carries_its_mark_and_unfurls_nothing(
    slack: SlackEmulator, channel: Slack
) -> None:
    parent = slack.mention("Where is my parcel?").ts
    delivery = a_delivery(chat="C0001", thread=parent, private=False)

    ts = await channel.send(delivery, 0)

    (post,) = slack.posted
    assert (post.ts, post.thread, post.unfurl) == (ts, parent, False)
    assert post.metadata == {
        "event_type": "deskhand_delivery",
        "event_payload": {"delivery_id": str(delivery.id), "part": 0},
    }


async def test_a_wait_that_slack_asks_for_is_passed_on_for_the_whole_workspace(
    slack: SlackEmulator, channel: Slack
) -> None:
    slack.fail("chat.postMessage", emulated.RateLimited(3))

    with pytest.raises(TransientError) as refused:
        await channel.send(a_delivery(), 0)

    assert (refused.value.retry_after, refused.value.whole_inbox) == (3.0, True)
    assert len(slack.calls("chat.postMessage")) == 1
    assert slack.posted == []


@pytest.mark.parametrize(
    "fault",
    [
        emulated.Reset(stored=True),
        emulated.ServerError(500, stored=True),
        emulated.ServerError(503, stored=True),
        emulated.Garbage(stored=True),
        emulated.Garbage("", stored=True),
    ],
)
@pytest.mark.parametrize("threaded", [True, False])
async def test_a_post_whose_answer_was_lost_is_found_by_its_mark(
    slack: SlackEmulator, channel: Slack, fault: emulated.Fault, threaded: bool
) -> None:
    thread = slack.direct("Where is my parcel?").ts if threaded else None
    delivery = a_delivery("word " * 1_000, thread=thread)
    await channel.send(delivery, 0)
    slack.fail("chat.postMessage", fault)

    with pytest.raises(UncertainError):
        await channel.send(delivery, 1)

    assert await channel.find_sent(delivery, 0) == slack.posted[0].ts
    assert await channel.find_sent(delivery, 1) == slack.posted[1].ts
    assert len(slack.posted) == 2


@pytest.mark.parametrize(
    "fault",
    [emulated.Reset(stored=False), emulated.ServerError(stored=False), emulated.Garbage()],
)
async def test_a_post_that_slack_did_not_take_is_surely_not_found(
    slack: SlackEmulator, channel: Slack, fault: emulated.Fault
) -> None:
    delivery = a_delivery()
    slack.fail("chat.postMessage", fault)

    with pytest.raises(UncertainError):
        await channel.send(delivery, 0)

    assert await channel.find_sent(delivery, 0) is None
    assert len(slack.calls("chat.postMessage")) == 1


async def test_a_look_up_reads_on_over_many_pages(slack: SlackEmulator, channel: Slack) -> None:
    delivery = a_delivery()
    await channel.send(delivery, 0)
    for number in range(450):
        slack.direct(f"message {number}")

    assert await channel.find_sent(delivery, 0) == slack.posted[0].ts
    assert len(slack.calls("conversations.history")) == 3


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (emulated.RateLimited(7), TransientError),
        (emulated.ServerError(), TransientError),
        (emulated.Reset(), TransientError),
        (emulated.Garbage(), TransientError),
        (emulated.Refused("missing_scope"), UncertainError),
        (emulated.Refused("channel_not_found"), UncertainError),
    ],
)
async def test_a_look_up_that_fails_never_says_that_nothing_was_posted(
    slack: SlackEmulator, channel: Slack, fault: emulated.Fault, wanted: type[Exception]
) -> None:
    slack.fail("conversations.history", fault, times=3)  # a dropped GET is repeated once

    with pytest.raises(wanted):
        await channel.find_sent(a_delivery(), 0)


async def test_a_refused_connection_is_surely_not_sent(
    slack: SlackEmulator, channel: Slack
) -> None:
    await slack.called("auth.test")
    await slack.go_away()

    with pytest.raises(TransientError):
        await channel.send(a_delivery(), 0)

    await slack.come_back()
    await channel.send(a_delivery(), 0)
    assert len(slack.posted) == 1


async def test_nine_thousand_characters_become_posts_within_the_limits_in_order(
    slack: SlackEmulator, channel: Slack
) -> None:
    code = "\n".join(f"line {number} of <code> & more" for number in range(200))
    text = f"Begin.\n\n```sh\n{code}\n```\n\n" + "An end & a half. " * 150
    delivery = a_delivery(text, is_markdown=True)

    for part in range(channel.parts(delivery)):
        await channel.send(delivery, part)

    assert channel.parts(delivery) > 2
    assert len(slack.posted) == channel.parts(delivery)  # Slack made no further posts of them
    assert (
        "\n".join(post.shown for post in slack.posted).split()
        == text.replace("```sh", "").replace("```", "").split()
    )
    assert all(post.text.count("```") % 2 == 0 for post in slack.posted)


@pytest.mark.parametrize("is_markdown", [True, False])
async def test_nothing_in_a_reply_pings_anybody(
    slack: SlackEmulator, channel: Slack, is_markdown: bool
) -> None:
    text = "<!channel> <@U1> <!subteam^S1> @here"

    await channel.send(a_delivery(text, is_markdown=is_markdown, suggestions=(text,)), 0)

    assert slack.posted[0].shown == text
    assert slack.posted[0].pings == []


async def test_blocks_that_slack_refuses_are_sent_again_as_plain_text(
    slack: SlackEmulator, channel: Slack
) -> None:
    slack.fail("chat.postMessage", emulated.Refused("invalid_blocks"))
    delivery = a_delivery("**Free** <!channel>", is_markdown=True, suggestions=("More?",))

    ts = await channel.send(delivery, 0)

    (post,) = slack.posted
    assert (post.ts, post.blocks, post.mrkdwn) == (ts, [], False)
    assert post.shown == "Free <!channel>"
    assert post.pings == []
    assert await channel.find_sent(delivery, 0) == ts


@pytest.mark.parametrize(
    ("error", "inbox", "contact"),
    [
        ("account_inactive", True, False),
        ("token_revoked", True, False),
        ("is_archived", False, True),
        ("channel_not_found", False, True),
        ("msg_too_long", False, False),
        ("something_new", False, False),
    ],
)
async def test_a_dead_end_is_permanent_and_says_whose(
    slack: SlackEmulator, channel: Slack, error: str, inbox: bool, contact: bool
) -> None:
    slack.fail("chat.postMessage", emulated.Refused(error))

    with pytest.raises(PermanentError) as refused:
        await channel.send(a_delivery(), 0)

    assert (refused.value.inbox_gone, refused.value.contact_gone) == (inbox, contact)
    assert error in str(refused.value)
    assert len(slack.calls("chat.postMessage")) == 1


async def test_the_status_shows_in_a_thread_and_its_failure_disturbs_nobody(
    slack: SlackEmulator, channel: Slack
) -> None:
    parent = slack.mention("Where is my parcel?").ts
    slack.fail("assistant.threads.setStatus", emulated.Refused("missing_scope"))

    await channel.show_working("C0001", parent)
    await channel.show_working("C0001", parent)
    await channel.show_working("D0009", None)  # nothing was said there: no place to show it

    (status,) = slack.statuses
    assert (status["channel_id"], status["thread_ts"]) == ("C0001", parent)
    assert status["status"]


async def test_in_a_direct_conversation_the_status_stands_by_the_question_until_the_reply(
    slack: SlackEmulator, gateway: httpx.AsyncClient, channel: Slack
) -> None:
    question = slack.direct("Where is my parcel?")
    await gateway.post("/slack/events", **slack.signed(question))

    await channel.show_working("D0001", None)
    await channel.send(a_delivery(reply_to=question.ts), 0)

    await slack.until(lambda: len(slack.statuses) == 2)
    assert [(s["thread_ts"], bool(s["status"])) for s in slack.statuses] == [
        (question.ts, True),
        (question.ts, False),
    ]


async def test_errors_hold_no_token(
    slack: SlackEmulator, channel: Slack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in (emulated.ServerError(), emulated.Refused("invalid_auth"), emulated.Reset()):
        slack.fail("chat.postMessage", fault)
        with pytest.raises((UncertainError, PermanentError)) as refused:
            await channel.send(a_delivery(), 0)
        assert slack.bot_token not in str(refused.value)
        assert slack.bot_token not in repr(refused.value.__cause__)
    assert not any(slack.bot_token in record.getMessage() for record in caplog.records)


# --- Socket Mode -------------------------------------------------------------------------------


@asynccontextmanager
async def polling(slack: SlackEmulator, notes: Notes) -> AsyncGenerator[Slack]:
    settings = settings_for(slack, app_token=SecretStr(slack.app_token))
    stop = asyncio.Event()
    async with started(settings) as channel:
        task = asyncio.create_task(channel.poll(notes, stop))
        try:
            yield channel
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)


async def test_a_socket_event_is_acknowledged_once_it_is_stored(
    slack: SlackEmulator, notes: Notes
) -> None:
    async with polling(slack, notes):
        await slack.connected(2)
        key = await slack.send_envelope(slack.mention("Where is my parcel?"))

        assert await slack.acked_count(1) == [key]
        assert [said.text for said in notes.stored] == ["Where is my parcel?"]
        assert notes.troubles == [None]


async def test_a_socket_event_that_was_not_stored_is_not_acknowledged_and_comes_again(
    slack: SlackEmulator, notes: Notes
) -> None:
    notes.away = 1
    async with polling(slack, notes):
        await slack.connected()
        await slack.send_envelope(slack.direct("Are you there?"))
        await notes.until(lambda: notes.away == 0)
        assert (notes.stored, slack.acked) == ([], [])

        await slack.resend_unacked()

        await slack.acked_count(1)
        assert [said.text for said in notes.stored] == ["Are you there?"]


@pytest.mark.parametrize("reason", ["warning", "refresh_requested", "too_many_websockets", "drop"])
async def test_no_event_is_lost_or_stored_twice_when_sockets_end(
    slack: SlackEmulator, notes: Notes, reason: str
) -> None:
    async with polling(slack, notes):
        await slack.connected(2)
        for number in range(20):
            await slack.send_envelope(slack.direct(f"question {number}"))
            if number == 10:
                await (slack.drop_sockets() if reason == "drop" else slack.disconnect(reason))

        await slack.acked_count(20)
        assert sorted(said.text for said in notes.stored) == sorted(
            f"question {number}" for number in range(20)
        )


async def test_a_command_over_a_socket_is_answered_in_its_acknowledgement(
    slack: SlackEmulator, notes: Notes
) -> None:
    async with polling(slack, notes):
        await slack.connected()
        await slack.send_envelope(slack.command("Where is my parcel?"), "slash_commands")
        await slack.acked_count(1)

    assert slack.responses[0]["response_type"] == "ephemeral"
    assert len(notes.stored) == 1


async def test_odd_frames_do_not_end_a_connection(slack: SlackEmulator, notes: Notes) -> None:
    async with polling(slack, notes):
        await slack.connected(2)
        await slack.send_envelope({"type": "event_callback", "event": "odd"})
        await slack.send_envelope(json.loads("{}"))
        await slack.send_envelope(slack.direct("hello"))

        await slack.acked_count(3)
        assert [said.text for said in notes.stored] == ["hello"]


async def test_a_refused_app_token_is_shown_to_staff(slack: SlackEmulator, notes: Notes) -> None:
    slack.fail("apps.connections.open", emulated.Refused("invalid_auth"), times=100)

    async with polling(slack, notes):
        await notes.until(lambda: bool(notes.troubles))

    assert "SLACK_APP_TOKEN" in (notes.troubles[0] or "")
