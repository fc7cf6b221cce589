"""One worker process: an event loop on a thread of its own, to which the tasks hand coroutines."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import warnings
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any, TypeVar
from uuid import uuid4

from celery import signals
from celery.exceptions import SecurityWarning

from core.db import deliveries, processes, turns
from core.db.connect import Database
from core.errors import DeskhandError
from workers.app import app

log = logging.getLogger(__name__)

T = TypeVar("T")

BEATS_PER_LEASE = 4
"""A lease survives that many missed heartbeats less one."""


def new_name(role: str) -> str:
    """Return a name that no other process has or had; leases carry it."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"


class Loop:
    """An event loop that runs beside Celery's threads, from entering it to leaving it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)

    def __enter__(self) -> Loop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it, on a thread that is not the loop's."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    @contextmanager
    def entered(self, context: AbstractAsyncContextManager[T]) -> Generator[T]:
        """Enter an asynchronous context on the loop, and leave it there at the end."""
        value = self.run(context.__aenter__())
        try:
            yield value
        finally:
            self.run(_leave(context))


async def _leave(context: AbstractAsyncContextManager[object]) -> None:
    await context.__aexit__(None, None, None)


async def _cancel_others() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _beat(
    database: Database, name: str, role: str, lease_seconds: float, detail: Mapping[str, Any]
) -> None:
    """Say for ever that this process lives, and keep the leases of what it has in hand."""
    while True:
        try:
            async with database.transaction() as conn:
                # Losing a heartbeat in a crash costs nothing; waiting for the disk would.
                await conn.execute("set local synchronous_commit = off")
                await processes.beat(conn, name, role, ready=True, detail=detail)
                if role == "worker":
                    await turns.extend_leases(conn, name, lease_seconds)
                if role == "sender":
                    await deliveries.extend_leases(conn, name, lease_seconds)
        except DeskhandError as error:
            log.warning("Heartbeat missed", extra={"action": "beat_missed", "reason": str(error)})
        await asyncio.sleep(lease_seconds / BEATS_PER_LEASE)


@asynccontextmanager
async def beating(
    database: Database, name: str, role: str, lease_seconds: float, detail: Mapping[str, Any]
) -> AsyncGenerator[None]:
    """Live as a process with heartbeats, from entering to leaving."""
    beats = asyncio.create_task(_beat(database, name, role, lease_seconds, detail))
    try:
        yield
    finally:
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
        await _depart(database, name)


async def _depart(database: Database, name: str) -> None:
    try:
        async with database.transaction() as conn:
            await processes.leave(conn, name)
    except DeskhandError:
        return  # its row is forgotten in time


def serve_queues(name: str, queues: Sequence[str], concurrency: int) -> int:
    """Run a Celery worker on this thread until SIGTERM or SIGINT; return its exit code.

    Threads, since a process that holds a model or a CUDA context cannot be forked.
    """
    signals.setup_logging.connect(_keep_our_logging)
    # Its concern as root is pickled messages; ours are JSON, and nothing else is accepted.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    worker = app.Worker(
        hostname=name,
        pool="threads",
        concurrency=concurrency,
        queues=list(queues),
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _keep_our_logging(**_: object) -> None:
    """Celery sets up no logging of its own while somebody listens to its signal."""
