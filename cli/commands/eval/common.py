"""What the evaluations share: the encoder, the pipeline, files of entries, printing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import printing

if TYPE_CHECKING:
    from core.settings import Settings
    from core.types import FaqEntry
    from retrieval.encoders.protocol import Encoder
    from training.evaluation.page import Report

EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="A name or folder; the setting when not given.")
]
ReportFolder = Annotated[
    Path | None, typer.Option("--report", help="Folder for an HTML page of the results.")
]
CompareFolder = Annotated[
    Path | None,
    typer.Option("--compare", help="The --report folder of an earlier run to compare with."),
]


def write_report(made: Report, folder: Path | None, compare: Path | None) -> None:
    """Write the page of an evaluation where a folder is given, and say on stderr where it is.

    Raises:
        InvalidInput: The earlier run cannot be read, or the folder cannot be written.
    """
    from training.evaluation import page

    if folder is not None:
        typer.echo(f"Report: {page.write(made, folder, compare)}", err=True)


def check_report(folder: Path | None, compare: Path | None) -> None:
    """Refuse an earlier run that cannot be read before minutes of work begin.

    Raises:
        InvalidInput: There is no --report, or the earlier run cannot be read.
    """
    from core.errors import InvalidInput
    from training.evaluation import page

    if compare is None:
        return
    if folder is None:
        raise InvalidInput("--compare needs --report, the folder for the page.", field="report")
    page.read_earlier(compare)


def show(title: str, figures: Mapping[str, Any], *, as_json: bool) -> None:
    """Print figures for a person or for a program."""
    from training.evaluation import report

    if as_json:
        printing.as_json(figures)
    else:
        typer.echo("\n".join(report.lines(title, figures)))


def pipeline(settings: Settings) -> Any:
    """Return the pipeline that workers run."""
    from answering.engine import Engine
    from answering.loading import load_pipeline
    from answering.pipeline import Pipeline

    if settings.reply_model == "none":
        engine = Engine(encoder_of(settings, None)).start()
        return Pipeline(engine, style=settings.reply_style)
    prepare_encoder(settings, settings.encoder)
    return load_pipeline(settings, lambda: None)


def encoder_of(settings: Settings, name: str | None) -> Encoder:
    """Return the encoder of that name, or the one that is set."""
    from retrieval.encoders.loading import load_encoder

    wanted = name or settings.encoder
    prepare_encoder(settings, wanted)
    return load_encoder(wanted, settings.models_dir, settings.device)


def prepare_encoder(settings: Settings, encoder: str) -> None:
    """Make the embedded encoder where it is missing."""
    from answering import preparing

    if encoder == preparing.ENCODER:
        preparing.prepare_encoder(settings.models_dir, lambda line: typer.echo(line, err=True))


def entries_of(path: Path) -> list[FaqEntry]:
    """Return the entries of a JSON Lines file.

    Raises:
        InvalidInput: There is none, or a line is wrong.
    """
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.samples import entry_of

    rows = report.read_jsonl(path, ("id", "question", "answer"))
    if not rows:
        raise InvalidInput(f"{path} line 1: there is no entry in this file.")
    return [entry_of(row, number) for number, row in enumerate(rows, start=1)]
