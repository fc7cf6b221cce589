"""`deskhand faq`: import, export and look after the entries that the bot answers from."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli import configuration, printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.db.connect import Database
    from core.faq import Report
    from core.faq_files import Format
    from core.types import FaqEntry

Result = TypeVar("Result")

EntryId = Annotated[str, typer.Argument(metavar="ID", help="The entry's id.")]
Base = Annotated[str, typer.Option("--base", help="The knowledge base.")]
FormatName = Annotated[
    str | None, typer.Option("--format", help="csv, xlsx, json, jsonl or md; else by the name.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    faq = typer.Typer(no_args_is_help=True, help="The entries that the bot answers from.")
    faq.command("import")(import_file)
    faq.command("export")(export_file)
    for command in (add, show, history, restore, archive, search):
        faq.command()(command)
    faq.command("list")(list_entries)
    app.add_typer(faq, name="faq")


def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV, XLSX, JSON, JSONL or Markdown.")],
    strict: Annotated[
        bool, typer.Option("--strict", help="Import nothing if any row is bad.")
    ] = False,
    base: Base = "default",
    format_name: FormatName = None,
    json: AsJson = False,
) -> None:
    """Import a file of entries; a bad row is named with its line and the rest is imported."""
    from core import faq
    from core.faq_files import Source

    chosen = _format(format_name or file.name)
    _require_file(file)
    source = Source(file.name, lambda: file.open("rb"))
    with _progress(f"Importing {file.name}") as progress:
        report = _run(
            context,
            lambda database, author: faq.import_rows(
                database,
                lambda: chosen.read(source),
                author=author,
                name=file.name,
                base=base,
                strict=strict,
                progress=progress,
            ),
        )
    _print_report(report, as_json=json)
    if not report.imported:
        raise typer.Exit(1)


def _require_file(file: Path) -> None:
    from core.errors import InvalidInput

    if not file.exists():
        raise InvalidInput(f"There is no file {file}.", field="file")
    if not file.is_file():
        raise InvalidInput(f"{file} is no file.", field="file")


def _print_report(report: Report, *, as_json: bool) -> None:
    if as_json:
        printing.as_json(report)
        return
    for line in report.lines():
        print(printing.printable(line), file=sys.stderr)
    if report.rejected_total > len(report.rejected):
        print(f"… and {report.rejected_total - len(report.rejected)} more", file=sys.stderr)
    for each in report.warned:
        warning = f"{report.name} line {each.line}: look at it: {each.reason}"
        print(printing.printable(warning), file=sys.stderr)
    for name in sorted(report.ignored):
        print(f"{report.name}: {printing.printable(name)} is not known; ignored.", file=sys.stderr)
    if report.imported:
        typer.echo(
            f"{report.created} created, {report.updated} updated, {report.unchanged} unchanged, "
            f"{report.rejected_total} rejected."
        )
    else:
        typer.echo(f"Nothing was imported: {report.rejected_total} bad (--strict).")


def export_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="Its ending is the format; - is the terminal.")],
    status: Annotated[
        str | None, typer.Option(help="draft, published, archived or all; else not archived.")
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Only this language.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    base: Base = "default",
    format_name: FormatName = None,
    json: AsJson = False,
) -> None:
    """Export entries to a file that the import takes back without loss."""
    from core import faq

    to_terminal = str(file) == "-"
    chosen = _format(format_name or ("jsonl" if to_terminal else file.name))
    wanted = faq.Filter(status=status, locale=locale, tag=tag)
    entries = _run(context, lambda database, _: faq.exported(database, wanted, base=base))
    if to_terminal:
        for piece in chosen.write(entries):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    _write_whole(file, chosen.write(entries))
    if json:
        printing.as_json({"file": str(file), "entries": len(entries)})
    else:
        typer.echo(f"{len(entries)} entries written to {file}.")


def _write_whole(file: Path, pieces: Iterator[bytes]) -> None:
    """Write a file or leave what was there: an export that fails half-way destroys nothing."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with draft.open("wb") as out:
            for piece in pieces:
                out.write(piece)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def add(
    context: typer.Context,
    question: Annotated[str, typer.Option(prompt=True, help="What customers ask.")],
    answer: Annotated[str, typer.Option(prompt=True, help="What is answered.")],
    alternate: Annotated[
        list[str] | None, typer.Option(help="Another way to ask it; may be repeated.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be repeated.")] = None,
    not_for: Annotated[
        list[str] | None, typer.Option(help="A question it does not answer; may be repeated.")
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Such as en; else the base's.")] = None,
    entity: Annotated[str | None, typer.Option(help="The product that it is about.")] = None,
    source_url: Annotated[str | None, typer.Option(help="Where customers read more.")] = None,
    entry_id: Annotated[str | None, typer.Option("--id", help="Else made of the question.")] = None,
    style: Annotated[
        str | None, typer.Option(help="adaptive, verbatim or generated, for this entry alone.")
    ] = None,
    draft: Annotated[bool, typer.Option("--draft", help="Do not publish it yet.")] = False,
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """Add an entry; it is live within a second unless it is a draft."""
    from core import faq
    from core.faq_warnings import warnings_of

    values: dict[str, object] = {
        "id": entry_id,
        "question": question,
        "answer": answer,
        "alternates": alternate,
        "tags": tag,
        "not_for": not_for,
        "locale": locale,
        "entity": entity,
        "source_url": source_url,
        "style": style,
        "status": "draft" if draft else "published",
    }
    entry = _run(
        context,
        lambda database, author: faq.create(database, values, author=author, base=base),
    )
    for warning in warnings_of(entry):
        print(printing.printable(f"Look at it: {warning}"), file=sys.stderr)
    _print_entry(entry, "Added", as_json=json)


def show(
    context: typer.Context, entry_id: EntryId, base: Base = "default", json: AsJson = False
) -> None:
    """Show an entry."""
    from core import faq
    from core.faq_files import cells

    entry = _run(context, lambda database, _: faq.get(database, entry_id, base=base))
    if json:
        printing.as_json(_entry_json(entry))
        return
    rows = [(name, value) for name, value in cells(entry).items() if value]
    printing.table(("field", "value"), [*rows, ("version", entry.version)], empty="")


def list_entries(
    context: typer.Context,
    status: Annotated[
        str | None, typer.Option(help="draft, published, archived or all; else not archived.")
    ] = None,
    locale: Annotated[str | None, typer.Option(help="Only this language.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only with this tag.")] = None,
    text: Annotated[str | None, typer.Option(help="Only with these words in it.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    offset: Annotated[int, typer.Option(help="Leave out the first.")] = 0,
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """List entries, the newest first."""
    from core import faq

    wanted = faq.Filter(status=status, locale=locale, tag=tag, text=text)
    entries, total = _run(
        context,
        lambda database, _: faq.listed(database, wanted, limit=limit, offset=offset, base=base),
    )
    if json:
        printing.as_json({"entries": [_entry_json(entry) for entry in entries], "total": total})
        return
    printing.table(
        ("id", "status", "locale", "question", "tags"),
        (
            (e.id, e.status, e.locale, printing.shortened(e.question), ", ".join(e.tags))
            for e in entries
        ),
        empty="No entries.",
    )
    if total > len(entries):
        typer.echo(f"{len(entries)} of {total}; more with --offset {offset + len(entries)}.")


def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What a customer might ask.")],
    limit: Annotated[int, typer.Option(min=1, max=50, help="At most so many.")] = 5,
    base: Base = "default",
    url: Annotated[str | None, typer.Option(help="The gateway's address.")] = None,
    json: AsJson = False,
) -> None:
    """Search as the bot does, through the running gateway."""
    from cli.gateway_client import GatewayClient

    with GatewayClient(configuration.of(context), url) as gateway:
        found = gateway.get("/v1/faq/search", q=text, limit=limit, base=base)
    if json:
        printing.as_json(found)
        return
    printing.table(
        ("confidence", "score", "id", "question"),
        (
            (
                f"{each['confidence']:.2f}",
                f"{each['score']:.3f}",
                each["entry_id"],
                printing.shortened(each["question"]),
            )
            for each in found["passages"]
        ),
        empty="Nothing found.",
    )


def archive(
    context: typer.Context, entry_id: EntryId, base: Base = "default", json: AsJson = False
) -> None:
    """Take an entry out of use; it can be restored."""
    from core import faq

    entry = _run(
        context,
        lambda database, author: faq.archive(database, entry_id, author=author, base=base),
    )
    _print_entry(entry, "Archived", as_json=json)


def history(
    context: typer.Context, entry_id: EntryId, base: Base = "default", json: AsJson = False
) -> None:
    """List what was changed in an entry, by whom and when."""
    from core import faq

    revisions = _run(context, lambda database, _: faq.history(database, entry_id, base=base))
    if json:
        printing.as_json(
            [
                {
                    "version": each.version,
                    "action": each.action,
                    "author": each.author,
                    "created_at": each.created_at,
                    "entry": _entry_json(each.entry),
                }
                for each in revisions
            ]
        )
        return
    printing.table(
        ("version", "when", "who", "what", "status", "question", "answer"),
        (
            (
                each.version,
                each.created_at,
                each.author,
                each.action,
                each.entry.status,
                printing.shortened(each.entry.question, 40),
                printing.shortened(each.entry.answer, 50),
            )
            for each in revisions
        ),
        empty="",
    )


def restore(
    context: typer.Context,
    entry_id: EntryId,
    version: Annotated[int, typer.Argument(help="As `deskhand faq history` lists it.")],
    base: Base = "default",
    json: AsJson = False,
) -> None:
    """Bring an entry back to an earlier version."""
    from core import faq

    entry = _run(
        context,
        lambda database, author: faq.restore(database, entry_id, version, author=author, base=base),
    )
    _print_entry(entry, f"Restored version {version} of", as_json=json)


def _print_entry(entry: FaqEntry, done: str, *, as_json: bool) -> None:
    if as_json:
        printing.as_json(_entry_json(entry))
    else:
        typer.echo(f"{done} {entry.id} ({entry.status}, version {entry.version}).")


def _entry_json(entry: FaqEntry) -> Mapping[str, Any]:
    from core.faq_files import as_json

    moments: dict[str, datetime | None] = {"updated_at": entry.updated_at}
    return {**as_json(entry), "version": entry.version, **moments}


def _format(name: str) -> Format:
    from cli.formats import FORMATS
    from core.faq_files import format_for

    return format_for(name, FORMATS)


def _run(context: typer.Context, work: Callable[[Database, str], Awaitable[Result]]) -> Result:
    """Do some work on the database in the name of whoever runs the command."""
    from cli import direct

    return direct.run(context, lambda database, _: work(database, direct.user()))


@contextmanager
def _progress(title: str) -> Generator[Callable[[int, int], None]]:
    """Show how far a long work is, on a terminal's stderr."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(
        console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as shown:
        task = shown.add_task(title, total=None)

        def tell(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total)

        yield tell
