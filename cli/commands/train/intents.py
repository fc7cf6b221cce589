"""`deskhand train intents`: the intent head from labelled messages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration, printing
from cli.commands.train.common import progress
from cli.commands.train.registering import OneBase, Register, register_folder
from cli.printing import AsJson
from core.types import ModelKind

if TYPE_CHECKING:
    from training.intent_tuning import Options

OUT = Path("intents")
MINUTES = 20.0


def train_intents(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="CSV text,label; origin where rows were made.")],
    out: Annotated[Path, typer.Option(help="Folder in which the head is written.")] = OUT,
    encoder: Annotated[
        str | None, typer.Option(help="A name or folder; the setting when not given.")
    ] = None,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Tune the encoder too, if held-out messages win.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="Time for --finetune.")] = MINUTES,
    unlabelled: Annotated[
        Path | None, typer.Option(help="Messages without labels, one a line, to learn from.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the parts that are held out.")] = 7,
    register: Register = False,
    base: OneBase = None,
    json: AsJson = False,
) -> None:
    """Fit the intent head on labelled messages; print its figures on a held-out fifth."""
    from answering import preparing
    from retrieval.encoders.loading import load_encoder
    from training import checking, intents
    from training.evaluation import report

    rows = checking.read_rows(data)
    checking.check_labels(rows, data)
    others = [t for line in checking.read_lines(unlabelled) if (t := line.strip())] \
        if unlabelled else []  # fmt: skip
    tuning = options(finetune, minutes, out)
    settings = configuration.of(context)
    name = encoder or settings.encoder
    if name == preparing.ENCODER:
        preparing.prepare_encoder(settings.models_dir, progress)
    progress(f"Fitting on {len(rows)} messages")
    loaded = load_encoder(name, settings.models_dir, settings.device)
    figures = intents.train(
        rows, loaded, out, tuning=tuning, unlabelled=others, seed=seed, say=progress
    )
    if register:
        figures["version"] = register_folder(context, out, ModelKind.INTENTS, base=base).name
    if json:
        printing.as_json(figures)
        return
    findings = [checking.Finding(**found) for found in figures.pop("warnings")]
    for line in checking.in_lines(findings):
        progress(f"{data.name}: {line}")
    typer.echo("\n".join(report.lines(f"Intent head of {data.name}", figures)))


def options(finetune: bool, minutes: float, out: Path | None) -> Options | None:
    """Return how to tune, None for not at all.

    Raises:
        InvalidInput: The time is no time.
    """
    from training import intent_tuning, intents

    if not finetune:
        return None
    intent_tuning.check_minutes(minutes)
    return intent_tuning.Options(minutes, out / intents.CHECKPOINTS if out else None)
