"""`deskhand calibrate`: fit from which confidence on a base answers, so that its rate is kept."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli import printing
from cli.printing import AsJson


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(calibrate)


def calibrate(
    context: typer.Context,
    base: Annotated[str, typer.Option("--base", help="The knowledge base.")] = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell, and change nothing.")] = False,
    json: AsJson = False,
) -> None:
    """Fit a base's thresholds on its labels; workers switch to them within seconds."""
    from cli import direct
    from training import certifying

    outcome = direct.run(
        context,
        lambda database, settings: certifying.calibrate(
            database, settings, base, dry_run=dry_run, author=direct.user()
        ),
    )
    figures = certifying.figures(outcome)
    if json:
        printing.as_json(figures)
    else:
        _print(figures)


def _print(figures: dict[str, Any]) -> None:
    others = [
        f"{figures['weak_labels']} weak ones move the calibrator alone",
        f"{figures['unusable_labels']} do not say whether the bot's best entry was right",
    ]
    typer.echo(
        f"{figures['base']}: {figures['labels']} labels certify; {'; '.join(others)}.\n"
        f"At most {figures['tolerated']:.1%} of the answers wrong, with confidence "
        f"{figures['confidence']:.0%}; confidence from: {figures['calibrator']}.\n"
    )
    printing.table(
        ("language", "labels", "answer from", "certified", "answered", "wrong", "at most wrong"),
        [
            (
                name,
                of["labels"],
                "" if of["answer_from"] is None else f"{of['answer_from']:.4f}",
                _verdict(of, figures["tolerated"]),
                of["answered"] or "",
                of["failures"] if of["certified"] else "",
                f"{of['upper']:.1%}" if of["certified"] else "",
            )
            for name, of in figures["languages"].items()
        ],
        empty="",
    )
    if figures["curve"]:
        typer.echo("\nCoverage against error:")
        printing.table(
            ("from", "answered", "wrong", "interval"),
            [
                (
                    f"{point['threshold']:.4f}",
                    f"{point['coverage']:.1%}",
                    f"{point['error']:.1%}",
                    f"{point['low']:.1%} to {point['high']:.1%}",
                )
                for point in figures["curve"]
            ],
            empty="",
        )
    named = f"{figures['version']}: " if figures["version"] else ""
    typer.echo(f"\n{named}{figures['note']}.")


def _verdict(of: dict[str, Any], tolerated: float) -> str:
    if of["certified"]:
        return "certified"
    borrowed = "; the threshold of all languages stands in" if of["basis"] == "pooled" else ""
    if of["labels"] == 0 or of["more_labels"] is not None:
        return f"not certified: about {of['more_labels']} more labels would do{borrowed}"
    return f"not certified: more than {tolerated:.0%} wrong at every threshold{borrowed}"
