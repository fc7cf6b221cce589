"""`deskhand gateway`: takes messages in over HTTP, serves chat, API and metrics; loads no model."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import APIRouter, FastAPI

from bots.channels import accounts
from cli import formats, serving
from cli.processes.parts import Connected, Setup, connected
from core import asking, following
from core.asking import DatabaseAsker
from core.conversations import Desk
from core.db.connect import Database
from core.errors import ConfigurationError
from core.following import Followers
from core.intake import ClosedReceiver, Intake
from core.working import WorkingIndicator
from desk import conversations_api, faq_api
from workers import process
from workers.publisher import Publisher

log = logging.getLogger(__name__)

POOL_SIZE = 12
GRACE_SECONDS = 5
"""Given to requests under way when the process is told to stop."""


@dataclass(frozen=True)
class Gateway:
    """The parts of a running gateway."""

    setup: Setup
    database: Database
    publisher: Publisher
    followers: Followers
    asker: DatabaseAsker
    accounts: Connected
    working: WorkingIndicator
    stopping: asyncio.Event

    def intakes(self) -> Mapping[str, Intake]:
        """Return an intake for each inbox, by its name."""
        return {
            name: Intake(
                self.database, self.publisher, inbox, self.setup.timing, self.working.stored
            )
            for name, inbox in self.accounts.inboxes.items()
        }

    def heard(self, channel: str, payload: str) -> None:
        """Pass a notification of the database on."""
        if channel == following.CHANNEL:
            self.followers.heard(payload)
        else:
            self.asker.heard(payload)


async def run(setup: Setup) -> None:
    """Serve until SIGTERM or SIGINT."""
    async with _gateway(setup) as gateway:
        server = Server(gateway)
        await server.serve()


@asynccontextmanager
async def _gateway(setup: Setup) -> AsyncGenerator[Gateway]:
    setup.configure_queues()
    publisher = Publisher()
    publisher.start()
    name = process.new_name("gateway")
    followers = Followers()
    try:
        async with (
            setup.database(POOL_SIZE) as database,
            connected(database, setup) as accounts,
            process.beating(database, name, "gateway", setup.settings.lease_seconds, {}),
        ):
            gateway = Gateway(
                setup,
                database,
                publisher,
                followers,
                DatabaseAsker(database, publisher),
                accounts,
                WorkingIndicator(database, followers, accounts.channels),
                asyncio.Event(),
            )
            async with _listening(gateway):
                yield gateway
            await gateway.working.close()
    finally:
        await asyncio.to_thread(publisher.stop)


@asynccontextmanager
async def _listening(gateway: Gateway) -> AsyncGenerator[None]:
    channels = [following.CHANNEL, asking.CHANNEL]
    listening = asyncio.create_task(
        gateway.database.listen(channels, gateway.heard, ready=asyncio.Event())
    )
    try:
        yield
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def build(gateway: Gateway) -> FastAPI:
    """Return the app of a gateway."""
    setup = gateway.setup
    settings = setup.settings
    if settings.api_token is None:
        raise ConfigurationError("The gateway needs an API token.")
    intakes = gateway.intakes()
    desk = Desk(gateway.database, gateway.publisher, settings.delivery_expiry)
    authorize = serving.bearer(settings.api_token)
    return serving.build(
        serving.Served(
            settings=settings,
            database=gateway.database,
            intakes=intakes,
            followers=gateway.followers,
            checks={"broker": gateway.publisher.check},
            stopping=gateway.stopping,
        ),
        routers=[
            *_platform_routes(gateway, intakes),
            faq_api.routes(gateway.database, gateway.asker, formats.FORMATS, authorize),
            conversations_api.routes(desk, settings.reply_deadline, authorize),
        ],
    )


def _platform_routes(gateway: Gateway, intakes: Mapping[str, Intake]) -> list[APIRouter]:
    started = [
        account.routes(intakes[account.inbox]) for account in gateway.accounts.accounts.values()
    ]
    closed = [
        account.routes(ClosedReceiver(account.channel.name))
        for account in accounts(gateway.setup.channels)
        if not account.configured
    ]
    return started + closed


class Server(uvicorn.Server):
    """Uvicorn, which ends open event streams as soon as it is told to stop."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.setup.settings
        super().__init__(
            uvicorn.Config(
                build(gateway),
                host=settings.host,
                port=settings.port,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE_SECONDS,
                proxy_headers=True,
            )
        )
        self._stopping = gateway.stopping

    def handle_exit(self, sig: int, frame: object) -> None:
        """Begin to stop; a second signal stops at once.

        Uvicorn's own handler raises the signal again when it is done, which would end the process
        before our own parts are closed.
        """
        self._stopping.set()
        self.force_exit = self.should_exit
        self.should_exit = True
