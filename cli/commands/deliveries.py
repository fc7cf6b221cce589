"""`deskhand deliveries`: messages that may not have reached their customers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from cli import printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.db.connect import Database
    from core.db.deliveries import TroubledDelivery


def register(app: typer.Typer) -> None:
    """Add the commands."""
    deliveries = typer.Typer(
        no_args_is_help=True, help="Messages that may not have reached their customers."
    )
    deliveries.command("list")(overview)
    deliveries.command()(resend)
    app.add_typer(deliveries, name="deliveries")


def overview(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    json: AsJson = False,
) -> None:
    """List deliveries that are held, uncertain or failed, the latest first."""
    from cli import direct

    found = direct.run(context, lambda database, _: _troubled(database, limit))
    if json:
        printing.as_json(found)
        return
    printing.table(
        ("id", "when", "inbox", "state", "attempts", "error"),
        (
            (
                each.id,
                each.created_at,
                each.inbox,
                each.state,
                each.attempts,
                printing.shortened(each.error),
            )
            for each in found
        ),
        empty="No delivery is held, uncertain or failed.",
    )


async def _troubled(database: Database, limit: int) -> Sequence[TroubledDelivery]:
    from core.db import deliveries

    async with database.transaction() as conn:
        return await deliveries.troubled(conn, limit)


def resend(
    context: typer.Context,
    delivery: Annotated[UUID, typer.Argument(metavar="ID", help="As `list` shows it.")],
    json: AsJson = False,
) -> None:
    """Send a delivery again; if it was sent after all, it then stands there twice."""
    from cli import direct
    from core import deliveries
    from core.errors import NotFound

    done = direct.run(
        context,
        lambda database, _: deliveries.resend(database, direct.SilentDoorbell(), delivery),
    )
    if not done:
        raise NotFound(f"Delivery {delivery} is not held, uncertain or failed.")
    if json:
        printing.as_json({"delivery_id": delivery})
    else:
        typer.echo(f"{delivery} will be sent again.")
