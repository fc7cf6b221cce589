"""The outer app on a real database and a real port, with an answerer that is told what to say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvicorn
from fastapi import APIRouter, FastAPI
from pydantic import SecretStr

from cli.serving import Served, build
from core import turns
from core.db import inboxes
from core.db.connect import Database
from core.following import CHANNEL, Followers
from core.intake import Intake, Timing
from core.settings import Settings
from core.turns import Answering
from core.types import ConversationId, Inbox, Incoming, Receipt
from tests.storage.spine import Rings, Scripted

TOKEN = "a-token-for-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


class Answers(Rings):
    """A doorbell that has a turn answered at once, or when `go` is set."""

    def __init__(self, database: Database, scripted: Scripted) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()
        self._answering = Answering(database, scripted, self, "worker-1", 30.0, 3, 3600.0)
        self._tasks: set[asyncio.Task[None]] = set()

    def turn(self, conversation_id: ConversationId, *, after_seconds: float = 0.0) -> None:
        super().turn(conversation_id, after_seconds=after_seconds)
        task = asyncio.create_task(self._answer(conversation_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, conversation_id: ConversationId) -> None:
        await self.go.wait()
        await turns.answer(self._answering, conversation_id)

    async def settled(self) -> None:
        """Wait until all that was rung for is answered."""
        while self._tasks:
            await asyncio.gather(*self._tasks)


@dataclass
class Stand:
    """A gateway for tests."""

    database: Database
    app: FastAPI
    doorbell: Answers
    scripted: Scripted
    followers: Followers
    stopping: asyncio.Event
    url: str = ""
    broker: list[str] = field(default_factory=list)

    def client(self, **options: object) -> httpx.AsyncClient:
        """Return a client of the running gateway."""
        return httpx.AsyncClient(base_url=self.url, timeout=20, **options)  # type: ignore[arg-type]


def settings(**changes: object) -> Settings:
    """Return the settings of a gateway for tests."""
    values: dict[str, object] = {
        "data_dir": Path("unused"),
        "api_token": SecretStr(TOKEN),
        "secret_key": SecretStr("a-key-for-tests"),
        **changes,
    }
    return Settings(**values)  # type: ignore[arg-type]


@asynccontextmanager
async def stand(
    database: Database, *, port: int = 0, routers: Sequence[APIRouter] = (), **changes: object
) -> AsyncIterator[Stand]:
    """Run a gateway; a listener on the database wakes those who follow."""
    scripted = Scripted()
    doorbell = Answers(database, scripted)
    followers, stopping = Followers(), asyncio.Event()
    intakes: dict[str, Intake] = {}

    def stored(_: Inbox, __: Incoming, receipt: Receipt) -> None:
        followers.heard(str(receipt.conversation_id))

    async with database.transaction() as conn:
        for name in ("api", "web"):
            inbox = await inboxes.ensure_inbox(conn, name, name)
            intakes[name] = Intake(database, doorbell, inbox, Timing(debounce=0.0), stored)
    troubles: list[str] = []

    async def broker() -> str | None:
        return troubles[0] if troubles else None

    served = Served(settings(**changes), database, intakes, followers, {"broker": broker}, stopping)
    app = build(served, routers=routers)
    ready = asyncio.Event()
    listener = asyncio.create_task(
        database.listen([CHANNEL], lambda _, payload: followers.heard(payload), ready=ready)
    )
    await ready.wait()
    try:
        async with serving(app, port) as url:
            yield Stand(database, app, doorbell, scripted, followers, stopping, url, troubles)
            stopping.set()  # ends streams, as the gateway does when it is told to stop
            await doorbell.settled()
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError):
            await listener


class Server(uvicorn.Server):
    """A server that says when it takes requests."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


@asynccontextmanager
async def serving(app: FastAPI, port: int = 0) -> AsyncIterator[str]:
    """Serve an app on a port, else on a free one, and yield its address."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
        config = uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=5)
        server = Server(config)
        task = asyncio.create_task(server.serve(sockets=[sock]))
        await server.ready.wait()
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task
