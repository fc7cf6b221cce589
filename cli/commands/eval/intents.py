"""`deskhand eval intents`: how well intents are told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson


def intents(
    context: typer.Context,
    train: Annotated[Path, typer.Option(help="CSV text,label to fit on.")],
    test: Annotated[Path, typer.Option(help="CSV text,label to measure on.")],
    encoder: common.EncoderName = None,
    json: AsJson = False,
) -> None:
    """Fit the intent head on one file and measure it on another."""
    from training.evaluation import report
    from training.evaluation.intents import evaluate

    fitted_on, measured_on = report.read_labelled(train), report.read_labelled(test)
    figures = evaluate(
        fitted_on, measured_on, common.encoder_of(configuration.of(context), encoder)
    )
    common.show(f"Intents of {test.name}", asdict(figures), as_json=json)
