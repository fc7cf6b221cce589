"""`deskhand train`: make heads and adapters from files."""

from __future__ import annotations

import typer

from cli.commands.train.augment import train_augment
from cli.commands.train.encoder import train_encoder
from cli.commands.train.intents import train_intents
from cli.commands.train.replies import train_replies
from cli.commands.train.verifier import train_verifier


def register(app: typer.Typer) -> None:
    """Add the commands."""
    train = typer.Typer(no_args_is_help=True, help="Train models on your own data.")
    train.command("replies")(train_replies)
    train.command("encoder")(train_encoder)
    train.command("intents")(train_intents)
    train.command("augment")(train_augment)
    train.command("verifier")(train_verifier)
    app.add_typer(train, name="train")
