"""`deskhand eval intents`: how well intents are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration, printing
from cli.commands.eval import common
from cli.printing import AsJson

if TYPE_CHECKING:
    from training.checking import Row
    from training.evaluation.intents import Evaluation
    from training.evaluation.page import Report

MINUTES = 20.0


def intents(
    context: typer.Context,
    train: Annotated[Path, typer.Option(help="CSV text,label to fit on.")],
    test: Annotated[Path, typer.Option(help="CSV text,label to measure on.")],
    encoder: common.EncoderName = None,
    adapt: Annotated[
        bool,
        typer.Option(
            help="Estimate the share of out-of-scope from the test messages, not their labels."
        ),
    ] = True,
    finetune: Annotated[
        bool, typer.Option("--finetune", help="Tune the encoder too, if held-out messages win.")
    ] = False,
    minutes: Annotated[float, typer.Option(help="Time for --finetune.")] = MINUTES,
    seed: Annotated[int, typer.Option(help="Of the parts that are held out.")] = 7,
    report: common.ReportFolder = None,
    compare: common.CompareFolder = None,
    json: AsJson = False,
) -> None:
    """Fit the intent head on one file and measure it on another."""
    from cli.commands.train.common import progress
    from cli.commands.train.intents import options
    from training import checking
    from training.evaluation.intents import evaluate

    common.check_report(report, compare)
    fitted_on, measured_on = checking.read_rows(train), checking.read_rows(test)
    checking.check_labels(fitted_on, train)
    loaded = common.encoder_of(configuration.of(context), encoder)
    made = evaluate(
        fitted_on,
        measured_on,
        loaded,
        adapt=adapt,
        tuning=options(finetune, minutes, None),
        seed=seed,
        say=progress,
    )
    if json:
        warnings = [asdict(finding) for finding in made.findings]
        printing.as_json({**made.as_figures(), "warnings": warnings})
    else:
        for line in checking.in_lines(made.findings):
            progress(f"{train.name}: {line}")
        common.show(f"Intents of {test.name}", made.as_figures(), as_json=False)
    if report is not None:
        about = {"encoder": loaded.name, "train": train.name, "test": test.name}
        common.write_report(_page(made, measured_on, about), report, compare)


def _page(made: Evaluation, rows: Sequence[Row], about: dict[str, str]) -> Report:
    from answering.languages import language_of
    from training.evaluation.page import Outcome, Report

    outcomes = [
        Outcome(
            id=str(row.line),
            text=row.text,
            truth=row.label,
            told=told[0].name,
            right=told[0].name == row.label,
            confidence=told[0].probability,
            language=language_of(row.text),
            trace={
                "top": [[i.name, round(i.probability, 4)] for i in told[:3]],
                "nearest": [[text, label, round(weight, 3)] for text, label, weight in nearest],
            },
        )
        for row, told, nearest in zip(rows, made.told, made.nearest, strict=True)
    ]
    return Report(
        f"Intents of {about['test']}", made.as_figures(), outcomes, about=about, confusion=True
    )
