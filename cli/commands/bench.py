"""`deskhand bench`: measures the whole service on this machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import configuration
from core.errors import ConfigurationError

ROOT = Path(__file__).parents[2]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(bench)


def bench(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer messages, rougher.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure acknowledge times, times to reply, throughput, overhead and memory."""
    if not (ROOT / "benchmarks").is_dir():
        raise ConfigurationError("`deskhand bench` needs a checkout: the benchmarks are not here.")
    settings = configuration.of(context)
    command = [sys.executable, "-m", "benchmarks.service", "--models", str(settings.models_dir)]
    command += ["--quick"] * quick + ["--json"] * as_json
    # A child, since benchmarks stand above the command line and may use the tests' emulators.
    raise typer.Exit(subprocess.run(command, cwd=ROOT, check=False).returncode)
