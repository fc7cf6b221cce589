"""`deskhand slack`: what connecting a workspace needs."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import printing


def register(app: typer.Typer) -> None:
    """Add the commands."""
    slack = typer.Typer(no_args_is_help=True, help="What connecting Slack needs.")
    slack.callback()(lambda: None)  # one command alone would lose its name
    slack.command()(manifest)
    app.add_typer(slack, name="slack")


def manifest(
    url: Annotated[
        str | None,
        typer.Option(help="The gateway's public https address; without it, for Socket Mode."),
    ] = None,
    name: Annotated[str, typer.Option(help="Of the app and its bot.")] = "Deskhand",
) -> None:
    """Print the manifest to paste where Slack makes an app."""
    from bots.slack import manifest

    printing.as_json(manifest.manifest(url, name))
