"""`deskhand eval replies`: how well the whole pipeline answers."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration, printing
from cli.commands.eval import asking, common
from cli.commands.eval.asking import Answered, Asked, Variant, Vectors
from cli.commands.eval.retrieval import Noise
from cli.printing import AsJson
from core.types import ReplyStyle

if TYPE_CHECKING:
    from core.types import FaqEntry
    from training.evaluation.page import Report
    from training.evaluation.replies import Case

APART = ("tiers", "languages", "curve", "variants", "compared")
"""Figures that are tables of their own."""


def replies(
    context: typer.Context,
    faq: Annotated[
        Path | None, typer.Option(help="JSONL of entries; the sample shop's when not given.")
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help='JSONL {"id", "turns", ...}; the sample shop\'s else.')
    ] = None,
    made: Annotated[
        int, typer.Option(min=0, help="Instead of --cases: so many conversations made by rule.")
    ] = 0,
    noise: Annotated[
        Noise, typer.Option(help="How the customers of made conversations type or speak.")
    ] = Noise.NONE,
    leave_out: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Ask again without this share of the entries.")
    ] = 0.0,
    out: Annotated[Path | None, typer.Option(help="Where each reply is written, as JSONL.")] = None,
    encoder: common.EncoderName = None,
    reply_model: Annotated[
        list[str] | None,
        typer.Option(
            "--reply-model",
            "--model",
            help="A name or path, `none` for approved answers alone. Again for another variant.",
        ),
    ] = None,
    adapter: Annotated[
        list[Path] | None, typer.Option(help="Folder of a LoRA adapter. Again for another variant.")
    ] = None,
    style: Annotated[
        list[ReplyStyle] | None, typer.Option(help="Reply style. Again for another variant.")
    ] = None,
    report_folder: common.ReportFolder = None,
    compare: common.CompareFolder = None,
    json: AsJson = False,
) -> None:
    """Run the whole pipeline on conversations and measure what it says."""
    from training.evaluation.replies import as_expected

    common.check_report(report_folder, compare)
    asked, name = _asked(faq, cases, made, noise, leave_out)
    settings = configuration.of(context)
    variants = asking.variants_of(
        settings.model_copy(update={"encoder": encoder} if encoder else {}),
        {
            "reply_model": reply_model or (),
            "adapter": [str(folder) for folder in adapter or ()],
            "reply_style": style or (),
        },
    )
    said = _answered(variants, asked)
    if out is not None:
        _write(out, [answered for _, answered in said])
    measured = _measured(said, asked.entries or _sample_entries())
    first, answered = said[0]
    if json:
        printing.as_json(measured)
    else:
        for missed in (r for r in answered.present if r.case.expect and not as_expected(r)):
            typer.echo(
                f"missed {missed.case.id}: expected {missed.case.expect}, "
                f"got {missed.reply.choice.decision} ({missed.reply.choice.why})"
            )
        _print(measured)
    common.write_report(_page(name, faq, first, answered, measured), report_folder, compare)


def _asked(
    faq: Path | None, cases: Path | None, made: int, noise: Noise, leave_out: float
) -> tuple[Asked, str]:
    """Return what is asked, and what a person calls it."""
    from core.errors import InvalidInput
    from training.evaluation.leaving_out import folds

    if faq is None and (cases is not None or made):
        raise InvalidInput("Give --faq with --cases or --made, or none for the sample shop.")
    if faq is not None and (cases is None) == (made == 0):
        raise InvalidInput("Give either --cases or --made with --faq.")
    entries = common.entries_of(faq) if faq else None
    rows, name = _rows(faq, entries, cases, made, noise)
    wanted = _cases(rows, str(cases or "conversations.jsonl"))
    parts = folds(entries or _sample_entries(), wanted, leave_out) if leave_out else ()
    return Asked(entries, wanted, parts), name


def _rows(
    faq: Path | None,
    entries: Sequence[FaqEntry] | None,
    cases: Path | None,
    made: int,
    noise: Noise,
) -> tuple[Sequence[Mapping[str, Any]], str]:
    from core.errors import InvalidInput
    from training.evaluation import report, samples
    from training.evaluation.replies import made_rows

    if cases is not None:
        return report.read_jsonl(cases, ("id", "turns")), cases.name
    if entries is None:
        return samples.sample_conversations(), "the sample shop's conversations"
    try:
        return made_rows(entries, made, noise.value), f"{made} conversations made by rule"
    except ValueError as error:
        raise InvalidInput(
            f"{faq}: no conversations can be made of it ({error}) Give --cases.", field="cases"
        ) from None


def _cases(rows: Sequence[Mapping[str, Any]], where: str) -> list[Case]:
    from training.evaluation.replies import case_of

    return [case_of(row, f"{where} line {number}") for number, row in enumerate(rows, start=1)]


def _answered(variants: Sequence[Variant], asked: Asked) -> list[tuple[Variant, Answered]]:
    vectors = Vectors()
    return [
        (
            variant,
            asyncio.run(
                asking.answer(
                    variant.settings, asked, vectors,
                    f"Replies ({variant.name})" if len(variants) > 1 else "Replies",
                )
            ),
        )
        for variant in variants
    ]  # fmt: skip


def _measured(
    said: Sequence[tuple[Variant, Answered]], entries: Sequence[FaqEntry]
) -> dict[str, Any]:
    """Return the figures of the first variant; with several, those of all and what differs."""
    from training.evaluation import comparing, leaving_out
    from training.evaluation.generation_scores import figures

    of: dict[str, dict[str, Any]] = {}
    for variant, answered in said:
        shown = figures(answered.present, entries)
        if answered.absent:
            shown |= leaving_out.figures(answered.present, answered.absent)
            shown["curve"] = leaving_out.curve(answered.present, answered.absent)
        of[variant.name] = shown
    first, *others = said
    measured = dict(of[first[0].name])
    if others:
        measured["variants"] = of
        measured["compared"] = {
            variant.name: [
                difference.as_json()
                for difference in comparing.compare(first[1].present, answered.present, entries)
            ]
            for variant, answered in others
        }
    return measured


def _write(out: Path, said: Sequence[Answered]) -> None:
    """Write each variant's replies to a file: R.jsonl, R.2.jsonl, ..."""
    for number, answered in enumerate(said, start=1):
        place = out if number == 1 else out.with_suffix(f".{number}{out.suffix}")
        lines = [
            json_module.dumps(result.line(), ensure_ascii=False)
            for result in [*answered.present, *answered.absent]
        ]
        place.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _print(measured: Mapping[str, Any]) -> None:
    common.show("Replies", {k: v for k, v in measured.items() if k not in APART}, as_json=False)
    if measured.get("tiers"):
        typer.echo("\nHow replies were worded:")
        _table(measured["tiers"])
    if measured.get("languages"):
        typer.echo("\nBy language:")
        _table(measured["languages"])
    if measured.get("curve"):
        typer.echo("\nOne threshold on the chance, were it chosen in hindsight:")
        _table(measured["curve"])
    for name, differences in (measured.get("compared") or {}).items():
        typer.echo(f"\n{name}, against {next(iter(measured['variants']))}:")
        _table(differences)


