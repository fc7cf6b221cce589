"""The HTTP API, over real HTTP on a real database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from core.db.connect import Database
from core.ports import Show
from core.types import MessageKind, Question, Reply
from tests.storage.served import AUTHORIZED, Stand, stand
from tests.storage.spine import said


@pytest.fixture
async def gateway(database: Database) -> AsyncIterator[Stand]:
    """A running gateway."""
    async with stand(database) as running:
        yield running


@pytest.fixture
async def api(gateway: Stand) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has the token."""
    async with gateway.client(headers=AUTHORIZED) as client:
        yield client


def message(id: str = "m1", conversation: str = "c1", text: str = "Where?") -> dict[str, Any]:
    return {
        "id": id,
        "conversation": conversation,
        "sender": {"id": "u1", "name": "Ann"},
        "text": text,
    }


async def events(client: httpx.AsyncClient, path: str, **options: Any) -> AsyncIterator[Any]:
    """Yield (name, id, data) of each event of a stream."""
    async with client.stream("GET", path, **options) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        async for line in response.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield fields.get("event"), fields.get("id"), json.loads(fields["data"])
                fields = {}


async def until(stream: AsyncIterator[Any], name: str, count: int) -> AsyncIterator[Any]:
    """Yield events until so many of that name have come."""
    while count:
        found = await anext(stream)
        count -= found[0] == name
        yield found


async def test_a_message_is_stored_and_its_reply_can_be_read(gateway, api):
    response = await api.post("/v1/messages", json=message())

    assert response.status_code == 202
    receipt = response.json()
    await gateway.doorbell.settled()
    read = (await api.get("/v1/conversations/c1/messages")).json()
    assert read["conversation_id"] == receipt["conversation_id"]
    assert [(m["author"], m["text"]) for m in read["messages"]] == [
        ("customer", "Where?"),
        ("bot", "You asked: Where?"),
    ]
    assert read["messages"][0]["id"] == receipt["message_id"]
    reply = read["messages"][1]
    assert reply["decision"] == "answer"
    assert reply["citations"] == []
    assert reply["created_at"].endswith("+00:00")
    assert len(reply["created_at"]) == len("2026-01-01T00:00:00.000000+00:00")


async def test_the_same_id_gets_the_first_receipt_and_no_second_reply(gateway, api):
    first = await api.post("/v1/messages", json=message())
    again = await api.post("/v1/messages", json=message(text="Something else"))

    assert (again.status_code, again.json()) == (202, first.json())
    await gateway.doorbell.settled()
    read = (await api.get("/v1/conversations/c1/messages")).json()
    assert len(read["messages"]) == 2


async def test_the_same_id_sent_at_once_many_times_is_stored_once(gateway, api):
    answers = await asyncio.gather(*(api.post("/v1/messages", json=message()) for _ in range(10)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["message_id"] for answer in answers}) == 1


@pytest.mark.parametrize("name", ["order 17/ü#?", "a/b/messages", "客服", "100%"])
async def test_a_conversation_is_named_as_it_was_sent_or_by_its_id(gateway, api, name):
    receipt = (await api.post("/v1/messages", json=message(conversation=name))).json()

    quoted = str(httpx.QueryParams({"x": name})).removeprefix("x=").replace("+", "%20")
    for path in (quoted, receipt["conversation_id"]):
        read = await api.get(f"/v1/conversations/{path}/messages")
        assert read.json()["conversation_id"] == receipt["conversation_id"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "x"}])
async def test_without_the_right_token_nothing_is_read_or_stored(gateway, headers):
    async with gateway.client(headers=headers) as stranger:
        responses = [
            await stranger.post("/v1/messages", json=message()),
            await stranger.get("/v1/conversations/c1/messages"),
            await stranger.get("/v1/conversations/c1/events"),
        ]

    for response in responses:
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "unauthorized"
        assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"text": " \n"}, "text"),
        ({"text": "x" * 8_001}, "text"),
        ({"text": "a\x00b"}, "text"),
        ({"text": "a\ud800b"}, "text"),
        ({"text": None}, "text"),
        ({"id": ""}, "id"),
        ({"id": "x" * 201}, "id"),
        ({"id": 17}, "id"),
        ({"id": "a\x00b"}, "id"),
        ({"conversation": "a\x00b"}, "conversation"),
        ({"conversation": ""}, "conversation"),
        ({"sender": {"id": "\x00"}}, "sender.id"),
        ({"sender": {"id": "u1", "name": "\x00"}}, "sender.name"),
        ({"sender": {"id": "u1", "name": "x" * 201}}, "sender.name"),
        ({"sender": {}}, "sender.id"),
        ({"sender": "u1"}, "sender"),
    ],
)
async def test_a_wrong_field_is_named_and_counted_as_rejected(gateway, api, change, field):
    labels = {"channel": "api", "outcome": "rejected"}
    before = REGISTRY.get_sample_value("deskhand_messages_total", labels) or 0

    response = await api.post("/v1/messages", content=json.dumps({**message(), **change}))

    assert response.status_code == 422
    assert response.json()["error"]["field"] == field
    assert (REGISTRY.get_sample_value("deskhand_messages_total", labels) or 0) == before + 1


async def test_odd_but_valid_text_is_kept_as_it_is(gateway, api):
    text = "  <b>&amp; \u202e \u200b 🧑‍🚀 \r\n\ttab '; drop table message; --  "

    await api.post("/v1/messages", json=message(text=text))

    read = (await api.get("/v1/conversations/c1/messages")).json()
    assert read["messages"][0]["text"] == text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000])
