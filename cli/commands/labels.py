"""`deskhand labels`: telling the bot what would have been right, and what to tell it next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from cli import printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.db.labels import Asked
    from core.labels import Open
    from training.active import Doubtful, Pick

Base = Annotated[str, typer.Option("--base", help="The knowledge base.")]
CANDIDATES = 3


def register(app: typer.Typer) -> None:
    """Add the commands."""
    labels = typer.Typer(
        no_args_is_help=True, help="What the right answers would have been; the bot learns from it."
    )
    labels.command("next")(upcoming)
    labels.command()(add)
    labels.command("import")(import_file)
    labels.command("export")(export_file)
    app.add_typer(labels, name="labels")


def upcoming(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 10,
    raw: Annotated[bool, typer.Option("--raw", help="Show personal data too.")] = False,
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """List the questions whose label would teach most: doubtful ones, unlike each other."""
    from cli import direct
    from core import labels
    from training import active

    async def found(database: Any, _: object) -> Open:
        await labels.gather(database)
        return await labels.open_turns(database, base=base)

    open_turns = direct.run(context, found)
    picks = active.choose(_doubtful(open_turns), limit, labelled=open_turns.labelled)
    shown = [_shown(open_turns, pick, raw=raw) for pick in picks]
    if json:
        printing.as_json(shown)
        return
    for each in shown:
        _print(each)
    typer.echo(
        "Answer with: deskhand labels add --turn TURN --entry ID, or --none."
        if shown
        else "Nothing to label: no answered turn is without staff's word."
    )


def _doubtful(open_turns: Open) -> list[Doubtful]:
    from training.active import Doubtful

    def of(asked: Asked, times: int) -> Doubtful:
        chances = [c.confidence for c in asked.candidates]
        intents = dict(asked.intents)
        return Doubtful(
            text=asked.text,
            confidence=asked.chosen.confidence if asked.chosen else 0.0,
            runner_up=chances[1] if len(chances) > 1 else 0.0,
            answer_from=0.5 if asked.answer_from is None else asked.answer_from,
            intent=max(intents.values(), default=None),
            out_of_scope=intents.get("out_of_scope", 0.0),
            refuted=asked.turn_id in open_turns.refuted,
            times=times,
        )

    return [of(a, n) for a, n in zip(open_turns.asked, open_turns.times, strict=True)]


def _shown(open_turns: Open, pick: Pick, *, raw: bool) -> dict[str, Any]:
    from core.masking import mask_prose

    asked = open_turns.asked[pick.place]

    def text(said: str) -> str:
        return said if raw else mask_prose(said)

    return {
        "turn": str(asked.turn_id),
        "text": text(asked.text),
        "before": [{**said, "text": text(said["text"])} for said in asked.history[-2:]],
        "times": open_turns.times[pick.place],
        "decision": asked.decision,
        "chosen": list(asked.cited),
        "candidates": [
            {
                "entry_id": c.entry_id,
                "question": open_turns.questions.get(c.entry_id, ""),
                "confidence": c.confidence,
            }
            for c in asked.candidates[:CANDIDATES]
        ],
        "intent": asked.intents[0][0] if asked.intents else None,
        "doubt": pick.doubt,
        "why": pick.why,
    }


def _print(each: dict[str, Any]) -> None:
    typer.echo(f"{each['turn']}  {each['why']}")
    for said in each["before"]:
        typer.echo(f"    ({said['author']}: {_line(said['text'])})")
    asked = f", asked {each['times']} times" if each["times"] > 1 else ""
    typer.echo(f"  > {_line(each['text'], 200)}{asked}")
    done = ", ".join(each["chosen"]) or (each["decision"] or "nothing")
    typer.echo(f"    the bot: {done}; intent: {each['intent'] or 'none told'}")
    for candidate in each["candidates"]:
        typer.echo(
            f"    {candidate['confidence']:.2f}  {candidate['entry_id']}  "
            f"{_line(candidate['question'])}"
        )
    typer.echo("")


def _line(text: str, characters: int = 100) -> str:
    return printing.printable(printing.shortened(text, characters))


def add(
    context: typer.Context,
    turn: Annotated[UUID, typer.Option(help="As `next` lists it.")],
    entry: Annotated[str | None, typer.Option(help="The entry that answers.")] = None,
    none: Annotated[bool, typer.Option("--none", help="No entry answers.")] = False,
    intent: Annotated[str | None, typer.Option(help="What the customer wants.")] = None,
    author: Annotated[
        str | None, typer.Option(help="Who says so; else the user of this machine.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Say what would have been right in a turn; replaces what staff said of it before."""
    from cli import direct
    from core import labels

    label = direct.run(
        context,
        lambda database, _: labels.add(
            database, turn, entry_id=entry, none=none, intent=intent, author=author or direct.user()
        ),
    )
    if json:
        printing.as_json(label)
        return
    verdict = {True: "the bot was right", False: "the bot was wrong", None: "of the intent alone"}
    typer.echo(f"Noted: {verdict[label.is_correct]}.")


def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV or JSONL of labelled texts.")],
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """Take in labelled texts; those that are known already are left as they are."""
    from cli import direct
    from core import label_files, labels
    from core.errors import InvalidInput

    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            lines = label_files.read(opened, file.name)
    except FileNotFoundError:
        raise InvalidInput(f"There is no file {file}.", field="file") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file.name} is not UTF-8; save it as UTF-8.", field="file") from None
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.", field="file") from None
    stored = direct.run(
        context, lambda database, _: labels.take_in(database, lines, file.name, base=base)
    )
    if json:
        printing.as_json(stored)
    else:
        typer.echo(f"{stored.stored} labels stored, {stored.known} were known.")


def export_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Its ending is the format: .jsonl or .csv.")],
    only: Annotated[
        str, typer.Option(help="entries (for `train encoder`), intents, or all.")
    ] = "all",
    source: Annotated[
        list[str] | None, typer.Option(help="staff, file, agent or feedback; may be repeated.")
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Leave personal data in.")] = False,
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """Write the labels to a file, without personal data, for training or another installation."""
    from cli import direct
    from core import label_files, labels
    from core.errors import InvalidInput

    ending = label_files.format_of(file.name)
    wanted = _wanted(only, source or [])

    async def found(database: Any, _: object) -> list[Any]:
        await labels.gather(database)
        return await labels.listed(database, base=base, sources=source or None)

    kept = [label for label in direct.run(context, found) if wanted(label)]
    try:
        with file.open("w", encoding="utf-8", newline="") as out:
            out.writelines(label_files.write(kept, ending, raw=raw))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}.", field="file") from None
    if json:
        printing.as_json({"file": str(file), "labels": len(kept)})
    else:
        typer.echo(f"{len(kept)} labels written to {file}.")


def _wanted(only: str, sources: list[str]) -> Any:
    from core.errors import InvalidInput
    from core.labels import RANK

    for source in sources:
        if source not in RANK:
            raise InvalidInput(
                f"There is no source {source!r}; choose of {', '.join(RANK)}.", field="source"
            )
    choices = {
        "all": lambda label: True,
        "entries": lambda label: label.entry_id is not None,
        "intents": lambda label: label.intent is not None,
    }
    if only not in choices:
        raise InvalidInput(f"--only {only!r} is none of {', '.join(choices)}.", field="only")
    return choices[only]
