"""Trains the reply model on agents' replies every so often, where staff switched that on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from cli.processes import background
from cli.processes.parts import Setup
from core import model_store
from core.db.connect import Database
from core.errors import DeskhandError
from core.types import ModelKind

log = logging.getLogger(__name__)

LOCK = "training of replies"
LOOK_SECONDS = 600.0
PUT_OFF_SECONDS = 10.0
TRAIN_SECONDS = 4 * 3_600.0
AGAIN = timedelta(hours=6)
"""After a training that brought no version: too few pairs, or none that was better."""

Train = Callable[[], Awaitable[None]]


async def run(
    database: Database, train: Train, every_hours: float, look_seconds: float = LOOK_SECONDS
) -> None:
    """Train whenever it is due while this process holds the lock; for ever."""
    if not every_hours:
        await asyncio.Event().wait()  # switched off: the process ends with its other work
    while True:
        try:
            async with database.exclusively(LOCK) as lock:
                tried: datetime | None = None
                while True:
                    await lock.confirm()
                    now = datetime.now(UTC)
                    rested = tried is None or now - tried >= min(AGAIN, _hours(every_hours))
                    if rested and await is_due(database, every_hours):
                        tried = now
                        await train()
                    await asyncio.sleep(look_seconds)
        except DeskhandError as error:
            log.warning(
                "Training of replies put off",
                extra={"action": "training_put_off", "reason": str(error)},
            )
        except Exception:
            log.exception("Training of replies failed", extra={"action": "training_failed"})
        await asyncio.sleep(PUT_OFF_SECONDS)


async def is_due(database: Database, every_hours: float) -> bool:
    """Return whether no adapter has been registered for so long."""
    versions = await model_store.versions(database, ModelKind.REPLY_ADAPTER)
    made = [version.created_at for version in versions if version.created_at is not None]
    return not made or datetime.now(UTC) - max(made) >= _hours(every_hours)


def _hours(count: float) -> timedelta:
    return timedelta(hours=count)


def child(setup: Setup) -> Train:
    """Return what runs `deskhand train replies --from-desk` as a process of its own.

    Training takes minutes of a core and a gigabyte, and the code that trains is no part of a
    scheduler.
    """

    async def train() -> None:
        out = setup.settings.data_dir.absolute() / "training" / "replies"
        status, reason = await background.run(
            setup,
            *("train", "replies", "--from-desk", "--register", "--promote", "--json"),
            *("--threads", "1", "--out", str(out)),
            seconds=TRAIN_SECONDS,
        )
        if status == 0:
            log.info("Replies trained", extra={"action": "replies_trained"})
        else:
            log.warning(
                "Replies were not trained",
                extra={
                    "action": "replies_not_trained",
                    "reason": reason,
                    "status": status,
                },
            )

    return train
