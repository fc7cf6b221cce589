"""`deskhand doctor`: what is well, what is not, and what to do."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration

if TYPE_CHECKING:
    from cli.health import Installation

SIGNS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}
NAME_WIDTH = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Examine this installation; exit 0 when it is healthy."""
    from cli import health

    findings = health.examine(_installation(context))
    healthy = health.is_healthy(findings)
    if as_json:
        checks = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"healthy": healthy, "checks": checks}, ensure_ascii=False, indent=2))
    else:
        for finding in findings:
            advice = f" -> {finding.advice}" if finding.advice else ""
            print(f"{SIGNS[finding.state]}  {finding.name:<{NAME_WIDTH}}  {finding.text}{advice}")
        print("This installation is healthy." if healthy else "Something needs your attention.")
    raise typer.Exit(0 if healthy else 1)


def _installation(context: typer.Context) -> Installation:
    from cli.health import Installation

    file = configuration.options(context).config
    given = configuration.load(file)
    return Installation(given, configuration.completed(given), file)
