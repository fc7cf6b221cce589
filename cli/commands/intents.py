"""`deskhand intents`: examples of what customers want, from which workers learn to tell it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from cli import printing
from cli.printing import AsJson
from core.errors import InvalidInput

Base = Annotated[str, typer.Option("--base", help="The knowledge base.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    intents = typer.Typer(no_args_is_help=True, help="Examples of what customers want.")
    intents.command("import")(import_file)
    intents.command("list")(overview)
    intents.command("explain")(explain)
    app.add_typer(intents, name="intents")


def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with the columns text, label and locale.")],
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """Replace a base's examples by those of a file; workers learn them within a second."""
    from cli import direct
    from core import intents

    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            examples = intents.read_examples(lines, file.name)
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {file}.", field="file") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file.name} is not UTF-8; save it as UTF-8.", field="file") from None
    direct.run(context, lambda database, _: intents.replace_examples(database, examples, base=base))
    labels = Counter(example.label for example in examples)
    found = _warnings(file)
    if json:
        printing.as_json({"examples": len(examples), "labels": labels, "warnings": found})
    else:
        for line in found:
            typer.echo(f"{file.name}: {line}", err=True)
        typer.echo(f"{len(examples)} examples of {len(labels)} intents.")


def overview(context: typer.Context, base: Base = "default", json: AsJson = False) -> None:
    """List a base's intents with the numbers of their examples."""
    from cli import direct
    from core import intents

    examples = direct.run(context, lambda database, _: intents.examples(database, base=base))
    if json:
        printing.as_json(examples)
        return
    labels = Counter(example.label for example in examples)
    printing.table(("label", "examples"), sorted(labels.items()), empty="No examples.")


def explain(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What a customer says.")],
    head: Annotated[
        Path, typer.Option(help="Folder of a head that `deskhand train intents` wrote.")
    ] = Path("intents"),
    encoder: Annotated[
        str | None, typer.Option(help="A name or folder; the setting when not given.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Show what a head takes a message for, and the examples nearest to it with their weight."""
    from cli import configuration
    from cli.commands.eval import common
    from training import intents

    if not text.strip():
        raise InvalidInput("Give a message.", field="text")
    loaded = common.encoder_of(configuration.of(context), encoder)
    told = intents.explained(head, text, loaded)
    if json:
        printing.as_json(told)
        return
    chances = [(i["name"], f"{i['probability']:.3f}") for i in told["intents"]]
    printing.table(("intent", "chance"), chances, empty="No intents.")
    nearest = [(n["label"], f"{n['weight']:.2f}", n["text"]) for n in told["nearest"]]
    printing.table(("nearest", "weight", "example"), nearest, empty="No examples.")


def _warnings(file: Path) -> list[str]:
    """Return what is wrong with a file of examples, though it can be taken in."""
    from training import checking

    return list(checking.in_lines(checking.look_through(checking.read_rows(file))))
