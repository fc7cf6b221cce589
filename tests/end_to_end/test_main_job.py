"""A question in chat becomes a grounded reply: through every part, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.conftest import fresh_database
from tests.emulators.slack import Reset, SlackEmulator
from tests.emulators.telegram import TelegramEmulator
from tests.end_to_end.stack import Stack, running
from tests.services import Server, Valkey

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

QUESTIONS = (
    "How long do I have to send something back?",
    "Which payment methods do you take?",
    "Do you ship to Germany?",
    "How can I use a gift card?",
    "How do I get an invoice?",
)


@dataclass
class Whole:
    """The product between its emulated platforms."""

    stack: Stack
    slack: SlackEmulator
    telegram: TelegramEmulator
    broker: Server


@pytest.fixture(scope="module")
def module_url(server_url: str, shop_template_url: str) -> Iterator[str]:
    with fresh_database(server_url, shop_template_url) as url:
        yield url


@pytest.fixture(scope="module")
def module_data(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    (folder / "models").symlink_to(models_dir)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def whole(module_url: str, module_data: Path) -> AsyncIterator[Whole]:
    broker = Valkey()
    broker.start()
    try:
        async with SlackEmulator() as slack, TelegramEmulator() as telegram:
            settings = {
                "SLACK_BOT_TOKEN": slack.bot_token,
                "SLACK_SIGNING_SECRET": slack.signing_secret,
                "SLACK_API_URL": slack.url,
                "TELEGRAM_BOT_TOKEN": telegram.token,
                "TELEGRAM_API_URL": telegram.url,
                "DESKHAND_REPLY_STYLE": "generated",
                "DESKHAND_REPLY_DEADLINE": "60",
            }
            stack = Stack(module_data, module_url, broker.url, settings)
            async with running(stack):
                yield Whole(stack, slack, telegram, broker)
    finally:
        broker.stop()


async def claimed(whole: Whole, conversation: str) -> None:
    """Wait until the worker has a conversation in hand, and stop it there."""
    stack = whole.stack

    async def has_lease() -> bool:
        return bool(
            await stack.value(
                "select lease_owner is not null from conversation where key = %(key)s",
                key=conversation,
            )
        )

    await stack.until(has_lease, "claimed", 20.0)
    stack.roles["worker"].process.send_signal(signal.SIGSTOP)
    assert await has_lease(), "the reply was faster than this test; ask something longer"
    assert await stack.replies(conversation) == []


async def test_a_question_gets_one_grounded_reply_with_its_source(whole: Whole):
    reply = await whole.stack.ask("How long do I have to send something back?")

    assert reply["author"] == "bot"
    assert reply["decision"] == "answer"
    assert reply["citations"], reply
    assert reply["text"]


async def test_a_message_sent_again_under_its_id_is_answered_once(whole: Whole):
    for _ in range(3):
        await whole.stack.say("idempotent", "Do you ship to Germany?", "one-id")
    await whole.stack.settled()

    assert len(await whole.stack.messages("idempotent")) == 2


async def test_two_quick_messages_get_one_reply_after_the_last(whole: Whole):
    await whole.stack.say("quick", "hello")
    await whole.stack.say("quick", "which payment methods do you take")
    await whole.stack.settled()

    authors = [message["author"] for message in await whole.stack.messages("quick")]
    assert authors == ["customer", "customer", "bot"]


async def test_a_slack_event_delivered_three_times_is_answered_once(whole: Whole):
    event = whole.slack.mention("How long do I have to send something back?")
    before = len(whole.slack.posted)

    for retry in range(3):
        request = whole.slack.signed(event, retry=retry)
        response = await whole.stack.http.post("/slack/events", **request)
        assert response.status_code == 200
    await whole.stack.settled()

    (post,) = whole.slack.posted[before:]
    assert post.thread == event.ts


async def test_a_direct_message_is_answered_where_it_was_written(whole: Whole):
    before = len(whole.slack.posted)
    event = whole.slack.direct("Do you ship to Germany?")
    await whole.stack.http.post("/slack/events", **whole.slack.signed(event))
    await whole.stack.settled()

    (post,) = whole.slack.posted[before:]
    assert post.thread is None


async def test_slack_stores_the_post_and_drops_the_connection_one_message(whole: Whole):
    before = len(whole.slack.posted)
    whole.slack.fail("chat.postMessage", Reset(stored=True))
    event = whole.slack.direct("Which payment methods do you take?")
    await whole.stack.http.post("/slack/events", **whole.slack.signed(event))
    await whole.stack.settled()

    assert len(whole.slack.posted) == before + 1
    assert (
        await whole.stack.value("select state from delivery order by created_at desc limit 1")
        == "sent"
    )


async def test_slack_shows_that_the_bot_is_at_work(whole: Whole):
    before = len(whole.slack.calls("assistant.threads.setStatus"))
    event = whole.slack.mention("How do I get an invoice?")
    await whole.stack.http.post("/slack/events", **whole.slack.signed(event))
    await whole.slack.called("assistant.threads.setStatus", before + 1)
    await whole.stack.settled()


async def test_a_telegram_message_is_answered_in_its_chat(whole: Whole):
    before = len(whole.telegram.sent)
    await whole.telegram.say("Do you ship to Germany?")
    sent = await whole.telegram.sent_count(before + 1)
    await whole.stack.settled()

    assert len(whole.telegram.sent) == before + 1
    assert sent[-1].text
    assert "typing" in [
        call.fields.get("action") for call in whole.telegram.called("sendChatAction")
    ]


async def test_an_agent_takes_over_and_speaks_on_the_customers_channel(whole: Whole):
    event = whole.slack.direct("I want to talk to a human please", user="U0007")
    await whole.stack.http.post("/slack/events", **whole.slack.signed(event))
    await whole.stack.settled()
    listed = await whole.stack.http.get("/v1/conversations", params={"holder": "waiting"})
    waiting = listed.json()["conversations"]
    (conversation,) = [c for c in waiting if c["channel"] == "slack"]
    before = len(whole.slack.posted)

    for move, body in [
        ("take", {"agent": "ann"}),
        ("say", {"agent": "ann", "text": "Hello, Ann here."}),
    ]:
        response = await whole.stack.http.post(
            f"/v1/conversations/{conversation['id']}/{move}", json=body
        )
        assert response.status_code == 200, response.text
    await whole.stack.settled()
    follow_up = whole.slack.direct("are you there?", user="U0007")
    await whole.stack.http.post("/slack/events", **whole.slack.signed(follow_up))
    await whole.stack.settled()

    assert [post.text for post in whole.slack.posted[before:]] == ["Hello, Ann here."]


async def test_an_edited_answer_is_live_within_a_second_and_nothing_else_is_encoded(whole: Whole):
    stack = whole.stack
    created = await stack.http.post(
        "/v1/faq",
        json={
            "question": "Do you sell the Zanzibar hammock stand?",
            "answer": "Yes, the Zanzibar hammock stand costs 119 euros.",
            "status": "published",
        },
    )
    assert created.status_code in (200, 201), created.text
    entry = created.json()
    vectors = await stack.value("select count(*) from embedding")

    async def finds(text: str) -> bool:
        found = await stack.http.get("/v1/faq/search", params={"q": "Zanzibar hammock stand"})
        return any(text in passage["answer"] for passage in found.json().get("passages", []))

    await stack.until(lambda: finds("119"), "found")
    edited = await stack.http.patch(
        f"/v1/faq/{entry['id']}", json={"answer": "Yes, the stand now costs 129 euros."}
    )
    assert edited.status_code == 200, edited.text
    await stack.until(lambda: finds("129"), "live")

    assert await stack.value("select count(*) from embedding") <= vectors + 3


async def test_twenty_conversations_at_once_each_get_their_own_replies_in_order(whole: Whole):
    names = [f"crowd-{number}" for number in range(20)]

    for round_number in range(2):
        await asyncio.gather(
            *(
                whole.stack.say(name, QUESTIONS[(number + round_number) % len(QUESTIONS)])
                for number, name in enumerate(names)
            )
        )
        await whole.stack.settled(120.0)

    for name in names:
        said = await whole.stack.messages(name)
        assert [m["author"] for m in said] == ["customer", "bot", "customer", "bot"]


async def test_a_take_over_in_the_middle_of_a_generation_silences_the_bot(whole: Whole):
    name = f"taken-{uuid4().hex[:6]}"
    await whole.stack.say(name, "How long do I have to send something back and who pays?")
    await claimed(whole, name)
    response = await whole.stack.http.post(f"/v1/conversations/{name}/take", json={"agent": "ann"})
    whole.stack.roles["worker"].process.send_signal(signal.SIGCONT)
    await whole.stack.settled()
    await whole.stack.ask("Do you ship to Germany?")  # the worker is done with what it had begun

    assert response.status_code == 200
    assert await whole.stack.replies(name) == []


async def test_a_worker_killed_in_the_middle_of_a_reply_the_reply_comes_once(whole: Whole):
    name = f"killed-{uuid4().hex[:6]}"
    await whole.stack.say(name, "Which payment methods do you take, and when am I charged?")
    await claimed(whole, name)
    whole.stack.kill("worker")
    whole.stack.start("worker")
    await whole.stack.settled()

    assert len(await whole.stack.replies(name)) == 1


async def test_where_another_worker_runs_it_takes_over_from_one_that_is_killed(whole: Whole):
    stack = whole.stack
    stack.start("worker", "another")

    async def both_are_ready() -> bool:
        return await stack.value("select count(*) from process where role = 'worker'") == 2

    await stack.until(both_are_ready, "two workers")
    name = f"taken-over-{uuid4().hex[:6]}"
    await stack.say(name, "Which payment methods do you take, and when am I charged?")
    victim = await holder_of(stack, name)
    stack.kill(victim)
    await stack.settled()
    (replied,) = await stack.replies(name)
    if victim == "worker":  # the tests that follow know it by this name
        stack.roles["worker"] = stack.roles.pop("another")
    else:
        await stack.until(lambda: has_left(stack), "forgotten")

    assert replied["author"] == "bot"


async def holder_of(stack: Stack, conversation: str) -> str:
    """Wait until a worker has a conversation in hand, stop it there, and return its name."""
    found: list[str] = []

    async def is_claimed() -> bool:
        owner = await stack.value(
            "select lease_owner from conversation where key = %(key)s", key=conversation
        )
        for name in ("worker", "another"):
            if owner and f":{stack.roles[name].process.pid}:" in owner:
                stack.roles[name].process.send_signal(signal.SIGSTOP)
                found.append(name)
        return bool(found)

    await stack.until(is_claimed, "claimed", 20.0)
    assert await stack.replies(conversation) == [], "the reply was faster than this test"
    return found[0]


async def has_left(stack: Stack) -> bool:
    """Tell whether the killed worker's heartbeat is old enough to be nobody's."""
    return bool(
        await stack.value(
            "select count(*) <= 1 from process where role = 'worker'"
            " and seen_at > now() - interval '5 seconds'"
        )
    )


async def test_the_broker_is_down_for_a_while_and_all_are_answered(whole: Whole):
    names = [f"broker-{number}" for number in range(5)]
    whole.broker.kill()
    for name in names:
        await whole.stack.say(name, "Do you ship to Germany?")

    async def is_noticed() -> bool:
        state = (await whole.stack.http.get("/readyz")).json()
        return not state["parts"]["broker"]["ok"]

    await whole.stack.until(is_noticed, "noticed")
    whole.broker.start()
    await whole.stack.settled()

    for name in names:
        assert len(await whole.stack.replies(name)) == 1


async def test_refused_requests_get_the_right_status_and_leave_no_secret_in_the_log(whole: Whole):
    slack, http = whole.slack, whole.stack.http
    event = slack.mention("hello")
    good = slack.signed(event)
    forged = {**good, "headers": {**good["headers"], "X-Slack-Signature": "v0=" + "0" * 64}}
    stale = slack.signed(event, skew=-301)
    unsigned = {"content": good["content"]}
    statuses = [
        (await http.post("/slack/events", **request)).status_code
        for request in (forged, stale, unsigned)
    ]
    stored = await whole.stack.value("select count(*) from message")

    assert statuses == [401, 401, 401]
    assert (await http.post("/v1/messages", content=b"{")).status_code in (400, 422)
    assert (await http.post("/v1/messages", content=b"x" * 1_100_000)).status_code == 413
    wrong = {"Authorization": "Bearer wrong-token-value"}
    assert (await http.post("/v1/messages", json={}, headers=wrong)).status_code == 401
    assert (await http.post("/telegram/webhook", json={"update_id": 1})).status_code == 403
    assert await whole.stack.value("select count(*) from message") == stored
    log = whole.stack.log()
    for secret in (slack.signing_secret, slack.bot_token, whole.telegram.token, "wrong-token"):
        assert secret not in log


async def test_metrics_and_health_tell_the_truth(whole: Whole):
    await whole.stack.ask("Do you ship to Germany?")
    metrics = (await whole.stack.http.get("/metrics")).text

    assert (await whole.stack.http.get("/healthz")).status_code == 200
    for name in (
        'deskhand_messages_total{channel="api",outcome="stored"}',
        "deskhand_turns_open 0.0",
        "deskhand_oldest_waiting_turn_seconds 0.0",
        'deskhand_deliveries{state="sent"}',
    ):
        assert name in metrics, metrics[:3000]
