"""`deskhand train augment`: more labelled examples from few."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration, printing
from cli.commands.train.common import progress
from cli.printing import AsJson

if TYPE_CHECKING:
    from answering.generators.protocol import Generator
    from core.settings import Settings

DEFAULT_KINDS = "typing,synonyms,entities"
ANSWER_SECONDS = 120.0
"""No customer waits: a large model may take its time."""
OPENAI = "openai:"


def train_augment(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="CSV text,label to make others of.")],
    out: Annotated[Path, typer.Option(help="CSV that is written: the given rows and the made.")],
    kinds: Annotated[
        str,
        typer.Option(help="Of typing, synonyms, entities, paraphrase and backtranslation."),
    ] = DEFAULT_KINDS,
    per_example: Annotated[
        int, typer.Option(min=1, max=20, help="How many of each kind an example, at most.")
    ] = 1,
    keep_out: Annotated[
        list[Path] | None,
        typer.Option(help="CSV whose texts must not be made, such as a test part; repeatable."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name on an OpenAI-compatible server; the setting else.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="Its base URL, such as http://host:8000/v1.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of chance, so that a run can be repeated.")] = 7,
    json: AsJson = False,
) -> None:
    """Make more labelled examples: typing noise, synonyms, entities, a model's own words."""
    from training import augmenting

    given = augmenting.read(data)
    away = [text for path in keep_out or () for text in augmenting.texts_of(path)]
    wanted = [kind.strip() for kind in kinds.split(",") if kind.strip()]
    writer = None
    if any(kind in augmenting.BY_MODEL for kind in wanted):
        writer = _model(configuration.of(context), model, url)
    try:
        made = augmenting.augment(
            given, wanted, per_example=per_example, seed=seed, model=writer, keep_out=away,
            tell=progress,
        )  # fmt: skip
    finally:
        if writer is not None:
            writer.close()
    augmenting.write([*given, *made], out)
    counts = augmenting.counted([*given, *made])
    if json:
        printing.as_json({"out": str(out), "rows": counts})
        return
    said = ", ".join(f"{number} {source}" for source, number in counts.items())
    typer.echo(f"{out}: {said}.")


def _model(settings: Settings, model: str | None, url: str | None) -> Generator | None:
    """Return the model that is configured or named; None where there is none."""
    from answering.generators.openai_compatible import OpenAiGenerator

    configured = settings.reply_model.startswith(OPENAI)
    name = model or (settings.reply_model.removeprefix(OPENAI) if configured else "")
    address = url or settings.reply_model_url
    if not name or not address:
        return None
    # the key belongs to the server of the settings and goes to no other
    key = settings.reply_model_key if address == settings.reply_model_url else None
    return OpenAiGenerator(
        address, name, key.get_secret_value() if key else None, timeout_seconds=ANSWER_SECONDS
    )
