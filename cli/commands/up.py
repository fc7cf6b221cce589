"""`deskhand up`: everything on one machine, from one command."""

from __future__ import annotations

import asyncio

import typer

from cli import configuration


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(up)


def up(context: typer.Context) -> None:
    """Start everything on this machine and keep it running."""
    from cli.supervision.installation import Installation

    file = configuration.options(context).config
    given = configuration.load(file)
    configuration.channel_settings(file)  # a wrong token is told now, not by a process in a loop
    asyncio.run(Installation(given, file).run())
