"""`deskhand alive`: whether the process of this host does its work; what a container asks."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration, printing
from cli.printing import AsJson
from core.errors import ConfigurationError

if TYPE_CHECKING:
    from core.db.processes import Process

SHORTEST_SILENCE_SECONDS = 10.0
"""A heartbeat that comes this late is no news: a busy machine delays some."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(alive)


def alive(
    context: typer.Context,
    role: Annotated[
        str | None, typer.Option(help="Such as worker; any role of this host when not given.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Exit 0 if a process of this host has lately told the database that it is ready."""
    settings = configuration.of(context)
    if settings.database_url is None:
        raise ConfigurationError("There is no database; set DESKHAND_DATABASE_URL.")
    silence = max(SHORTEST_SILENCE_SECONDS, settings.lease_seconds)
    found = asyncio.run(_here(settings.database_url.get_secret_value(), silence))
    ready = [one for one in found if one.ready and role in (None, one.role)]
    host = socket.gethostname()
    if json:
        printing.as_json({"alive": bool(ready), "processes": [one.name for one in ready]})
    elif ready:
        typer.echo(f"Alive on {host}: {', '.join(one.role for one in ready)}.")
    else:
        typer.echo(f"No {role or 'process'} of {host} has told the database that it is ready.")
    raise typer.Exit(0 if ready else 1)


async def _here(url: str, within_seconds: float) -> list[Process]:
    """Return the processes of this host that were seen lately."""
    from core.db import processes
    from core.db.connect import Database

    async with Database(url, size=1) as database, database.transaction() as conn:
        known = await processes.alive(conn, within_seconds)
    # A process is named <role>@<host>:<pid>:<chance>, by workers.process.new_name.
    return [one for one in known if one.name.startswith(f"{one.role}@{socket.gethostname()}:")]
