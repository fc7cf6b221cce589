"""`deskhand train replies`: an adapter of the reply model from grounded replies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration, printing
from cli.commands.train import registering
from cli.commands.train.common import progress
from cli.commands.train.registering import Register
from cli.printing import AsJson
from core.errors import InvalidInput

if TYPE_CHECKING:
    from training.replies.cleaning import Lesson
    from training.replies.recipe import Outcome, Recipe

OUT = Path("adapter")
SAMPLE = Path(__file__).parent.parent / "sample_shop" / "replies.jsonl"
GATE_SHARE = 0.2
"""Of the entries, held out where a promotion is to be judged by them."""
FEWEST_DESK_PAIRS = 20


def train_replies(
    context: typer.Context,
    data: Annotated[
        list[Path] | None,
        typer.Option(help='JSONL of {"turns", "passages", "reply", "decision"?}; may be repeated.'),
    ] = None,
    from_desk: Annotated[
        bool, typer.Option("--from-desk", help="Learn from agents' replies in conversations.")
    ] = False,
    rehearsal: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="With --from-desk: the share of older pairs.")
    ] = 0.5,
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
    method: Annotated[
        str,
        typer.Option(help="lora, adalora, prefix, ia3, bottleneck, full or last-layers."),
    ] = "lora",
    epochs: Annotated[int, typer.Option(min=1)] = 1,
    repeats: Annotated[int, typer.Option(min=1, help="How often --data counts in a pass.")] = 1,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Size of the adapter.")] = 8,
    last_layers: Annotated[
        int, typer.Option(min=1, help="How many --method last-layers trains.")
    ] = 2,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 8e-4,
    optimizer: Annotated[str, typer.Option(help="adamw or adafactor.")] = "adamw",
    schedule: Annotated[
        str, typer.Option(help="Of the rate after the warm-up: cosine, linear or constant.")
    ] = "cosine",
    warmup: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Share of the steps with a rising rate.")
    ] = 0.06,
    weight_decay: Annotated[float, typer.Option(min=0.0)] = 0.01,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.9, help="Within the adapter.")] = 0.0,
    batch: Annotated[int, typer.Option(min=1)] = 8,
    accumulate: Annotated[
        int, typer.Option(min=1, help="Parts in which a batch is run, for less memory.")
    ] = 1,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Less memory for more time.")
    ] = False,
    precision: Annotated[str, typer.Option(help="fp32, bf16, or fp16 on a GPU.")] = "fp32",
    patience: Annotated[
        int, typer.Option(min=0, help="End after so many checks without a better one; 0 never.")
    ] = 0,
    checks: Annotated[int, typer.Option(min=1, help="How often it is validated.")] = 4,
    action_weight: Annotated[
        float, typer.Option(min=0.0, help="Lambda of the loss of what was decided; 0 is without.")
    ] = 0.0,
    adversarial: Annotated[
        float, typer.Option(min=0.0, help="Epsilon of steps against the embeddings; 0 is without.")
    ] = 0.0,
    ensemble: Annotated[
        int, typer.Option(min=1, max=10, help="Train so many and take their mean.")
    ] = 1,
    search: Annotated[
        int, typer.Option(min=0, help="Short trials for learning rate, rank and lambda first.")
    ] = 0,
    longest: Annotated[
        int, typer.Option(min=64, help="Tokens of the longest pair that is taken.")
    ] = 640,
    seed: Annotated[int, typer.Option()] = 0,
    max_steps: Annotated[int, typer.Option(min=0, help="0 takes whole passes.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 takes all cores.")] = 0,
    wandb: Annotated[
        str | None, typer.Option(help="Weights & Biases project; WANDB_API_KEY alone does too.")
    ] = None,
    register: Register = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Register, and serve if it is no worse.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Tune the reply model on grounded replies; what is there stays if the new one is no better."""
    from training.replies.recipe import Recipe

    recipe = Recipe(
        epochs=epochs, rank=rank, learning_rate=lr, batch=batch, seed=seed, max_steps=max_steps,
        checks=checks, warmup_share=warmup, weight_decay=weight_decay, accumulate=accumulate,
        patience=patience, method=method.replace("-", "_"), dropout=dropout,
        last_layers=last_layers, optimizer=optimizer, schedule=schedule, precision=precision,
        checkpointing=checkpointing, action_weight=action_weight, adversarial=adversarial,
    )  # fmt: skip
    check(recipe)
    _train(
        context, recipe, data=tuple(data or ()), from_desk=from_desk, rehearsal=rehearsal,
        dstc9=dstc9, dstc9_limit=dstc9_limit, out=out, adapter=adapter, reply_model=reply_model,
        repeats=repeats, ensemble=ensemble, search=search, longest=longest, threads=threads,
        wandb=wandb, registers=register or promote, promotes=promote, json=json,
    )  # fmt: skip


