"""What all processes are built from."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from bots.channels import PUSHED, Account, ChannelSettings, accounts
from core.db import inboxes
from core.db.connect import Database
from core.errors import Unavailable
from core.intake import Timing
from core.ports import Channel
from core.settings import Settings
from core.types import Inbox, InboxId
from workers.app import configure

log = logging.getLogger(__name__)

ALWAYS_THERE = ("web", "api")
"""Inboxes that need no token."""


@dataclass(frozen=True)
class Setup:
    """What a process is told at start: checked settings, and where the services are."""

    settings: Settings
    channels: ChannelSettings
    database_url: str
    broker_url: str

    @property
    def timing(self) -> Timing:
        """How long turns wait, and customers for us."""
        return Timing(self.settings.debounce, self.settings.reply_deadline)

    def database(self, size: int) -> Database:
        """Return a pool of so many connections."""
        return Database(self.database_url, size=size)

    def configure_queues(self) -> None:
        """Point Celery at the broker."""
        configure(self.broker_url, PUSHED)


@dataclass(frozen=True)
class Connected:
    """The channel accounts of this process with their inboxes."""

    accounts: Mapping[InboxId, Account]
    inboxes: Mapping[str, Inbox]

    @property
    def channels(self) -> Mapping[InboxId, Channel]:
        """What sends, by inbox."""
        return {inbox_id: account.channel for inbox_id, account in self.accounts.items()}


async def ensure_inboxes(database: Database, found: list[Account]) -> Connected:
    """Make sure that all inboxes exist, waiting for the database if need be."""
    while True:
        try:
            async with database.transaction() as conn:
                known = {
                    name: await inboxes.ensure_inbox(conn, name, name) for name in ALWAYS_THERE
                }
                for account in found:
                    inbox = await inboxes.ensure_inbox(conn, account.inbox, account.channel.name)
                    if not inbox.active:  # it has a token again: what was held may go
                        await inboxes.switch_on(conn, inbox.id)
                    known[account.inbox] = inbox
        except Unavailable:
            log.warning("Waiting for the database", extra={"action": "database_awaited"})
            await asyncio.sleep(1.0)
        else:
            by_inbox = {known[account.inbox].id: account for account in found}
            return Connected(by_inbox, known)


@asynccontextmanager
async def connected(database: Database, setup: Setup) -> AsyncGenerator[Connected]:
    """Lend the channel accounts, started, and close them at the end."""
    found = [account for account in accounts(setup.channels) if account.configured]
    joined = await ensure_inboxes(database, found)
    try:
        for account in found:
            await account.channel.start()
        yield joined
    finally:
        for account in found:
            await account.channel.close()


def stop_at_signals(stop: asyncio.Event) -> None:
    """Set an event at SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)


async def run_until(stop: asyncio.Event, *work: Coroutine[Any, Any, None]) -> None:
    """Run coroutines until `stop` is set or one of them fails, then cancel the others."""
    tasks = [asyncio.create_task(coroutine) for coroutine in (*work, _wait(stop))]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()