def _table(rows: Sequence[Mapping[str, Any]]) -> None:
    shown = [[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    printing.table(list(rows[0]), shown, empty="")


def _page(
    name: str, faq: Path | None, variant: Variant, answered: Answered, measured: Mapping[str, Any]
) -> Report:
    from training.evaluation.outcomes import of_replies
    from training.evaluation.page import Report

    settings = variant.settings
    about = {
        "entries": faq.name if faq else "the sample shop",
        "encoder": settings.encoder,
        "reply model": settings.reply_model,
        "adapter": settings.adapter or "",
        "style": settings.reply_style,
    }
    return Report(
        f"Replies to {name}",
        {k: v for k, v in measured.items() if k not in APART},
        of_replies([*answered.present, *answered.absent]),
        {key: str(value) for key, value in about.items()},
        tables=_tables(measured),
    )


def _tables(measured: Mapping[str, Any]) -> dict[str, Sequence[Mapping[str, Any]]]:
    """Return what stands on the page as tables, by their heading."""
    shown = {
        "How replies were worded": measured.get("tiers") or (),
        "Replies by language": measured.get("languages") or (),
        "Abstaining where nothing answers, by threshold": measured.get("curve") or (),
    }
    for name, differences in (measured.get("compared") or {}).items():
        shown[f"{name}, against {next(iter(measured['variants']))}"] = differences
    return {heading: rows for heading, rows in shown.items() if rows}


def _sample_entries() -> list[FaqEntry]:
    from training.evaluation.samples import sample_entries

    return sample_entries()
