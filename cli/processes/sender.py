"""`deskhand sender`: the delivery worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from bots.channels import PUSHED
from cli.processes.parts import Setup, connected
from core.deliveries import Sending
from workers import deliveries, process
from workers.app import delivery_queue
from workers.deliveries import SendingProcess

CONCURRENCY = 16
"""Deliveries that one sender has under way at once; each waits for its platform."""
POOL_SIZE = 8


def run(setup: Setup) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    setup.configure_queues()
    name = process.new_name("sender")
    with process.Loop() as loop, loop.entered(_sending(setup, name)) as sending:
        deliveries.serve(SendingProcess(loop, sending))
        queues = [delivery_queue(channel) for channel in PUSHED]
        return process.serve_queues(name, queues, CONCURRENCY)


@asynccontextmanager
async def _sending(setup: Setup, name: str) -> AsyncGenerator[Sending]:
    lease = setup.settings.lease_seconds
    async with (
        setup.database(POOL_SIZE) as database,
        connected(database, setup) as accounts,
        process.beating(database, name, "sender", lease, {}),
    ):
        yield Sending(database, accounts.channels, name, lease)
