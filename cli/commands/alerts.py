"""`deskhand alerts`: what staff should look at."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import printing
from cli.printing import AsJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    alerts = typer.Typer(no_args_is_help=True, help="What staff should look at.")
    alerts.command("list")(overview)
    alerts.command()(clear)
    app.add_typer(alerts, name="alerts")


def overview(
    context: typer.Context,
    every: Annotated[bool, typer.Option("--all", help="Also those that were cleared.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    json: AsJson = False,
) -> None:
    """List the open alerts, the latest first."""
    from cli import direct
    from core import alerts

    found = direct.run(
        context, lambda database, _: alerts.listed(database, every=every, limit=limit)
    )
    if json:
        printing.as_json(found)
        return
    printing.table(
        ("id", "raised", "cleared", "base", "kind", "message"),
        (
            (each.id, each.raised_at, each.cleared_at, each.base, each.kind, each.message)
            for each in found
        ),
        empty="No open alerts.",
    )


def clear(
    context: typer.Context,
    alert: Annotated[int, typer.Argument(metavar="ID", help="As `list` shows it.")],
) -> None:
    """Clear an alert; what is still so raises it again within the hour."""
    from cli import direct
    from core import alerts

    direct.run(context, lambda database, _: alerts.clear(database, alert))
    typer.echo("Cleared.")
