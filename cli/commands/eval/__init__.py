"""`deskhand eval`: how well intents, retrieval and whole replies do on files of your own."""

from __future__ import annotations

import typer

from cli.commands.eval.intents import intents
from cli.commands.eval.replies import replies
from cli.commands.eval.retrieval import retrieval
from cli.commands.eval.rewriting import rewriting
from cli.commands.eval.risk import risk
from cli.commands.eval.safety import safety
from cli.commands.eval.signals import signals
from cli.commands.eval.verifier import verifier


def register(app: typer.Typer) -> None:
    """Add the commands."""
    evaluate = typer.Typer(no_args_is_help=True, help="Measure quality on labelled files.")
    evaluate.command("intents")(intents)
    evaluate.command("retrieval")(retrieval)
    evaluate.command("replies")(replies)
    evaluate.command("rewriting")(rewriting)
    evaluate.command("risk")(risk)
    evaluate.command("safety")(safety)
    evaluate.command("signals")(signals)
    evaluate.command("verifier")(verifier)
    app.add_typer(evaluate, name="eval")
