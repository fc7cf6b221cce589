"""`deskhand eval retrieval`: how well the entry that answers is found."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.types import FaqEntry
    from training.evaluation.retrieval import Query


class Noise(StrEnum):
    """What is done to the customers' words."""

    NONE = "none"
    WRITTEN = "written"
    SPOKEN = "spoken"


def retrieval(
    context: typer.Context,
    faq: Annotated[
        Path | None, typer.Option(help='JSONL {"id", "question", "answer", ...}.')
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help='JSONL {"id", "text" or "turns", "relevant"}.')
    ] = None,
    made: Annotated[
        int, typer.Option(min=1, help="Without --queries: so many conversations made by rule.")
    ] = 400,
    noise: Annotated[
        Noise, typer.Option(help="How the customers of made conversations type or speak.")
    ] = Noise.SPOKEN,
    crosswoz: Annotated[
        Path | None, typer.Option(help="Instead of --faq: folder of CrossWOZ, people's Chinese.")
    ] = None,
    encoder: common.EncoderName = None,
    report_folder: common.ReportFolder = None,
    compare: common.CompareFolder = None,
    json: AsJson = False,
) -> None:
    """Measure how well the entry that answers is found."""
    from answering.languages import language_of
    from training.evaluation import report
    from training.evaluation.outcomes import of_queries
    from training.evaluation.page import Report
    from training.evaluation.retrieval import evaluate

    common.check_report(report_folder, compare)
    entries, asked, title = _wanted(faq, queries, crosswoz, made, noise)
    loaded = common.encoder_of(configuration.of(context), encoder)
    kept: list[tuple[Query, Sequence[str], float]] = []

    def locale_of(text: str) -> str:
        return language_of(text, fallback=entries[0].locale)

    figures = evaluate(
        entries,
        asked,
        loaded,
        locale_of,
        report.progress("Queries", sum(bool(query.relevant) for query in asked)),
        keep=lambda *found: kept.append(found),
    )
    common.show(f"Retrieval of {title}", figures, as_json=json)
    page = Report(
        f"Retrieval of {title}", figures, of_queries(kept, entries, locale_of),
        {"entries": faq.name if faq else str(len(entries)), "encoder": loaded.name},
    )  # fmt: skip
    common.write_report(page, report_folder, compare)


def _wanted(
    faq: Path | None, queries: Path | None, crosswoz: Path | None, made: int, noise: Noise
) -> tuple[Sequence[FaqEntry], list[Query], str]:
    """Return the entries, what is asked of them, and what a person calls it.

    Raises:
        InvalidInput: It is not clear what is wanted, or a file is wrong.
    """
    from core.errors import InvalidInput
    from training.evaluation import crosswoz as chinese

    if crosswoz is not None and faq is None and queries is None:
        known, asked = chinese.read(crosswoz, made)
        return known, asked, f"{len(asked)} questions of CrossWOZ"
    if faq is None or crosswoz is not None:
        raise InvalidInput("Give either --faq, with --queries where there are some, or --crosswoz.")
    entries = common.entries_of(faq)
    if queries:
        return entries, _asked(queries), queries.name
    made_up = _made(faq, entries, made, noise)
    return entries, made_up, f"{len(made_up)} {noise} conversations made by rule"


def _asked(queries: Path) -> list[Query]:
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.retrieval import query_of

    rows = report.read_jsonl(queries, ("relevant",))
    for number, row in enumerate(rows, start=1):
        if not row.get("turns") and not row.get("text"):
            raise InvalidInput(f"{queries} line {number}: text or turns is needed.", field="text")
    return [query_of(row, number) for number, row in enumerate(rows, start=1)]


def _made(faq: Path, entries: Sequence[FaqEntry], count: int, noise: Noise) -> list[Query]:
    from core.errors import InvalidInput
    from training.evaluation.retrieval import made_queries

    try:
        return made_queries(entries, count, noise.value)
    except ValueError as error:
        raise InvalidInput(
            f"{faq}: no conversations can be made of it ({error}) Give --queries.", field="queries"
        ) from None
