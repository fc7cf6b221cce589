"""`deskhand train intents`: the intent head from labelled messages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import configuration, printing
from cli.commands.train.common import progress
from cli.printing import AsJson

OUT = Path("intents")


def train_intents(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="CSV text,label.")],
    out: Annotated[Path, typer.Option(help="Folder in which the head is written.")] = OUT,
    encoder: Annotated[
        str | None, typer.Option(help="A name or folder; the setting when not given.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 7,
    json: AsJson = False,
) -> None:
    """Fit the intent head on labelled messages; print its figures on a held-out fifth."""
    from answering import preparing
    from retrieval.encoders.loading import load_encoder
    from training import intents
    from training.evaluation import report

    examples = report.read_labelled(data)
    settings = configuration.of(context)
    name = encoder or settings.encoder
    if name == preparing.ENCODER:
        preparing.prepare_encoder(settings.models_dir, progress)
    progress(f"Fitting on {len(examples)} messages")
    loaded = load_encoder(name, settings.models_dir, settings.device)
    figures = intents.train(examples, loaded, out, seed=seed)
    if json:
        printing.as_json(figures)
    else:
        typer.echo("\n".join(report.lines(f"Intent head of {data.name}", figures)))