async def test_a_body_that_is_no_message_is_refused(gateway, api, body):
    response = await api.post("/v1/messages", content=body)

    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"]


async def test_a_form_is_refused_with_a_word_on_json(gateway, api):
    response = await api.post("/v1/messages", data={"text": "Where?"})

    assert response.status_code == 422
    assert "application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_a_megabyte_is_refused(gateway, api, chunked):
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100_000

    response = await api.post("/v1/messages", content=pieces() if chunked else b" " * 2_000_000)

    assert response.status_code == 413
    assert response.json()["error"]["code"] == "too_large"


async def test_a_person_can_be_asked_for_by_a_button(gateway, api):
    await api.post("/v1/messages", json={**message(text="A person, please"), "kind": "person"})
    await gateway.doorbell.settled()

    assert gateway.scripted.asked[0].kind is MessageKind.PERSON


async def test_a_verdict_on_a_reply_is_stored_once(gateway, api):
    await api.post("/v1/messages", json=message())
    await gateway.doorbell.settled()
    read = (await api.get("/v1/conversations/c1/messages")).json()
    verdict = {
        "id": "v1",
        "sender": {"id": "u1"},
        "message_id": read["messages"][1]["id"],
        "verdict": "up",
    }

    outcomes = [
        (await api.post("/v1/conversations/c1/feedback", json=verdict)).json()["outcome"]
        for _ in range(2)
    ]

    assert outcomes == ["stored", "duplicate"]


async def test_an_unknown_conversation_is_not_found(gateway, api):
    for path in ("messages", "events"):
        response = await api.get(f"/v1/conversations/nobody/{path}")
        assert response.status_code == 404
        assert response.json()["error"]["code"] == "not_found"


async def test_messages_are_read_on_from_a_position(gateway, api):
    await api.post("/v1/messages", json=message())
    await gateway.doorbell.settled()

    first = (await api.get("/v1/conversations/c1/messages?limit=1")).json()
    rest = (await api.get(f"/v1/conversations/c1/messages?after={first['next']}")).json()

    assert [m["author"] for m in first["messages"] + rest["messages"]] == ["customer", "bot"]
    assert rest["next"] is None


async def test_events_tell_of_each_message_and_of_the_work(gateway, api):
    gateway.doorbell.go.clear()
    await api.post("/v1/messages", json=message())

    stream = events(api, "/v1/conversations/c1/events")
    seen = [await anext(stream), await anext(stream)]
    gateway.doorbell.go.set()
    seen += [await anext(stream), await anext(stream)]
    await stream.aclose()

    assert [(name, data.get("author"), data.get("working")) for name, _, data in seen] == [
        (None, "customer", None),
        ("status", None, True),
        (None, "bot", None),
        ("status", None, False),
    ]
    whole = (await api.get("/v1/conversations/c1/messages")).json()["messages"]
    assert [seen[0][2], seen[2][2]] == whole


async def test_sentences_come_before_their_reply_and_again_to_who_comes_late(gateway, api):
    may_end = asyncio.Event()

    async def writes(question: Question, show: Show) -> Reply:
        await show("It takes 3 days.")
        await show("Islands take 5.")
        await may_end.wait()
        return said("It takes 3 days. Islands take 5. Weekends do not count.")

    gateway.scripted.shows = writes
    await api.post("/v1/messages", json=message())
    early, late = (events(api, "/v1/conversations/c1/events") for _ in range(2))
    named = [found async for found in until(early, "sentence", 2)]
    again = [found async for found in until(late, "sentence", 2)]
    may_end.set()
    reply = await anext(early)
    while reply[0] is not None:
        reply = await anext(early)
    await early.aclose()
    await late.aclose()

    told = [data for name, _, data in named if name == "sentence"]
    assert [(d["number"], d["text"]) for d in told] == [
        (1, "It takes 3 days."),
        (2, "Islands take 5."),
    ]
    assert [data for name, _, data in again if name == "sentence"] == told
    assert reply[2]["turn_id"] == told[0]["turn_id"]
    assert reply[2]["text"].startswith("It takes 3 days. Islands take 5. ")


@pytest.mark.parametrize("by_header", [True, False])
async def test_events_resume_after_the_last_one_seen(gateway, api, by_header):
    await api.post("/v1/messages", json=message())
    await gateway.doorbell.settled()
    options = {"headers": {"Last-Event-ID": "1"}} if by_header else {"params": {"after": 1}}

    stream = events(api, "/v1/conversations/c1/events", **options)
    name, position, data = await anext(stream)
    await stream.aclose()

    assert (name, position, data["author"]) == (None, "2", "bot")


async def test_open_streams_end_when_the_gateway_stops(gateway, api):
    await api.post("/v1/messages", json=message())
    await gateway.doorbell.settled()
    stream = events(api, "/v1/conversations/c1/events")
    await anext(stream)

    gateway.stopping.set()

    assert [name async for name, _, _ in stream] == [None, "status"]


async def test_a_database_that_is_away_is_503_with_a_time_to_come_back(gateway, api):
    await gateway.database.close()

    for response in (
        await api.post("/v1/messages", json=message()),
        await api.get("/v1/conversations/c1/messages"),
    ):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["code"] == "unavailable"
