"""The sweeper's loop: one at a time, however many schedulers run."""

from __future__ import annotations

import asyncio
import logging

from core import sweeping
from core.errors import DeskhandError

log = logging.getLogger(__name__)

LOCK = "sweeper"
EVERY_SECONDS = 1.0


async def run(services: sweeping.Sweeping) -> None:
    """Sweep each second while this process holds the lock; for ever."""
    while True:
        try:
            async with services.database.exclusively(LOCK) as lock:
                while True:
                    await lock.confirm()
                    await sweeping.sweep(services)
                    await asyncio.sleep(EVERY_SECONDS)
        except DeskhandError as error:
            log.warning("Sweep put off", extra={"action": "sweep_put_off", "reason": str(error)})
        except Exception:
            log.exception("Sweep failed", extra={"action": "sweep_failed"})
        await asyncio.sleep(EVERY_SECONDS)
