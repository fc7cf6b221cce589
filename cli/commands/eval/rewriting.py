"""`deskhand eval rewriting`: how well follow-ups are made stand-alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.settings import Settings
    from training.evaluation.rewriting import FollowUp

AT_ONCE = 8
"""Questions put to the model at the same time."""


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
    reply_model: Annotated[
        str | None,
        typer.Option(
            "--reply-model", "--model", help="Also by a large model, such as `openai:<model>`."
        ),
    ] = None,
    encoder: common.EncoderName = None,
    json: AsJson = False,
) -> None:
    """Measure whether follow-ups find what people's own rewrites of them find."""
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.rewriting import KINDS, evaluate, leaning

    rows = list(KINDS[kind](data))[: limit or None]
    asked = leaning(rows)
    if not asked:
        raise InvalidInput(f"{data} holds no follow-up question.")
    settings = configuration.of(context)
    written: list[str | None] = []
    if reply_model is not None:
        chosen = settings.model_copy(update={"reply_model": reply_model})
        written = asyncio.run(_written(chosen, asked))
    figures = evaluate(
        rows,
        common.encoder_of(settings, encoder),
        report.progress("Searches", (4 if written else 3) * len(asked)),
        written,
    )
    common.show(f"Rewriting of {kind}", figures, as_json=json)


async def _written(settings: Settings, asked: Sequence[FollowUp]) -> list[str | None]:
    """Return what the model makes of each message, asked as workers ask it."""
    from answering.engine import Engine
    from answering.generators.loading import load_generator
    from answering.pairing import NoEncoder
    from answering.rewriting import by_model
    from training.evaluation import report

    key = settings.reply_model_key
    generator = load_generator(
        settings.reply_model,
        settings.models_dir,
        device=settings.device,
        adapter=settings.adapter,
        url=settings.reply_model_url,
        key=key.get_secret_value() if key else None,
        threads=settings.threads,
    )
    engine = Engine(NoEncoder(), generator).start()
    tell = report.progress("Rewrites", len(asked))
    written: list[str | None] = []
    try:
        for start in range(0, len(asked), AT_ONCE):
            some = asked[start : start + AT_ONCE]
            written += await asyncio.gather(
                *(by_model(f.message, f.history, engine.generate) for f in some)
            )
            tell(len(written))
    finally:
        await asyncio.to_thread(engine.close)
        generator.close()
    return written
