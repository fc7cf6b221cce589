"""`deskhand eval`: how well intents, retrieval and whole replies do on files of your own."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration, printing
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.settings import Settings
    from core.types import FaqEntry
    from retrieval.encoders.protocol import Encoder
    from training.evaluation.replies import Case, Result

EncoderName = Annotated[
    str | None, typer.Option("--encoder", help="A name or folder; the setting when not given.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    evaluate = typer.Typer(no_args_is_help=True, help="Measure quality on labelled files.")
    evaluate.command("intents")(intents)
    evaluate.command("retrieval")(retrieval)
    evaluate.command("replies")(replies)
    app.add_typer(evaluate, name="eval")


def intents(
    context: typer.Context,
    train: Annotated[Path, typer.Option(help="CSV text,label to fit on.")],
    test: Annotated[Path, typer.Option(help="CSV text,label to measure on.")],
    encoder: EncoderName = None,
    json: AsJson = False,
) -> None:
    """Fit the intent head on one file and measure it on another."""
    from training.evaluation import report
    from training.evaluation.intents import evaluate

    fitted_on, measured_on = report.read_labelled(train), report.read_labelled(test)
    figures = evaluate(fitted_on, measured_on, _encoder(configuration.of(context), encoder))
    _show(f"Intents of {test.name}", asdict(figures), as_json=json)


def retrieval(
    context: typer.Context,
    faq: Annotated[Path, typer.Option(help='JSONL {"id", "question", "answer", ...}.')],
    queries: Annotated[Path, typer.Option(help='JSONL {"id", "text" or "turns", "relevant"}.')],
    encoder: EncoderName = None,
    json: AsJson = False,
) -> None:
    """Measure how well the entry that answers is found."""
    from answering.languages import language_of
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.retrieval import evaluate, query_of

    entries = _entries(faq)
    rows = report.read_jsonl(queries, ("relevant",))
    for number, row in enumerate(rows, start=1):
        if not row.get("turns") and not row.get("text"):
            raise InvalidInput(f"{queries} line {number}: text or turns is needed.", field="text")
    asked = [query_of(row, number) for number, row in enumerate(rows, start=1)]
    figures = evaluate(
        entries,
        asked,
        _encoder(configuration.of(context), encoder),
        lambda text: language_of(text, fallback=entries[0].locale),
        report.progress("Queries", sum(bool(query.relevant) for query in asked)),
    )
    _show(f"Retrieval of {queries.name}", figures, as_json=json)


def replies(
    context: typer.Context,
    faq: Annotated[
        Path | None, typer.Option(help="JSONL of entries; the sample shop's when not given.")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help='JSONL {"id", "turns", ...}; the sample shop\'s else.')
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where each reply is written, as JSONL.")] = None,
    encoder: EncoderName = None,
    reply_model: Annotated[
        str | None, typer.Option(help="A name or path, `none` for approved answers alone.")
    ] = None,
    adapter: Annotated[Path | None, typer.Option(help="Folder of a LoRA adapter.")] = None,
    json: AsJson = False,
) -> None:
    """Run the whole pipeline on conversations and measure what it says."""
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.replies import as_expected, case_of, figures

    if (faq is None) != (cases is None):
        raise InvalidInput("Give both --faq and --cases, or neither for the sample shop.")
    entries = _entries(faq) if faq else None
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
    said = asyncio.run(_replies(settings, entries, wanted))
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
    _show("Replies", measured, as_json=json)


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


async def _replies(
    settings: Settings, entries: Sequence[FaqEntry] | None, cases: Sequence[Case]
) -> list[Result]:
    from core.types import KnowledgeBase, KnowledgeBaseId
    from training.evaluation import report, samples
    from training.evaluation.replies import run

    pipeline = _pipeline(settings)
    try:
        known = entries if entries is not None else samples.sample_entries()
        own = samples.sample_examples() if entries is None else []
        texts = samples.sample_texts() if entries is None else {}
        base = KnowledgeBase(KnowledgeBaseId(0), "evaluated", known[0].locale, texts=texts)
        shipped = _Shipped()
        is_ours = entries is None and shipped.encoder == pipeline.encoder_name
        vectors = shipped if is_ours else None
        await pipeline.refresh(base, known, intents=own, vectors=vectors)
        return await run(pipeline, base, cases, known, report.progress("Replies", len(cases)))
    finally:
        await asyncio.to_thread(pipeline.close)


def _show(title: str, figures: Mapping[str, Any], *, as_json: bool) -> None:
    from training.evaluation import report

    if as_json:
        printing.as_json(figures)
    else:
        typer.echo("\n".join(report.lines(title, figures)))


def _pipeline(settings: Settings) -> Any:
    from answering.engine import Engine
    from answering.loading import load_pipeline
    from answering.pipeline import Pipeline

    if settings.reply_model == "none":
        engine = Engine(_encoder(settings, None)).start()
        return Pipeline(engine, style=settings.reply_style)
    _prepare(settings, settings.encoder)
    return load_pipeline(settings, lambda: None)


def _encoder(settings: Settings, name: str | None) -> Encoder:
    from retrieval.encoders.loading import load_encoder

    wanted = name or settings.encoder
    _prepare(settings, wanted)
    return load_encoder(wanted, settings.models_dir, settings.device)


def _prepare(settings: Settings, encoder: str) -> None:
    from answering import preparing

    if encoder == preparing.ENCODER:
        preparing.prepare_encoder(settings.models_dir, lambda line: typer.echo(line, err=True))


def _entries(path: Path) -> list[FaqEntry]:
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.samples import entry_of

    rows = report.read_jsonl(path, ("id", "question", "answer"))
    if not rows:
        raise InvalidInput(f"{path} line 1: there is no entry in this file.")
    return [entry_of(row, number) for number, row in enumerate(rows, start=1)]


def _sample_entries() -> list[FaqEntry]:
    from training.evaluation.samples import sample_entries

    return sample_entries()


def _sample_cases() -> list[dict[str, Any]]:
    from training.evaluation.samples import sample_conversations

    return sample_conversations()
