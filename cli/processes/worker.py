"""`deskhand worker`: the answering worker, the only process that loads models."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from answering.loading import load_pipeline
from cli.processes.parts import Setup
from core.turns import Answering
from workers import process, turns
from workers.app import QUERIES, TURNS
from workers.indexing import Indexer
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
    pipeline = await asyncio.to_thread(load_pipeline, settings, _end_at_once)
    async with setup.database(POOL_SIZE) as database:
        indexer = Indexer(database, pipeline, pipeline.encoder_name)
        await indexer.refresh()
        following = asyncio.create_task(indexer.follow())
        answering = Answering(
            database,
            pipeline,
            publisher,
            name,
            settings.lease_seconds,
            settings.turn_attempts,
            settings.delivery_expiry,
        )
        detail = {"models": dict(pipeline.models)}
        async with process.beating(database, name, "worker", settings.lease_seconds, detail):
            try:
                yield AnsweringProcess(loop, answering, pipeline)
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                await asyncio.to_thread(pipeline.close)
                await asyncio.to_thread(publisher.stop)


def _end_at_once() -> None:
    """A stalled engine answers nobody: end, so that its turns go to another and it is restarted."""
    log.critical("Engine stalled; the process ends", extra={"action": "engine_stalled"})
    sys.stdout.flush()
    os._exit(STALLED_EXIT_CODE)
