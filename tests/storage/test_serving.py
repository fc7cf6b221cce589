"""What all routes share: health, metrics, error shapes, headers and the reference page."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter

from core.db import inboxes, processes
from core.db.connect import Database
from core.errors import PermanentError
from tests.storage.served import AUTHORIZED, Stand, stand

broken = APIRouter()


@broken.get("/broken")
async def broken_route() -> None:
    raise RuntimeError("the secret inside")


@broken.get("/broken-on-purpose")
async def broken_on_purpose() -> None:
    raise PermanentError("the secret inside")


@pytest.fixture
async def gateway(database: Database) -> AsyncIterator[Stand]:
    """A running gateway."""
    async with stand(database, routers=[broken], public_url="https://chat.example") as running:
        yield running


@pytest.fixture
async def client(gateway: Stand) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it."""
    async with gateway.client() as opened:
        yield opened


async def live(database: Database, *roles: str, ready: bool = True) -> None:
    async with database.transaction() as conn:
        for role in roles:
            await processes.beat(conn, f"{role}-1", role, ready=ready, detail={})


async def test_the_gateway_is_healthy_while_it_can_store(gateway, client):
    assert (await client.get("/healthz")).status_code == 200

    await gateway.database.close()

    response = await client.get("/healthz")
    assert response.status_code == 503
    assert response.headers["retry-after"]


async def test_it_is_ready_when_every_part_would_do_its_work(gateway, client):
    await live(gateway.database, "worker", "sender", "scheduler")

    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "parts": {
            name: {"ok": True} for name in ("database", "broker", "worker", "sender", "scheduler")
        },
        "inboxes": {name: {"channel": name, "ok": True} for name in ("api", "web")},
        "models": {},
    }


async def test_a_model_that_is_away_is_named_while_approved_answers_are_given(gateway, client):
    await live(gateway.database, "sender", "scheduler")
    detail = {"model_troubles": {"the reply model": "its server answered 503"}}
    async with gateway.database.transaction() as conn:
        await processes.beat(conn, "worker-1", "worker", ready=True, detail=detail)

    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["models"] == {
        "the reply model": {"ok": False, "trouble": "its server answered 503"}
    }


async def test_readiness_names_the_part_that_is_missing(gateway, client):
    await live(gateway.database, "worker", ready=False)
    await live(gateway.database, "sender", "scheduler")
    gateway.broker.append("no connection")

    response = await client.get("/readyz")

    assert response.status_code == 503
    parts = response.json()["parts"]
    assert [name for name, part in parts.items() if not part["ok"]] == ["broker", "worker"]
    assert parts["worker"]["trouble"] == "the worker is not ready yet"


async def test_readiness_survives_a_database_that_is_away(gateway, client):
    await gateway.database.close()

    response = await client.get("/readyz")

    assert response.status_code == 503
    assert not response.json()["parts"]["database"]["ok"]


async def test_trouble_of_one_inbox_is_listed_but_the_rest_is_ready(gateway, client):
    await live(gateway.database, "worker", "sender", "scheduler")
    async with gateway.database.transaction() as conn:
        slack = await inboxes.ensure_inbox(conn, "slack", "slack")
        await inboxes.switch_off(conn, slack.id, "the token was revoked")

    response = await client.get("/readyz")

    assert response.status_code == 200
    assert response.json()["inboxes"]["slack"] == {
        "channel": "slack",
        "ok": False,
        "trouble": "the token was revoked",
    }


async def test_metrics_have_the_names_that_dashboards_rely_on(gateway, client):
    gateway.doorbell.go.clear()
    for number in range(2):
        await client.post(
            "/v1/messages",
            json={"id": f"m{number}", "conversation": "c", "sender": {"id": "u"}, "text": "Where?"},
            headers=AUTHORIZED,
        )

    waiting = (await client.get("/metrics")).text
    gateway.doorbell.go.set()
    await gateway.doorbell.settled()
    done = (await client.get("/metrics")).text

    assert "deskhand_turns_open 1.0" in waiting
    assert float(re.search(r"^deskhand_oldest_waiting_turn_seconds (\S+)", waiting, re.M)[1]) > 0
    assert "deskhand_turns_open 0.0" in done
    for line in (
        r'deskhand_messages_total\{channel="api",outcome="stored"\} \d',
        r'deskhand_stage_seconds_count\{stage="intake"\} \d',
        r'deskhand_replies_total\{decision="answer",tier="approved"\} \d',
        r'deskhand_deliveries\{state="uncertain"\} 0.0',
        r'deskhand_deliveries\{state="held"\} 0.0',
        r'deskhand_deliveries\{state="sent"\} 1.0',
        r"# TYPE deskhand_feedback_total counter",
        r"deskhand_conversations_waiting 0.0",
        r"deskhand_database_up 1.0",
    ):
        assert re.search(f"^{line}", done, re.M), line


async def test_metrics_go_on_without_the_database(gateway, client):
    await gateway.database.close()

    response = await client.get("/metrics")

    assert response.status_code == 200
    assert "deskhand_database_up 0.0" in response.text
    assert "deskhand_turns_open" not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("DELETE", "/v1/messages", 405, "method_not_allowed"),
        ("POST", "/metrics", 405, "method_not_allowed"),
    ],
)
async def test_errors_have_one_shape(client, method, path, status, code):
    response = await client.request(method, path)

    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert response.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/broken", "/broken-on-purpose"])
async def test_an_unforeseen_error_is_logged_once_and_shows_nothing(client, caplog, path):
    with caplog.at_level(logging.WARNING):
        response = await client.get(path)

    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]["code"] == "internal_server_error"
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_body_that_never_ends_is_given_up(gateway, monkeypatch):
    monkeypatch.setattr("cli.serving.limits.BODY_SECONDS", 0.2)
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))

    writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
    await writer.drain()

    assert (await reader.readline()).startswith(b"HTTP/1.1 408")
    writer.close()
    await writer.wait_closed()


async def test_every_answer_carries_the_security_headers(client):
    for path in ("/chat", "/docs", "/healthz", "/nothing"):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["strict-transport-security"]


async def test_the_reference_names_every_path_and_loads_nothing_from_elsewhere(client):
    page = (await client.get("/docs")).text
    schema = (await client.get("/openapi.json")).json()

    assert "/v1/messages" in page
    assert all(path in page for path in schema["paths"])
    assert "<script" not in page
    assert "//" not in page.replace("<!doctype", "")
    assert (await client.get("/docs/page.css")).status_code == 200
