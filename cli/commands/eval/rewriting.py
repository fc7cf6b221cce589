"""`deskhand eval rewriting`: how well follow-ups are made stand-alone."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson


class Kind(StrEnum):
    """The sets whose form is known."""

    CANARD = "canard"
    TREC_CAST = "trec_cast"
    MTRAG = "mtrag"


def rewriting(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Folder of the set.")],
    kind: Annotated[Kind, typer.Option(help="Which set it is.")],
    limit: Annotated[int, typer.Option(help="Only so many rows; 0 takes all.")] = 0,
    encoder: common.EncoderName = None,
    json: AsJson = False,
) -> None:
    """Measure whether follow-ups find what people's own rewrites of them find."""
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.rewriting import KINDS, evaluate

    rows = list(KINDS[kind](data))[: limit or None]
    asked = sum(bool(row.said) for row in rows)
    if not asked:
        raise InvalidInput(f"{data} holds no follow-up question.")
    figures = evaluate(
        rows,
        common.encoder_of(configuration.of(context), encoder),
        report.progress("Searches", 3 * asked),
    )
    common.show(f"Rewriting of {kind}", figures, as_json=json)
