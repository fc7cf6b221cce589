"""`deskhand train`: make heads and adapters from files."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cli import configuration, printing
from cli.printing import AsJson
from core.errors import InvalidInput

OUT = Path("adapter")
INTENTS_OUT = Path("intents")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    train = typer.Typer(no_args_is_help=True, help="Train models on your own data.")
    train.command("replies")(train_replies)
    train.command("intents")(train_intents)
    app.add_typer(train, name="train")


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
        base=base or preparing.prepare_reply_base(settings.models_dir, _progress),
        base_name=base.name if base else preparing.BASE_NAME,
        start=adapter,
        threads=threads or settings.threads,
    )
    recipe = Recipe(
        epochs=epochs, rank=rank, learning_rate=lr, batch=batch, seed=seed, max_steps=max_steps
    )
    outcome = session.run(request, recipe, out, _progress)
    if json:
        printing.as_json({"adapter": str(out), **vars(outcome)})
        return
    typer.echo(
        f"{out}: {outcome.adapter_bytes / 1e6:.1f} MB after {outcome.steps} steps, "
        f"{outcome.seconds / 60:.0f} min; validation loss {outcome.loss_before:.3f} -> "
        f"{outcome.loss_best:.3f} (step {outcome.best_step})"
    )


def train_intents(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="CSV text,label.")],
    out: Annotated[Path, typer.Option(help="Folder in which the head is written.")] = INTENTS_OUT,
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
        preparing.prepare_encoder(settings.models_dir, _progress)
    _progress(f"Fitting on {len(examples)} messages")
    loaded = load_encoder(name, settings.models_dir, settings.device)
    figures = intents.train(examples, loaded, out, seed=seed)
    if json:
        printing.as_json(figures)
    else:
        typer.echo("\n".join(report.lines(f"Intent head of {data.name}", figures)))


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


def _progress(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