def check(recipe: Recipe) -> None:
    """Refuse a recipe with a name or number that means nothing.

    Raises:
        InvalidInput: Names the option.
    """
    from training.replies import methods
    from training.replies.recipe import OPTIMIZERS, PRECISIONS, SCHEDULES

    if not 0 < recipe.learning_rate < 1:
        raise InvalidInput(f"--lr {recipe.learning_rate} is no learning rate; give one such as "
                           "0.0005", field="lr")  # fmt: skip
    methods.named(recipe.method)
    for option, value, known in (
        ("optimizer", recipe.optimizer, OPTIMIZERS),
        ("schedule", recipe.schedule, SCHEDULES),
        ("precision", recipe.precision, tuple(PRECISIONS)),
    ):
        if value not in known:
            raise InvalidInput(
                f"--{option} {value!r} is not known; there are {', '.join(known)}", field=option
            )


def _train(
    context: typer.Context,
    recipe: Recipe,
    *,
    data: tuple[Path, ...],
    from_desk: bool,
    rehearsal: float,
    out: Path,
    adapter: Path | None,
    reply_model: str | None,
    ensemble: int,
    search: int,
    wandb: str | None,
    threads: int,
    registers: bool,
    promotes: bool,
    json: bool,
    **further: Any,
) -> None:
    from answering import preparing
    from core.masking import mask_prose as mask
    from training.replies import session

    settings = configuration.of(context)
    desk: tuple[Lesson, ...] = ()
    base = _base_folder(reply_model)
    if from_desk:
        desk = _from_desk(context)
        data = data or (SAMPLE,)
        # what serves is gone on from, so that what it learned before is kept
        adapter = adapter or registering.serving_adapter(context, is_default=base is None)
    place = base or preparing.prepare_reply_base(settings.models_dir, progress)
    request = session.Request(
        data=data,
        base=place,
        base_name=base.name if base else preparing.BASE_NAME,
        start=adapter,
        threads=threads or settings.threads,
        desk=desk,
        rehearsal=rehearsal,
        held_out=GATE_SHARE if promotes else session.HELD_OUT,
        mask=mask,
        **further,
    )
    extras = session.Extras(ensemble, search, wandb or _wandb_project())
    outcome = session.run(request, recipe, out, progress, extras)
    told = _told(out, outcome)
    version = None
    if registers and outcome.is_kept:
        version = registering.register_adapter(context, out).name
        if promotes:
            measured = registering.promote_adapter(
                context, version, place, out, is_default=base is None
            )
            told = f"{told}\n{measured}"
    if json:
        printing.as_json({"adapter": str(out), "version": version, **vars(outcome)})
    else:
        typer.echo(told)


def _told(out: Path, outcome: Outcome) -> str:
    if not outcome.is_kept:
        return f"{out} stays as it was: the new one is no better on the validation examples."
    right = (
        ""
        if outcome.action_accuracy is None
        else (f", decisions right {outcome.action_accuracy:.1%}")
    )
    return (
        f"{out}: {outcome.adapter_bytes / 1e6:.1f} MB after {outcome.steps} steps, "
        f"{outcome.seconds / 60:.0f} min; validation loss {outcome.loss_before:.3f} -> "
        f"{outcome.loss_best:.3f} (step {outcome.best_step}){right}"
    )


def _from_desk(context: typer.Context) -> tuple[Lesson, ...]:
    """Return the pairs of the conversations, checked.

    Raises:
        InvalidInput: There are too few.
    """
    from cli import direct
    from core import desk_pairs
    from core.masking import mask_prose as mask
    from training.replies.cleaning import Report
    from training.replies.desk import lessons_of

    pairs = direct.run(context, lambda database, _: desk_pairs.gather(database))
    report = Report()
    lessons = lessons_of(pairs, report, mask)
    for line in report.lines():
        progress(line)
    if len(lessons) < FEWEST_DESK_PAIRS:
        raise InvalidInput(
            f"agents' replies give {len(lessons)} pairs that an entry supports, and "
            f"{FEWEST_DESK_PAIRS} are needed: there is nothing to train yet",
            field="from_desk",
        )
    return tuple(lessons)


def _wandb_project() -> str | None:
    """Return a project where Weights & Biases is configured by its own environment."""
    if not os.environ.get("WANDB_API_KEY"):
        return None
    return os.environ.get("WANDB_PROJECT", "deskhand")


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
