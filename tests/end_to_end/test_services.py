"""The same product on each broker, and through a restart of its database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from cli.commands import sample
from cli.embedded import Postgres
from core.db import migrate
from tests.end_to_end.stack import Stack, running
from tests.services import Server

pytestmark = pytest.mark.timeout(300)


async def test_a_conversation_on_each_broker(data_dir: Path, shop_url: str, broker: Server):
    async with running(Stack(data_dir, shop_url, broker.url)) as stack:
        first = await stack.ask("Do you ship to Germany?")
        found = await stack.http.get("/v1/faq/search", params={"q": "return something"})
        await asyncio.gather(
            *(
                stack.say(f"crowd-{number}", "Which payment methods do you take?")
                for number in range(6)
            )
        )
        await stack.settled()

        assert first["author"] == "bot"
        assert found.json()["passages"]
        for number in range(6):
            assert len(await stack.replies(f"crowd-{number}")) == 1


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A database server that this test alone may stop."""
    with TemporaryDirectory(prefix="deskhand-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with Postgres(folder) as server:
            migrate.upgrade(server.url)
            asyncio.run(sample.load(server.url, print))
            yield server


def message(text: str) -> dict[str, Any]:
    return {"id": "m-1", "conversation": "c-1", "sender": {"id": "ann"}, "text": text}


async def test_the_database_restarts_and_what_was_refused_can_be_sent_again(
    data_dir: Path, postgres: Postgres, valkey: Server
):
    async with running(Stack(data_dir, postgres.url, valkey.url)) as stack:
        await stack.ask("Do you ship to Germany?")
        await asyncio.to_thread(postgres.stop)
        refused = await stack.http.post("/v1/messages", json=message("How do I get an invoice?"))
        health = await stack.http.get("/healthz")
        await asyncio.to_thread(postgres.start)

        async def is_taken() -> bool:
            again = await stack.http.post("/v1/messages", json=message("How do I get an invoice?"))
            return again.status_code == 202

        await stack.until(is_taken, "taken")
        await stack.until(lambda: stack_answers(stack), "answered")

        assert refused.status_code == 503
        assert "Retry-After" in refused.headers
        assert refused.json()["error"]["code"]
        assert health.status_code == 503
        said = [m["author"] for m in await stack.messages("c-1")]
        assert said == ["customer", "bot"]


async def stack_answers(stack: Stack) -> bool:
    return len(await stack.replies("c-1")) == 1
