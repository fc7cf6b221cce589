"""`deskhand migrate`: bring the database to the schema of this release, and end."""

from __future__ import annotations

import typer

from cli import configuration, printing
from cli.printing import AsJson
from core.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(migrate)


def migrate(context: typer.Context, json: AsJson = False) -> None:
    """Bring the database to the schema of this release."""
    from core.db import migrate as migrations

    url = configuration.of(context).database_url
    if url is None:
        raise ConfigurationError("There is no database; set DESKHAND_DATABASE_URL.")
    before = migrations.current(url.get_secret_value())
    migrations.upgrade(url.get_secret_value())
    after = migrations.head()
    if json:
        printing.as_json({"from": before, "revision": after})
    elif before == after:
        typer.echo(f"The database is at {after} already.")
    else:
        typer.echo(f"The database is at {after} now; it was at {before or 'nothing'}.")
