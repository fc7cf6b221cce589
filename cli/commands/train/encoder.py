"""`deskhand train encoder`: an adapter of the encoder from an FAQ and what staff corrected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration, printing
from cli.commands.train.common import progress
from cli.commands.train.registering import Register, register_folder
from cli.printing import AsJson
from core.errors import InvalidInput
from core.types import ModelKind

if TYPE_CHECKING:
    from retrieval.encoders.protocol import Encoder
    from training.encoder.session import Material

OUT = Path("encoder-adapter")
SHIPPED = "shipped"


def train_encoder(
    context: typer.Context,
    faq: Annotated[
        Path | None, typer.Option(help="JSONL of entries, as `deskhand faq export` writes it.")
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option(help='JSONL of {"text" or "turns", "relevant", "not"?}; may be repeated.'),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="`shipped` makes the adapter that ships, from --data.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the public sets of --recipe shipped.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the adapter is written.")] = OUT,
    encoder: Annotated[
        str | None, typer.Option(help="A name or folder; the setting when not given.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches taken.")] = 200,
    rank: Annotated[int, typer.Option(min=1, max=64, help="Of the adapter.")] = 16,
    layers: Annotated[
        int, typer.Option(min=0, help="Only so many of the last layers; 0 takes all.")
    ] = 8,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 3e-4,
    share: Annotated[
        float, typer.Option(min=0.05, max=1.0, help="How far to go towards the tuned weights.")
    ] = 0.5,
    keep: Annotated[
        float, typer.Option(min=0.0, help="Weight of leaving texts in other languages alone.")
    ] = 2.0,
    seed: Annotated[int, typer.Option()] = 0,
    checkpoint_every: Annotated[
        int, typer.Option(min=1, help="Steps after which an interrupted run can go on.")
    ] = 50,
    register: Register = False,
    json: AsJson = False,
) -> None:
    """Tune the encoder on an FAQ and on corrections; kept only if held-out questions find more."""
    from cli.commands.eval.common import encoder_of
    from training.encoder import session
    from training.encoder.loop import Recipe

    if not 0 < lr < 1:
        raise InvalidInput(f"--lr {lr} is no learning rate; give one such as 0.0003", field="lr")
    settings = configuration.of(context)
    loaded = encoder_of(settings, encoder)
    progress("Encoding with the encoder as it is")
    if recipe is not None:
        what = _shipped(recipe, data, loaded, seed)
    else:
        what = _own(faq, pairs or [], loaded, seed)
    plan = Recipe(
        steps=steps, learning_rate=lr, rank=rank, layers=layers, share=share, keep_weight=keep,
        seed=seed,
    )  # fmt: skip
    outcome = session.run(what, loaded, plan, out, progress, checkpoint_every=checkpoint_every)
    version = register_folder(context, out, ModelKind.ENCODER).name if register else None
    if json:
        printing.as_json({"adapter": str(out), "version": version, **vars(outcome)})
        return
    typer.echo(
        f"{out}: {outcome.adapter_bytes / 1e6:.1f} MB after {outcome.steps} steps, "
        f"{outcome.seconds / 60:.0f} min; on {outcome.questions} held-out questions MRR "
        f"{outcome.mrr_before:.3f} -> {outcome.mrr_after:.3f}"
    )


def _own(faq: Path | None, pairs: list[Path], encoder: Encoder, seed: int) -> Material:
    from cli.commands.eval.common import entries_of
    from training.encoder import corpora, session

    if faq is None:
        raise InvalidInput("give --faq, or --recipe shipped with --data", field="faq")
    given = [pair for place in pairs for pair in session.read_pairs(place)]
    return session.material(entries_of(faq), given, encoder, corpora.abroad(), seed, progress)


def _shipped(recipe: str, data: Path | None, encoder: Encoder, seed: int) -> Material:
    from training.encoder import corpora

    if recipe != SHIPPED:
        raise InvalidInput(f"there is no recipe {recipe!r}; there is `shipped`", field="recipe")
    if data is None:
        raise InvalidInput("--recipe shipped needs --data, the folder of the public sets",
                           field="data")  # fmt: skip
    return corpora.shipped(data, encoder, seed)
