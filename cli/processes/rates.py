"""Keeps error rates: gathers labels, fits thresholds anew as they come, and watches for drift."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from cli.processes import background
from cli.processes.parts import Setup
from core import alerts, calibration, labels
from core.db.connect import Database
from core.errors import DeskhandError

log = logging.getLogger(__name__)

LOCK = "error rates"
EVERY_SECONDS = 600.0
AGAIN_SECONDS = 3_600.0
"""A base whose labels tell nothing usable stays due; once an hour is often enough to see that."""
PUT_OFF_SECONDS = 10.0
FIT_SECONDS = 900.0

Calibrate = Callable[[str], Awaitable[None]]


async def run(
    database: Database, calibrate: Calibrate, every_seconds: float = EVERY_SECONDS
) -> None:
    """Look after all bases while this process holds the lock; for ever."""
    while True:
        try:
            async with database.exclusively(LOCK) as lock:
                tried: dict[str, float] = {}
                while True:
                    await lock.confirm()
                    await look(database, calibrate, tried)
                    await asyncio.sleep(every_seconds)
        except DeskhandError as error:
            log.warning(
                "Watch over error rates put off",
                extra={"action": "rates_put_off", "reason": str(error)},
            )
        except Exception:
            log.exception("Watch over error rates failed", extra={"action": "rates_failed"})
        await asyncio.sleep(PUT_OFF_SECONDS)


async def look(database: Database, calibrate: Calibrate, tried: dict[str, float]) -> None:
    """Look once.

    Args:
        database: Where.
        calibrate: Fits the thresholds of a base.
        tried: When each base was last fitted, on the monotonic clock; kept from look to look.
    """
    await labels.gather(database)
    for base in await calibration.due(database):
        now = time.monotonic()
        if now - tried.get(base, -AGAIN_SECONDS) >= AGAIN_SECONDS:
            tried[base] = now
            await calibrate(base)
    await alerts.watch(database)


def child(setup: Setup) -> Calibrate:
    """Return what runs `deskhand calibrate` as a process of its own.

    Fitting takes seconds of a core, and the code that fits is no part of a scheduler.
    """

    async def calibrate(base: str) -> None:
        status, reason = await background.run(
            setup, "calibrate", "--base", base, "--json", seconds=FIT_SECONDS
        )
        told = {"base": base, "status": status}
        if status == 0:
            log.info("Thresholds fitted", extra={"action": "thresholds_fitted", **told})
        else:
            log.warning(
                "Thresholds could not be fitted",
                extra={"action": "thresholds_failed", "reason": reason, **told},
            )

    return calibrate
