"""`deskhand train replies`: an adapter of the reply model from grounded replies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import configuration, printing
from cli.commands.train.common import progress
from cli.printing import AsJson
from core.errors import InvalidInput

OUT = Path("adapter")


def train_replies(
    context: typer.Context,
    data: Annotated[
        list[Path] | None,
        typer.Option(help='JSONL of {"turns", "passages", "reply", "decision"?}; may be repeated.'),
    ] = None,
    dstc9: Annotated[
        Path | None, typer.Option(help="Folder of grounded_dstc9_pairs, to train on as well.")
    ] = None,
    dstc9_limit: Annotated[int, typer.Option(min=1, help="How many of its pairs.")] = 480,
    out: Annotated[Path, typer.Option(help="Where the adapter is written.")] = OUT,
    adapter: Annotated[
        Path | None, typer.Option(help="An adapter to go on from, instead of a fresh one.")
    ] = None,
    reply_model: Annotated[
        str | None, typer.Option(help="A transformers folder; the default reply model else.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="How often --data counts in a pass.")] = 1,
    rank: Annotated[int, typer.Option(min=1, max=64)] = 8,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 8e-4,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    seed: Annotated[int, typer.Option()] = 0,
    max_steps: Annotated[int, typer.Option(min=0, help="0 takes whole passes.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes all cores.")] = 0,
    json: AsJson = False,
) -> None:
    """Train a LoRA adapter of the reply model on grounded replies."""
    from answering import preparing
    from training.replies import session
    from training.replies.loop import Recipe

    if not 0 < lr < 1:
        raise InvalidInput(f"--lr {lr} is no learning rate; give one such as 0.0005", field="lr")
    settings = configuration.of(context)
    base = _base_folder(reply_model)
    request = session.Request(
        data=tuple(data or ()),
        dstc9=dstc9,
        dstc9_limit=dstc9_limit,
        repeats=repeats,
        base=base or preparing.prepare_reply_base(settings.models_dir, progress),
        base_name=base.name if base else preparing.BASE_NAME,
        start=adapter,
        threads=threads or settings.threads,
    )
    recipe = Recipe(
        epochs=epochs, rank=rank, learning_rate=lr, batch=batch, seed=seed, max_steps=max_steps
    )
    outcome = session.run(request, recipe, out, progress)
    if json:
        printing.as_json({"adapter": str(out), **vars(outcome)})
        return
    typer.echo(
        f"{out}: {outcome.adapter_bytes / 1e6:.1f} MB after {outcome.steps} steps, "
        f"{outcome.seconds / 60:.0f} min; validation loss {outcome.loss_before:.3f} -> "
        f"{outcome.loss_best:.3f} (step {outcome.best_step})"
    )


def _base_folder(reply_model: str | None) -> Path | None:
    """Return the folder that was named, None for the default model."""
    from answering import preparing

    if reply_model is None or reply_model == preparing.REPLY_MODEL:
        return None
    folder = Path(reply_model)
    if not (folder / "config.json").is_file():
        raise InvalidInput(f"{folder} is no transformers folder: it lacks config.json",
                           field="reply_model")  # fmt: skip
    return folder
