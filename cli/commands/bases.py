"""`deskhand bases`: the knowledge bases, how their answers are worded and how sure they must be."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.types import KnowledgeBase


class Style(StrEnum):
    """A reply style, or none of the base's own."""

    ADAPTIVE = "adaptive"
    VERBATIM = "verbatim"
    GENERATED = "generated"
    INHERIT = "inherit"


Base = Annotated[str, typer.Argument(metavar="BASE", help="The knowledge base, such as default.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    bases = typer.Typer(no_args_is_help=True, help="Knowledge bases.")
    bases.command("list")(overview)
    bases.command("set")(change)
    app.add_typer(bases, name="bases")


def overview(context: typer.Context, json: AsJson = False) -> None:
    """List the knowledge bases."""
    from cli import direct
    from core import bases

    found = direct.run(context, lambda database, _: bases.overview(database))
    _print(found, as_json=json)


def change(
    context: typer.Context,
    base: Base,
    style: Annotated[
        Style | None,
        typer.Option(help="How answers are worded; inherit leaves it to DESKHAND_REPLY_STYLE."),
    ] = None,
    tolerated_error: Annotated[
        float | None, typer.Option(help="Share of wrong answers that you accept, such as 0.05.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Change a knowledge base; it holds from the next turn on."""
    from cli import direct
    from core import bases
    from core.types import ReplyStyle

    if style is None and tolerated_error is None:
        raise typer.BadParameter("give --style or --tolerated-error.")
    changed: list[KnowledgeBase] = []
    if tolerated_error is not None:
        share = tolerated_error
        changed = [
            direct.run(
                context, lambda database, _: bases.set_tolerated_error(database, share, base=base)
            )
        ]
    if style is not None:
        own = None if style is Style.INHERIT else ReplyStyle(style)
        changed = [
            direct.run(context, lambda database, _: bases.set_style(database, own, base=base))
        ]
    _print(changed, as_json=json)


def _print(found: Any, *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "name": base.name,
            "locale": base.locale,
            "style": base.style,
            "tolerated_error": base.tolerated_error,
        }
        for base in found
    ]
    if as_json:
        printing.as_json(rows)
        return
    printing.table(
        ("name", "locale", "style", "tolerated error"),
        (
            (r["name"], r["locale"], r["style"] or "inherit", f"{r['tolerated_error']:.1%}")
            for r in rows
        ),
        empty="There are no knowledge bases.",
    )
