"""`deskhand train verifier`: the model that checks each sentence before it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import configuration, printing
from cli.commands.train.common import progress
from cli.commands.train.registering import Register, register_folder
from cli.printing import AsJson
from core.errors import InvalidInput
from core.types import ModelKind

OUT = Path("verifier")


def train_verifier(
    context: typer.Context,
    dstc9: Annotated[
        Path, typer.Option(help="Folder of grounded_dstc9_pairs, from which cases are made.")
    ],
    begin: Annotated[
        Path | None, typer.Option(help="BEGIN's folder; its share-alike part is left out.")
    ] = None,
    own: Annotated[
        Path | None, typer.Option(help="JSONL of good replies, as `train replies --data` takes.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the verifier is written.")] = OUT,
    count: Annotated[
        int, typer.Option(min=16, help="So many made examples; 9,000 take a core 12 minutes.")
    ] = 9000,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    rank: Annotated[int, typer.Option(min=1, max=32, help="Of the adapter.")] = 8,
    layers: Annotated[
        int, typer.Option(min=0, help="Only so many of the last layers; 0 takes all.")
    ] = 0,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-3,
    encoder: Annotated[
        str | None, typer.Option(help="A name or folder; the setting when not given.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    register: Register = False,
    json: AsJson = False,
) -> None:
    """Train the check of replies; an interrupted run goes on when started again."""
    from cli.commands.eval.common import encoder_of
    from training import verifier
    from training.cross.loop import Recipe

    if not 0 < lr < 1:
        raise InvalidInput(f"--lr {lr} is no learning rate; give one such as 0.001", field="lr")
    loaded = encoder_of(configuration.of(context), encoder)
    recipe = Recipe(epochs=epochs, learning_rate=lr, rank=rank, layers=layers, seed=seed)
    outcome = verifier.run(loaded, dstc9, begin, own, out, recipe, progress, count)
    version = register_folder(context, out, ModelKind.VERIFIER).name if register else None
    if json:
        printing.as_json({"verifier": str(out), "version": version, **vars(outcome)})
        return
    typer.echo(
        f"{out}: {outcome.weights_bytes / 1e6:.1f} MB from {outcome.examples} examples, "
        f"{outcome.seconds / 60:.0f} min; measure it with `deskhand eval verifier --weights {out}`"
    )
