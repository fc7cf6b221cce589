"""`deskhand turns`: questions that could not be answered, and answering them after all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from cli import printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.db.connect import Database
    from core.settings import Settings

ALL_LIMIT = 10_000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    turns = typer.Typer(no_args_is_help=True, help="Questions that could not be answered.")
    turns.command()(failed)
    turns.command()(replay)
    app.add_typer(turns, name="turns")


def failed(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=ALL_LIMIT, help="At most so many.")] = 100,
    json: AsJson = False,
) -> None:
    """List the dead letters, the latest first."""
    from cli import direct
    from core import turns

    found = direct.run(context, lambda database, _: turns.failed(database, limit))
    if json:
        printing.as_json(found)
        return
    printing.table(
        ("id", "when", "inbox", "attempts", "question", "error"),
        (
            (
                each.id,
                each.finished_at,
                each.inbox,
                each.attempts,
                printing.shortened(each.text, 50),
                printing.shortened(each.error, 60),
            )
            for each in found
        ),
        empty="No failed turns.",
    )


def replay(
    context: typer.Context,
    turn: Annotated[UUID | None, typer.Argument(metavar="ID", help="As `failed` lists it.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All, the oldest first.")] = False,
    json: AsJson = False,
) -> None:
    """Answer a dead letter after all."""
    from cli import direct
    from core.errors import InvalidInput

    if (turn is None) != every:
        raise InvalidInput("Give either the id of a turn or --all.", field="turn")
    replayed, refused = direct.run(
        context, lambda database, settings: _replay(database, settings, turn)
    )
    if json:
        printing.as_json({"replayed": replayed, "refused": refused})
    else:
        for reason in refused.values():
            typer.echo(reason, err=True)
        typer.echo(f"{len(replayed)} replayed, {len(refused)} not.")
    if refused and not replayed:
        raise typer.Exit(1)


async def _replay(
    database: Database, settings: Settings, turn: UUID | None
) -> tuple[Sequence[str], dict[str, str]]:
    from cli.direct import SilentDoorbell
    from core import turns
    from core.errors import InvalidInput

    found = [turn] if turn else [e.id for e in reversed(await turns.failed(database, ALL_LIMIT))]
    replayed, refused = list[str](), dict[str, str]()
    for turn_id in found:
        try:
            await turns.replay(database, SilentDoorbell(), turn_id, settings.reply_deadline)
            replayed.append(str(turn_id))
        except InvalidInput as error:
            if turn is not None:
                raise
            refused[str(turn_id)] = str(error)
    return replayed, refused
