"""`deskhand worker`: the answering worker, the only process that loads models."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from cli.processes.parts import Setup
from core.model_store import Store
from core.turns import Answering
from workers import process, turns
from workers.app import QUERIES, TURNS
from workers.models import Loading, ModelFollower
from workers.publisher import Publisher
from workers.turns import AnsweringProcess

log = logging.getLogger(__name__)

STALLED_EXIT_CODE = 70
POOL_SIZE = 12
"""A turn needs the database for some milliseconds of its second."""


def run(setup: Setup) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    setup.configure_queues()
    name = process.new_name("worker")
    concurrency = setup.settings.worker_concurrency
    with process.Loop() as loop, loop.entered(_answering(setup, name, loop)) as answering:
        turns.serve(answering)
        return process.serve_queues(name, [TURNS, QUERIES], concurrency)


@asynccontextmanager
async def _answering(
    setup: Setup, name: str, loop: process.Loop
) -> AsyncGenerator[AnsweringProcess]:
    settings = setup.settings
    publisher = Publisher()
    publisher.start()
    async with setup.database(POOL_SIZE) as database:
        detail: dict[str, Any] = {}
        store = Store(database, settings.models_dir)
        models = ModelFollower(database, store, Loading(settings, _end_at_once), detail)
        serving = await models.start()
        following = asyncio.create_task(models.follow())
        answering = Answering(
            database,
            serving,
            publisher,
            name,
            settings.lease_seconds,
            settings.turn_attempts,
            settings.delivery_expiry,
        )
        async with process.beating(database, name, "worker", settings.lease_seconds, detail):
            try:
                yield AnsweringProcess(loop, answering, serving)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                await serving.close()
                await asyncio.to_thread(publisher.stop)


def _end_at_once() -> None:
    """A stalled engine answers nobody: end, so that its turns go to another and it is restarted."""
    log.critical("Engine stalled; the process ends", extra={"action": "engine_stalled"})
    sys.stdout.flush()
    os._exit(STALLED_EXIT_CODE)
