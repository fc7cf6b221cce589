"""One worker process: an event loop on a thread of its own, to which the tasks hand coroutines."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar
from uuid import uuid4

from core.db import deliveries, processes, turns
from core.db.connect import Database
from core.errors import DeskhandError

log = logging.getLogger(__name__)

T = TypeVar("T")

BEATS_PER_LEASE = 4
"""A lease survives that many missed heartbeats less one."""


def new_name(role: str) -> str:
    """Return a name that no other process has or had; leases carry it."""
    return f"{role}@{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:6]}"


class Loop:
    """An event loop that runs beside Celery's threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop", daemon=True)

    def start(self) -> None:
        """Begin to run."""
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it, on a thread that is not the loop's."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop without waiting."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def stop(self) -> None:
        """Cancel what still runs and end the loop."""
        self.run(_cancel_others())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)
        self._loop.close()


async def _cancel_others() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def beat(
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


async def leave(database: Database, name: str) -> None:
    """Say that this process ends."""
    try:
        async with database.transaction() as conn:
            await processes.leave(conn, name)
    except DeskhandError:
        return  # its row is forgotten in time
