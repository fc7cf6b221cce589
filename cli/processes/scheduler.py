"""`deskhand scheduler`: sweeps, polls Telegram, holds Socket Mode, keeps error rates, trains."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Generator
from typing import Any

from cli.processes import continual, rates
from cli.processes.parts import Connected, Setup, connected, run_until, stop_at_signals
from core import following
from core.db.connect import Database
from core.errors import DeskhandError
from core.following import Followers
from core.intake import Intake
from core.ports import PolledChannel
from core.sweeping import Sweeping
from core.types import Inbox
from core.working import WorkingIndicator
from workers import process, sweeper
from workers.publisher import Publisher

log = logging.getLogger(__name__)

LOCK_CHECK_SECONDS = 2.0
RESTART_SECONDS = 1.0


async def run(setup: Setup) -> None:
    """Run until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    stop_at_signals(stop)
    setup.configure_queues()
    publisher = Publisher()
    publisher.start()
    followers = Followers()
    name = process.new_name("scheduler")
    lease = setup.settings.lease_seconds
    async with (
        setup.database(10) as database,
        connected(database, setup) as accounts,
        process.beating(database, name, "scheduler", lease, {}),
    ):
        working = WorkingIndicator(database, followers, accounts.channels)
        try:
            await run_until(
                stop,
                sweeper.run(_sweeping(setup, database, publisher)),
                rates.run(database, rates.child(setup)),
                continual.run(database, continual.child(setup), setup.settings.train_replies_hours),
                database.listen(
                    [following.CHANNEL],
                    lambda _, payload: followers.heard(payload),
                    ready=asyncio.Event(),
                ),
                *_pollers(setup, database, accounts, publisher, working),
            )
        finally:
            await working.close()
            await asyncio.to_thread(publisher.stop)


def _sweeping(setup: Setup, database: Database, publisher: Publisher) -> Sweeping:
    return Sweeping(
        database=database,
        doorbell=publisher,
        ring_turn=publisher.turn_now,
        ring_delivery=publisher.delivery_now,
        ring_query=publisher.query_now,
        attempts=setup.settings.turn_attempts,
        expiry_seconds=setup.settings.delivery_expiry,
    )


def _pollers(
    setup: Setup,
    database: Database,
    accounts: Connected,
    publisher: Publisher,
    working: WorkingIndicator,
) -> Generator[Coroutine[Any, Any, None]]:
    for account in accounts.accounts.values():
        if account.polled is not None:
            inbox = accounts.inboxes[account.inbox]
            intake = Intake(database, publisher, inbox, setup.timing, working.stored)
            yield _poll(database, account.polled, intake, inbox)


async def _poll(database: Database, polled: PolledChannel, intake: Intake, inbox: Inbox) -> None:
    """Poll while this process holds the inbox's lock; for ever."""
    while True:
        try:
            async with database.exclusively(f"poll:{inbox.name}") as lock:
                lost = asyncio.Event()
                polling = asyncio.create_task(polled.poll(intake, lost))
                try:
                    while not polling.done():
                        await lock.confirm()
                        await asyncio.wait([polling], timeout=LOCK_CHECK_SECONDS)
                    polling.result()
                finally:
                    lost.set()
                    polling.cancel()
                    await asyncio.gather(polling, return_exceptions=True)
        except DeskhandError as error:
            log.warning(
                "Polling put off",
                extra={"action": "poll_put_off", "inbox": inbox.name, "reason": str(error)},
            )
        except Exception:
            log.exception("Polling failed", extra={"action": "poll_failed", "inbox": inbox.name})
        await asyncio.sleep(RESTART_SECONDS)
