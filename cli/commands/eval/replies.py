"""`deskhand eval replies`: how well the whole pipeline answers."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration
from cli.commands.eval import common
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.settings import Settings
    from core.types import FaqEntry
    from training.evaluation.page import Report
    from training.evaluation.replies import Case, Result


def replies(
    context: typer.Context,
    faq: Annotated[
        Path | None, typer.Option(help="JSONL of entries; the sample shop's when not given.")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help='JSONL {"id", "turns", ...}; the sample shop\'s else.')
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where each reply is written, as JSONL.")] = None,
    encoder: common.EncoderName = None,
    reply_model: Annotated[
        str | None, typer.Option(help="A name or path, `none` for approved answers alone.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter.")] = None,
    report_folder: common.ReportFolder = None,
    compare: common.CompareFolder = None,
    json: AsJson = False,
) -> None:
    """Run the whole pipeline on conversations and measure what it says."""
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.replies import as_expected, case_of, figures

    common.check_report(report_folder, compare)
    if (faq is None) != (cases is None):
        raise InvalidInput("Give both --faq and --cases, or neither for the sample shop.")
    entries = common.entries_of(faq) if faq else None
    rows = report.read_jsonl(cases, ("id", "turns")) if cases else _sample_cases()
    wanted = [
        case_of(row, f"{cases or 'conversations.jsonl'} line {number}")
        for number, row in enumerate(rows, start=1)
    ]
    settings = configuration.of(context)
    changed = {
        name: value
        for name, value in (
            ("encoder", encoder),
            ("reply_model", reply_model),
            ("adapter", str(adapter) if adapter else None),
        )
        if value is not None
    }
    settings = settings.model_copy(update=changed)
    said = asyncio.run(answer_all(settings, entries, wanted))
    if out is not None:
        lines = [json_module.dumps(result.line(), ensure_ascii=False) for result in said]
        out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    measured = figures(said, entries or _sample_entries())
    if not json:
        for missed in (r for r in said if r.case.expect and not as_expected(r)):
            typer.echo(
                f"missed {missed.case.id}: expected {missed.case.expect}, "
                f"got {missed.reply.choice.decision} ({missed.reply.choice.why})"
            )
    common.show("Replies", measured, as_json=json)
    common.write_report(_page(said, measured, settings, faq, cases), report_folder, compare)


def _page(
    said: Sequence[Result],
    measured: Mapping[str, Any],
    settings: Settings,
    faq: Path | None,
    cases: Path | None,
) -> Report:
    from training.evaluation.outcomes import of_replies
    from training.evaluation.page import Report

    about = {
        "entries": faq.name if faq else "the sample shop",
        "encoder": settings.encoder,
        "reply model": settings.reply_model,
        "adapter": settings.adapter or "",
    }
    name = cases.name if cases else "the sample shop's conversations"
    return Report(
        f"Replies to {name}", measured, of_replies(said), {k: str(v) for k, v in about.items()}
    )


class _Shipped:
    """The vectors that ship with the sample shop, so that nothing of it is encoded again."""

    def __init__(self) -> None:
        from cli.commands import sample

        self.encoder, self._vectors = sample.shipped_vectors()

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return the vectors that are known."""
        return {digest: self._vectors[digest] for digest in hashes if digest in self._vectors}

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep nothing: the file is made by a command of its own."""


async def answer_all(
    settings: Settings, entries: Sequence[FaqEntry] | None, cases: Sequence[Case]
) -> list[Result]:
    """Return what the pipeline says to each case; without entries it runs on the sample shop."""
    from core.types import KnowledgeBase, KnowledgeBaseId
    from training.evaluation import report, samples
    from training.evaluation.replies import run

    pipeline = common.pipeline(settings)
    try:
        known = entries if entries is not None else samples.sample_entries()
        own = samples.sample_examples() if entries is None else []
        texts = samples.sample_texts() if entries is None else {}
        base = KnowledgeBase(KnowledgeBaseId(0), "evaluated", known[0].locale, texts=texts)
        shipped = _Shipped()
        # What ships with the product (examples of small talk) is known for every base.
        vectors = shipped if shipped.encoder == pipeline.encoder_name else None
        await pipeline.refresh(base, known, intents=own, vectors=vectors)
        return await run(pipeline, base, cases, known, report.progress("Replies", len(cases)))
    finally:
        await asyncio.to_thread(pipeline.close)


def _sample_entries() -> list[FaqEntry]:
    from training.evaluation.samples import sample_entries

    return sample_entries()


def _sample_cases() -> list[dict[str, Any]]:
    from training.evaluation.samples import sample_conversations

    return sample_conversations()
