"""`deskhand eval risk`: whether a tolerated error rate is kept."""

from __future__ import annotations

import asyncio
import json as json_module
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import configuration, printing
from cli.commands.eval import common
from cli.printing import AsJson

if TYPE_CHECKING:
    from core.risk import Labelled
    from core.settings import Settings
    from training.evaluation.page import Report


def risk(
    context: typer.Context,
    cases: Annotated[
        Path | None,
        typer.Option(help='JSONL {"confidence", "correct"}, or replies, or conversations.'),
    ] = None,
    relevance: Annotated[
        Path | None, typer.Option(help='JSONL {"id", "relevant"} of replies without it.')
    ] = None,
    faq: Annotated[
        Path | None, typer.Option(help="JSONL of entries, for cases that are conversations.")
    ] = None,
    labelled: Annotated[
        list[Path] | None,
        typer.Option(help="Instead of --cases: CSV or JSONL of messages and labels, as entries."),
    ] = None,
    wordings: Annotated[
        int, typer.Option(min=1, help="With --labelled: messages that word each label's entry.")
    ] = 5,
    missing: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="With --labelled: labels without an entry.")
    ] = 0.0,
    most: Annotated[
        int, typer.Option(min=20, help="With --labelled: messages that are asked.")
    ] = 3_000,
    cases_out: Annotated[
        Path | None, typer.Option(help="Where the cases are written, to be given as --cases again.")
    ] = None,
    splits: Annotated[int, typer.Option(min=1, max=10_000, help="Random splits.")] = 200,
    tolerated: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Share of wrong answers, such as 0.05.")
    ] = 0.05,
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="In which share of splits it shall be kept.")
    ] = 0.9,
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 7,
    encoder: common.EncoderName = None,
    report_folder: common.ReportFolder = None,
    compare: common.CompareFolder = None,
    json: AsJson = False,
) -> None:
    """Fit thresholds on half of the cases, meet the other half, and count how often it is kept."""
    from core.errors import InvalidInput
    from training.evaluation import report
    from training.evaluation.risk import evaluate, read_cases

    common.check_report(report_folder, compare)
    changed = {"reply_model": "none"} | ({"encoder": encoder} if encoder else {})
    settings = configuration.of(context).model_copy(update=changed)
    if (cases is None) == (not labelled):
        raise InvalidInput("Give either --cases or --labelled.", field="cases")
    if cases is None:
        name = ", ".join(path.name for path in labelled or ())
        judged = _of_labels(settings, labelled or (), wordings, missing, most)
    elif _are_conversations(cases):
        name, judged = cases.name, _asked(settings, cases, faq)
    else:
        name, judged = cases.name, read_cases(cases, relevance)
    if cases_out is not None:
        _write(judged, cases_out)
    figures = evaluate(
        judged,
        tolerated=tolerated,
        confidence=confidence,
        splits=splits,
        seed=seed,
        tell=report.progress("splits", splits),
    )
    if report_folder is not None:
        common.write_report(_page(name, judged, figures), report_folder, compare)
    if json:
        printing.as_json(figures)
    else:
        _print(name, figures)


def _are_conversations(path: Path) -> bool:
    """Return whether the first line holds turns and no reply to them yet."""
    from training.evaluation import report

    first = next(iter(report.read_jsonl(path)), {})
    return "turns" in first and "passages" not in first


def _asked(settings: Settings, path: Path, faq: Path | None) -> list[Labelled]:
    """Return the cases of conversations, as the pipeline finds entries for them."""
    from cli.commands.eval.asking import answer_all
    from training.evaluation import report
    from training.evaluation.replies import case_of
    from training.evaluation.risk import case_of_result, enough, numbered

    rows = numbered(report.read_jsonl(path, ("id", "turns")), path)
    wanted = [case_of(row, f"{path} line {number}") for number, row in rows]
    entries = common.entries_of(faq) if faq else None
    results = asyncio.run(answer_all(settings, entries, enough(wanted, path)))
    return [case_of_result(result) for result in results]


