"""Use cases run by a command itself, on the database, without the gateway or the queue."""

from __future__ import annotations

import asyncio
import getpass
import logging
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from psycopg.errors import UndefinedColumn, UndefinedTable

from cli import configuration
from core.conversations import Desk
from core.db.connect import Database
from core.errors import ConfigurationError, Unavailable
from core.settings import Settings
from core.types import ConversationId

Result = TypeVar("Result")

PATIENCE_SECONDS = 5.0

BaseName = Annotated[str, typer.Option("--base", help="The knowledge base.")]


class SilentDoorbell:
    """Rings nobody: the sweeper finds within a second what a command stored."""

    def turn(self, conversation_id: ConversationId, *, after_seconds: float = 0.0) -> None:
        """Leave a turn to the sweeper."""

    def delivery(self, channel: str, inbox_id: int) -> None:
        """Leave a delivery to the sweeper."""

    def query(self, request_id: UUID) -> None:
        """Leave a question to the sweeper."""


def run(context: typer.Context, work: Callable[[Database, Settings], Awaitable[Result]]) -> Result:
    """Do some work on the installation's database.

    Raises:
        Unavailable: The database cannot be reached.
        ConfigurationError: It has not been set up.
    """
    settings = configuration.of(context)
    url = settings.database_url
    if url is None:
        raise ConfigurationError("There is no database; set DESKHAND_DATABASE_URL.")
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # we say it ourselves, once
    return asyncio.run(_run(url.get_secret_value(), settings, work))


async def _run(
    url: str, settings: Settings, work: Callable[[Database, Settings], Awaitable[Result]]
) -> Result:
    try:
        async with Database(url, size=2, patience_seconds=PATIENCE_SECONDS) as database:
            return await work(database, settings)
    except Unavailable as error:
        raise Unavailable(
            "The database cannot be reached; is `deskhand up` running, and is DESKHAND_DATA_DIR "
            "or DESKHAND_DATABASE_URL the one that it uses?"
        ) from error
    except (UndefinedTable, UndefinedColumn) as error:
        raise ConfigurationError(
            "The database is not at this release's schema; start `deskhand up` once."
        ) from error


def desk(database: Database, settings: Settings) -> Desk:
    """Return what the work of staff needs."""
    return Desk(database, SilentDoorbell(), settings.delivery_expiry)


def user() -> str:
    """Return who runs the command."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return "cli"
