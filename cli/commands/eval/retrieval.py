"""`deskhand eval retrieval`: how well the entry that answers is found."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson


def retrieval(
    context: typer.Context,
    faq: Annotated[Path, typer.Option(help='JSONL {"id", "question", "answer", ...}.')],
    queries: Annotated[Path, typer.Option(help='JSONL {"id", "text" or "turns", "relevant"}.')],
    encoder: common.EncoderName = None,
    json: AsJson = False,
) -> None:
    """Measure how well the entry that answers is found."""
    from answering.languages import language_of
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.retrieval import evaluate, query_of

    entries = common.entries_of(faq)
    rows = report.read_jsonl(queries, ("relevant",))
    for number, row in enumerate(rows, start=1):
        if not row.get("turns") and not row.get("text"):
            raise InvalidInput(f"{queries} line {number}: text or turns is needed.", field="text")
    asked = [query_of(row, number) for number, row in enumerate(rows, start=1)]
    figures = evaluate(
        entries,
        asked,
        common.encoder_of(configuration.of(context), encoder),
        lambda text: language_of(text, fallback=entries[0].locale),
        report.progress("Queries", sum(bool(query.relevant) for query in asked)),
    )
    common.show(f"Retrieval of {queries.name}", figures, as_json=json)
