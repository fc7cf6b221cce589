"""`deskhand texts`: what Deskhand says by itself, such as its greeting, by language."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import printing
from cli.printing import AsJson

Locale = Annotated[str, typer.Argument(help="The language, such as en.")]
Key = Annotated[str, typer.Argument(help="As `list` names it, such as greeting.")]
Base = Annotated[str, typer.Option("--base", help="The knowledge base.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    texts = typer.Typer(no_args_is_help=True, help="What Deskhand says by itself.")
    texts.command("list")(overview)
    texts.command("set")(change)
    texts.command("unset")(unset)
    app.add_typer(texts, name="texts")


def overview(
    context: typer.Context,
    locale: Annotated[str | None, typer.Option(help="Only this language.")] = None,
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """List the texts that customers get, and which of them are your own."""
    from cli import direct
    from core import wording

    own, shipped = direct.run(context, lambda database, _: wording.texts_of(database, base=base))
    rows = [
        {
            "locale": language,
            "key": key,
            "text": own.get(language, {}).get(key) or shipped.get(language, {}).get(key, ""),
            "own": bool(own.get(language, {}).get(key)),
        }
        for language in sorted({*own, *shipped})
        if locale in (None, language)
        for key in sorted({*own.get(language, {}), *shipped.get(language, {})})
    ]
    if json:
        printing.as_json(rows)
        return
    printing.table(
        ("locale", "key", "own", "text"),
        ((row["locale"], row["key"], "yes" if row["own"] else "", row["text"]) for row in rows),
        empty="There are no texts in this language.",
    )


def change(
    context: typer.Context,
    locale: Locale,
    key: Key,
    text: Annotated[str, typer.Argument(help="What shall be said.")],
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """Change a text."""
    _set(context, locale, key, text, base, json)


def unset(
    context: typer.Context, locale: Locale, key: Key, base: Base = "default", json: AsJson = False
) -> None:
    """Bring the shipped text back."""
    _set(context, locale, key, None, base, json)


def _set(
    context: typer.Context, locale: str, key: str, text: str | None, base: str, json: bool
) -> None:
    from cli import direct
    from core import wording

    direct.run(
        context, lambda database, _: wording.set_text(database, locale, key, text, base=base)
    )
    if json:
        printing.as_json({"locale": locale, "key": key, "text": text})
    else:
        typer.echo(f"{key} ({locale}) is {'changed' if text is not None else 'as shipped'}.")
