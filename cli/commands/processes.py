"""`deskhand gateway | worker | sender | scheduler`: each process by itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from cli import configuration

if TYPE_CHECKING:
    from cli.processes.parts import Setup


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (gateway, worker, sender, scheduler):
        app.command()(command)


def gateway(context: typer.Context) -> None:
    """Take messages in; serve the web chat, the API and metrics."""
    from cli.processes import gateway as process

    asyncio.run(process.run(_setup(context, "gateway")))


def worker(context: typer.Context) -> None:
    """Answer: the process that loads the models. Run as many as you need."""
    from cli.processes import worker as process

    raise typer.Exit(process.run(_setup(context, "worker")))


def sender(context: typer.Context) -> None:
    """Send replies to Slack and Telegram. Run as many as you need."""
    from cli.processes import sender as process

    raise typer.Exit(process.run(_setup(context, "sender")))


def scheduler(context: typer.Context) -> None:
    """Ring again for what was missed; poll Telegram; hold Slack's Socket Mode."""
    from cli.processes import scheduler as process

    asyncio.run(process.run(_setup(context, "scheduler")))


def _setup(context: typer.Context, role: str) -> Setup:
    from prometheus_client import start_http_server

    from cli.processes.parts import Setup
    from core.telemetry import configure_logging

    settings = configuration.of(context, create_secrets=True)
    channels = configuration.channel_settings(configuration.options(context).config)
    assert settings.database_url is not None
    assert settings.broker_url is not None
    configure_logging(role, settings.log_level)
    if settings.metrics_port and role != "gateway":  # the gateway shows its own at /metrics
        start_http_server(settings.metrics_port, addr=settings.host)
    return Setup(
        settings,
        channels,
        settings.database_url.get_secret_value(),
        settings.broker_url.get_secret_value(),
    )
