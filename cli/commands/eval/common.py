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

EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="A name or folder; the setting when not given.")
]


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
