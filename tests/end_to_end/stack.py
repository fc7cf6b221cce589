"""The real product in a test: its processes, on a real database and a real broker."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import httpx
import psycopg

from tests.services import free_port

TOKEN = "test-token"
SECRET = "test-secret-key-of-some-length"
ROLES = ("scheduler", "sender", "worker", "gateway")
PATIENCE_SECONDS = 180.0
POLL_SECONDS = 0.02


@dataclass
class Role:
    """One process of the stack, with what it said."""

    name: str
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
        self.process.stdout.close()


class Stack:
    """Gateway, worker, sender and scheduler as an operator starts them.

    Args:
        data_dir: Its `models` are prepared.
        database_url: A migrated database with a knowledge base in it.
        broker_url: Of a running broker.
        settings: Further environment variables.
    """

    def __init__(
        self,
        data_dir: Path,
        database_url: str,
        broker_url: str,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.database_url = database_url
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DESKHAND_", "SLACK_"))},
            "DESKHAND_DATA_DIR": str(data_dir),
            "DESKHAND_DATABASE_URL": database_url,
            "DESKHAND_BROKER_URL": broker_url,
            "DESKHAND_PORT": str(self.port),
            "DESKHAND_API_TOKEN": TOKEN,
            "DESKHAND_SECRET_KEY": SECRET,
            **(settings or {}),
        }
        self.roles: dict[str, Role] = {}
        self.http = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30.0
        )

    async def __aenter__(self) -> Self:
        for role in ROLES:
            self.start(role)
        await self.ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()
        for name in list(self.roles):
            self.stop(name)

    def start(self, role: str, name: str | None = None) -> Role:
        """Start a process; several of one role need names of their own."""
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", role],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started = Role(name or role, process)
        threading.Thread(target=started.read, daemon=True).start()
        self.roles[started.name] = started
        return started

    def stop(self, name: str) -> None:
        """End a process as an operator does."""
        role = self.roles.pop(name)
        role.process.send_signal(signal.SIGTERM)
        try:
            role.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            role.process.kill()
            role.process.wait()
            raise AssertionError(f"{name} did not stop:\n{''.join(role.lines[-20:])}") from None

    def kill(self, name: str) -> None:
        """End a process as a crash does."""
        role = self.roles.pop(name)
        role.process.kill()
        role.process.wait()

    def log(self) -> str:
        """Return what the processes said lately."""
        return "\n".join(
            f"--- {role.name}\n{''.join(role.lines[-30:])}" for role in self.roles.values()
        )

    async def ready(self) -> None:
        """Wait until messages would be answered."""

        async def is_ready() -> bool:
            for role in self.roles.values():
                if role.process.poll() is not None:
                    raise AssertionError(f"{role.name} ended:\n{''.join(role.lines[-30:])}")
            try:
                return (await self.http.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        await self.until(is_ready, "ready")

    async def until(self, holds: Any, what: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Poll the outside of the processes, which have no event that we could await."""
        try:
            async with asyncio.timeout(seconds):
                while not await holds():  # noqa: ASYNC110  other processes set no event
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"not {what} within {seconds} s\n{self.log()}") from None

    async def value(self, query: str, **params: object) -> Any:
        """Return one value from the database."""
        async with await psycopg.AsyncConnection.connect(self.database_url) as conn:
            cursor = await conn.execute(query.encode(), params)
            row = await cursor.fetchone()
        return None if row is None else row[0]

    async def settled(self, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until no turn is open and no delivery is on its way."""

        async def is_settled() -> bool:
            try:
                return (
                    await self.value(
                        """select (select count(*) from turn where state = 'open')
                                + (select count(*) from delivery
                                    where state in ('pending', 'sending')
                                       or state = 'uncertain' and looked_up_at is null)"""
                    )
                    == 0
                )
            except psycopg.OperationalError:
                return False

        await self.until(is_settled, "settled", seconds)

    # --- as an API caller ----------------------------------------------------------------------

    async def say(self, conversation: str, text: str, message_id: str | None = None) -> None:
        """Send a customer's message by the HTTP API."""
        response = await self.http.post(
            "/v1/messages",
            json={
                "id": message_id or uuid4().hex,
                "conversation": conversation,
                "sender": {"id": conversation, "name": "Ann"},
                "text": text,
            },
        )
        assert response.status_code == 202, response.text

    async def messages(self, conversation: str) -> list[dict[str, Any]]:
        """Return the messages of a conversation."""
        response = await self.http.get(f"/v1/conversations/{conversation}/messages")
        assert response.status_code == 200, response.text
        return response.json()["messages"]

    async def replies(self, conversation: str) -> list[dict[str, Any]]:
        """Return what was said to the customer."""
        said = await self.messages(conversation)
        return [message for message in said if message["author"] != "customer"]

    async def ask(self, text: str, conversation: str | None = None) -> dict[str, Any]:
        """Send a message, wait, and return the reply."""
        name = conversation or uuid4().hex
        before = len(await self.replies(name)) if conversation else 0
        await self.say(name, text)
        await self.settled()
        replies = await self.replies(name)
        assert len(replies) == before + 1, f"{replies}\n{self.log()}"
        return replies[-1]


@asynccontextmanager
async def running(stack: Stack) -> AsyncGenerator[Stack]:
    """Lend a stack, and show what it said if the test fails."""
    try:
        async with stack:
            yield stack
    except BaseException:
        print(stack.log())
        raise
