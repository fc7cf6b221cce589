"""Starts again what dies, with a short back-off, for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from cli.embedded.service import Service
from core.errors import DeskhandError

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 5.0)
STEADY_SECONDS = 30.0
"""What ran for so long was well: the next pause is the shortest again."""


class Kept(Protocol):
    """What can be kept running."""

    role: str

    async def start(self) -> None:
        """Start it; returns when it runs."""
        ...

    async def wait(self) -> int:
        """Wait for its end; return its exit status."""
        ...


class KeptService:
    """An embedded server, as something that can be kept.

    Its calls block, so they run on threads. Those are the event loop's: a thread of its own would
    end after the start, and the kernel would then take its death for ours and stop the server.
    """

    def __init__(self, service: Service) -> None:
        self.role = service.role
        self._service = service

    async def start(self) -> None:
        """Start the server, unless it runs."""
        await asyncio.to_thread(self._service.start)

    async def wait(self) -> int:
        """Wait for the server's end."""
        return await asyncio.to_thread(self._service.wait)


async def keep(kept: Kept, say: Callable[[str], None], *, started: bool = False) -> None:
    """Keep something running until cancelled.

    Args:
        kept: What.
        say: Told what died and when it is tried again.
        started: It runs already.
    """
    failures = 0
    while True:
        begun = time.monotonic()
        trouble = await _run(kept, started=started)
        started = False
        failures = 0 if time.monotonic() - begun > STEADY_SECONDS else failures + 1
        pause = pause_seconds(failures)
        say(f"The {kept.role} {trouble}; it is started again in {pause:g} s.")
        await asyncio.sleep(pause)


def pause_seconds(failures: int) -> float:
    """Return how long to wait after so many failures in quick succession."""
    return BACK_OFF_SECONDS[min(max(failures - 1, 0), len(BACK_OFF_SECONDS) - 1)]


async def _run(kept: Kept, *, started: bool) -> str:
    try:
        if not started:
            await kept.start()
        return _ended(await kept.wait())
    except DeskhandError as error:
        return f"does not start ({error})"
    except OSError as error:
        return f"does not start ({error.strerror})"


def _ended(status: int) -> str:
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