def _of_labels(
    settings: Settings, paths: Sequence[Path], wordings: int, missing: float, most: int
) -> list[Labelled]:
    """Return the cases of messages with labels, asked of a base with an entry for each label."""
    from cli.commands.eval.asking import answer_all
    from training.evaluation import labelled_base
    from training.evaluation.risk import case_of_result, enough

    entries, wanted = labelled_base.base_of(
        labelled_base.read(paths), wordings=wordings, missing=missing, most=most
    )
    results = asyncio.run(answer_all(settings, entries, enough(wanted, paths[0])))
    return [case_of_result(result) for result in results]


def _write(judged: Sequence[Labelled], place: Path) -> None:
    lines = [
        json_module.dumps(
            {
                "confidence": each.signals["confidence"],
                "correct": each.is_right,
                "language": each.language,
                "entry": each.entry,
                "signals": dict(each.signals),
                "group": each.group,
            },
            ensure_ascii=False,
        )
        for each in judged
    ]
    place.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _page(name: str, labelled: list[Labelled], figures: dict[str, Any]) -> Report:
    """Return the page: how often the rate is kept, and coverage against error."""
    from training.evaluation.page import Curve, Outcome, Report
    from training.evaluation.risk import calibrated_curve

    flat = {key: value for key, value in figures.items() if isinstance(value, int | float)}
    for way in WAYS:
        if way in figures:
            flat |= {f"{way}_{key}": figures[way][key] for key in ("kept", "coverage", "error")}
    return Report(
        f"Error rate of {name}",
        flat,
        [
            Outcome(
                str(number), each.group, each.entry, right=each.is_right,
                confidence=each.signals["confidence"], language=each.language,
                trace={"signals": dict(each.signals)},
            )
            for number, each in enumerate(labelled, start=1)
        ],
        curves=[Curve("calibrated on all signals", calibrated_curve(labelled))],
        tolerated=figures["tolerated"],
        notes=["The curve of this run is that of the confidence as it came."],
    )  # fmt: skip


def _print(name: str, figures: dict[str, Any]) -> None:
    kept = "kept" if figures["kept"] >= figures["confidence"] else "NOT KEPT"
    typer.echo(
        f"{name}: {figures['cases']} cases, {figures['right_at_all']:.1%} with the right entry "
        f"first, {figures['splits']} splits\n"
        f"At most {figures['tolerated']:.1%} wrong in {figures['confidence']:.0%} of splits: "
        f"{kept} ({figures['kept']:.1%})\n"
    )
    ways = {"certified": figures} | {way: figures[way] for way in WAYS if way in figures}
    printing.table(
        ("threshold", "kept in", "answered", "wrong among answered", "splits without an answer"),
        [
            (
                WAYS[way],
                f"{of['kept']:.1%}",
                f"{of['coverage']:.1%}",
                f"{of['error']:.2%}",
                f"{of['silent_splits']:.1%}",
            )
            for way, of in ways.items()
        ],
        empty="",
    )
    for other in ("single", "fixed", "same_error"):
        gain = figures[f"gain_over_{other}"]
        shown = "nothing to compare with" if gain is None else f"{gain:+.1%}"
        typer.echo(f"coverage against the {WAYS[other]}: {shown}")
    _print_curve(figures)


def _print_curve(figures: dict[str, Any]) -> None:
    typer.echo("\nCoverage against error of the bare confidence:")
    printing.table(
        ("from", "answered", "wrong", "interval"),
        [
            (
                f"{point['threshold']:.4f}",
                f"{point['coverage']:.1%}",
                f"{point['error']:.2%}",
                f"{point['low']:.2%} to {point['high']:.2%}",
            )
            for point in figures["curve"]
        ],
        empty="",
    )


WAYS = {
    "certified": "certified, on all signals",
    "by_language": "certified, language by language",
    "single": "single certified threshold on the bare confidence",
    "fixed": "constant threshold chosen in hindsight",
    "same_error": "constant threshold with the same error, in hindsight",
    "naive": "threshold without a certificate",
    "long_run": "single threshold certified for the long run",
}
