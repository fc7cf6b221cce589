"""`deskhand blocked`: what the bot must never say."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from cli import printing
from cli.printing import AsJson

Base = Annotated[str, typer.Option("--base", help="The knowledge base.")]
Phrase = Annotated[str, typer.Argument(help="Whole words; a * at the end takes any ending.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    blocked = typer.Typer(
        no_args_is_help=True, help="What the bot must never say in its own words."
    )
    blocked.command("list")(overview)
    blocked.command()(add)
    blocked.command()(remove)
    app.add_typer(blocked, name="blocked")


def overview(context: typer.Context, base: Base = "default", json: AsJson = False) -> None:
    """List the base's own phrases; the list that ships always holds too."""
    from cli import direct
    from core import blocked

    found = direct.run(context, lambda database, _: blocked.listed(database, base=base))
    if json:
        printing.as_json(found)
        return
    printing.table(
        ("phrase", "by", "since"),
        ((each.phrase, each.author, each.created_at) for each in found),
        empty="No phrases of your own are blocked.",
    )


def add(
    context: typer.Context,
    phrase: Phrase,
    author: Annotated[
        str | None, typer.Option(help="Who blocks it; else the user of this machine.")
    ] = None,
    base: Base = "default",
) -> None:
    """Block a phrase: from the next turn on no generated sentence with it is sent."""
    from cli import direct
    from core import blocked

    by = author or getpass.getuser()
    fresh = direct.run(
        context, lambda database, _: blocked.block(database, phrase, author=by, base=base)
    )
    typer.echo("Blocked." if fresh else "It was blocked already.")


def remove(context: typer.Context, phrase: Phrase, base: Base = "default") -> None:
    """Allow a phrase again."""
    from cli import direct
    from core import blocked

    direct.run(context, lambda database, _: blocked.allow(database, phrase, base=base))
    typer.echo("Allowed again.")
