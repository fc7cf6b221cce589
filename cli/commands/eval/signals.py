"""`deskhand eval signals`: how well questions are told from other talk, and how messages sound."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson


def signals(
    context: typer.Context,
    seeking: Annotated[
        Path | None, typer.Option(help="CSV text,label of `look_up` and `other` to measure on.")
    ] = None,
    sentiment: Annotated[
        Path | None, typer.Option(help="CSV text,label of `positive`, `neutral`, `negative`.")
    ] = None,
    faq: Annotated[
        Path | None, typer.Option(help="JSONL of entries with entities, to make conversations of.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many conversations of each kind.")] = 200,
    encoder: common.EncoderName = None,
    json: AsJson = False,
) -> None:
    """Measure what is told of a message beyond its intent: does it ask, how does it sound.

    Without files, the examples that ship are measured by heads that did not see them.
    """
    from training.evaluation import report
    from training.evaluation import seeking as evaluation

    asked = report.read_labelled(seeking) if seeking else []
    felt = report.read_labelled(sentiment) if sentiment else []
    entries = common.entries_of(faq) if faq else []
    loaded = common.encoder_of(configuration.of(context), encoder)
    figures: dict[str, Any] = {}
    if asked or felt:
        figures |= asyncio.run(evaluation.on_files(asked, felt, loaded))
    if entries:
        figures |= asyncio.run(evaluation.on_conversations(entries, count, loaded))
    common.show("Signals", figures or evaluation.out_of_fold(loaded), as_json=json)
