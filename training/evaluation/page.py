"""An evaluation as one HTML page that needs nothing else, and its results as JSON beside it."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from scipy.stats import beta, binomtest

from core.errors import InvalidInput
from training.evaluation import plots
from training.evaluation.plots import Frame, Line

PAGE = "report.html"
RESULTS = "results.json"
RELIABILITY_BINS = 10
ECE_BINS = 15
INTERVAL = 0.95
MATRIX_LABELS = 12
"""With more labels a matrix cannot be read; the largest confusions are listed."""
MOST_ROWS = 25
MOST_CASES = 600
"""Cases on the page, the wrong ones first; all of them are in the JSON file."""
MOST_POINTS = 300
FEWEST_OF_CURVE = 5
"""The share of errors among fewer answers jumps about and says nothing."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case.

    Attributes:
        text: What was said last.
        truth: The label, entry or decision that is expected.
        told: What the system said instead or as well.
        right: None where nobody knows.
        confidence: The chance in [0, 1] that the system gave itself.
        correct: What the confidence is the chance of, where that is not `right`: a reply may
            rightly be small talk while no entry was likely.
        before: Earlier turns as (who, text).
        trace: How it came about; shown as it stands.
    """

    id: str
    text: str
    truth: str = ""
    told: str = ""
    right: bool | None = None
    confidence: float | None = None
    language: str = ""
    milliseconds: float | None = None
    before: tuple[tuple[str, str], ...] = ()
    trace: Mapping[str, Any] = field(default_factory=dict[str, Any])
    correct: bool | None = None

    @property
    def judged(self) -> bool | None:
        """Whether the confidence was justified; None where nobody knows."""
        return self.right if self.correct is None else self.correct


@dataclass(frozen=True)
class Curve:
    """The share of errors among what is answered; points are (coverage, error)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Report:
    """An evaluation; a section stands on the page where its data are there.

    Attributes:
        figures: What the command prints.
        about: What was measured with what: files, encoder, settings.
        confusion: `truth` and `told` are labels to be set against each other.
        curves: Further lines in the plot of coverage against error.
        tolerated: The error rate that is to be kept, drawn into that plot.
        notes: Sentences that a reader should know.
        tables: Further tables by their heading; the rows of one have the same columns.
    """

    title: str
    figures: Mapping[str, Any]
    outcomes: Sequence[Outcome] = ()
    about: Mapping[str, str] = field(default_factory=dict[str, str])
    confusion: bool = False
    curves: Sequence[Curve] = ()
    tolerated: float | None = None
    notes: Sequence[str] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = field(
        default_factory=dict[str, "Sequence[Mapping[str, Any]]"]
    )


@dataclass(frozen=True)
class Earlier:
    """A run to compare with, as its `results.json` tells it."""

    made_at: str
    figures: Mapping[str, Any]
    outcomes: Mapping[str, Mapping[str, Any]]


def write(
    report: Report,
    folder: Path,
    earlier: Path | None = None,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Path:
    """Write the page and the results into a folder, which is made; return the page's path.

    Args:
        report: What is shown.
        folder: Where to; earlier files of these names are replaced.
        earlier: Folder of an earlier run to compare with.
        now: The time that the page names.

    Raises:
        InvalidInput: The earlier run cannot be read, or the folder cannot be written.
    """
    before = read_earlier(earlier) if earlier else None
    made_at = now().strftime("%Y-%m-%d %H:%M UTC")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / RESULTS, _results(report, made_at))
        _replace(folder / PAGE, html(report, made_at, before))
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be written: {error}.") from error
    return folder / PAGE


def read_earlier(folder: Path) -> Earlier:
    """Return an earlier run.

    Raises:
        InvalidInput: The folder holds none.
    """
    place = folder / RESULTS
    try:
        stored = json.loads(place.read_text(encoding="utf-8"))
        outcomes = {row["id"]: row for row in stored["outcomes"]}
        return Earlier(stored["made_at"], stored["figures"], outcomes)
    except FileNotFoundError:
        raise InvalidInput(f"{place} does not exist; give the folder of a --report run.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{place} is no result of --report ({error!r}).") from error


def html(report: Report, made_at: str, earlier: Earlier | None = None) -> str:
    """Return the page."""
    sections = "".join(filter(None, _sections(report, earlier)))
    about = " · ".join(f"{name}: {value}" for name, value in report.about.items() if value)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{_resource('page.css')}</style></head>"
        f'<body><main><h1>{escape(report.title)}</h1><p class="about">{escape(made_at)}'
        f"{' · ' + escape(about) if about else ''}</p>"
        f"{sections}</main><script>{_resource('page.js')}</script></body></html>\n"
    )


def calibration_error(outcomes: Sequence[Outcome]) -> float:
    """Return the expected calibration error: Naeini et al. 2015, equal-width bins."""
    scored = _scored(outcomes)
    bins = _bins(scored, ECE_BINS)
    return sum(count * abs(right - mean) for mean, right, count in bins) / max(len(scored), 1)


def coverage_curve(outcomes: Sequence[Outcome]) -> list[tuple[float, float, float, float]]:
    """Return (coverage, error, low, high) at each confidence from which on one may answer.

    The interval is Clopper and Pearson's (1934) for the error among the answered, at 95%.
    """
    scored = sorted(_scored(outcomes), reverse=True)
    points: list[tuple[float, float, float, float]] = []
    wrong = 0
    for number, (confidence, right) in enumerate(scored, start=1):
        wrong += not right
        is_last_of_tie = number == len(scored) or scored[number][0] < confidence
        if is_last_of_tie and (number >= FEWEST_OF_CURVE or number == len(scored)):
            points.append((number / len(scored), wrong / number, *_interval(wrong, number)))
    step = max(len(points) // MOST_POINTS, 1)
    return points[:-1:step] + points[-1:]


def _sections(report: Report, earlier: Earlier | None) -> Iterator[str]:
    yield _notes(report)
    yield _figures(report, earlier)
    yield from (_further(heading, rows) for heading, rows in report.tables.items())
    if earlier is not None:
        yield _comparison(report, earlier)
    yield f'<div class="pair">{_coverage(report, earlier)}{_calibration(report)}</div>'
    yield f'<div class="pair">{_languages(report)}{_latency(report)}</div>'
    yield _confusions(report)
    yield _cases(report)


def _notes(report: Report) -> str:
    if not report.notes:
        return ""
    return _section("Notes", "".join(f"<p>{escape(note)}</p>" for note in report.notes))


def _figures(report: Report, earlier: Earlier | None) -> str:
    tiles: list[str] = []
    for name, value in report.figures.items():
        if isinstance(value, Mapping | list | tuple):
            continue
        old = earlier.figures.get(name) if earlier else None
        change = f"<small>{escape(_change(value, old))}</small>" if old is not None else ""
        tiles.append(
            f'<div class="tile"><span>{_breakable(name)}</span><b>{escape(_shown(value))}</b>'
            f"{change}</div>"
        )
    return _section("Figures", f'<div class="tiles">{"".join(tiles)}</div>') if tiles else ""


def _further(heading: str, rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    shown = [tuple(_shown(value) for value in row.values()) for row in rows]
    columns = tuple(rows[0])
    wordy = {at for at, value in enumerate(rows[0].values()) if isinstance(value, str)}
    return _section(heading, _table(columns, shown, words=wordy))


def _breakable(name: str) -> str:
    return escape(name).replace("_", "_<wbr>")


def _comparison(report: Report, earlier: Earlier) -> str:
    """Show what became right and what became wrong since an earlier run."""
    pairs = [
        (outcome, earlier.outcomes[outcome.id].get("right"))
        for outcome in report.outcomes
        if outcome.id in earlier.outcomes and outcome.right is not None
    ]
    known = [(outcome, was) for outcome, was in pairs if isinstance(was, bool)]
    better = [outcome for outcome, was in known if outcome.right and not was]
    worse = [outcome for outcome, was in known if was and not outcome.right]
    changed = len(better) + len(worse)
    chance = float(binomtest(len(better), changed).pvalue) if changed else 1.0
    body = (
        f"<p>Against the run of {escape(earlier.made_at)}, on {len(known)} cases in common: "
        f'<b class="good">{len(better)} became right</b>, '
        f'<b class="bad">{len(worse)} became wrong</b>. '
        f"{_verdict(chance, len(better) - len(worse))}</p>"
    )
    body += _changed("Became wrong", worse, earlier) + _changed("Became right", better, earlier)
    return _section("Comparison", body)


def _verdict(chance: float, gain: int) -> str:
    if chance > 0.05 or not gain:
        return f"No more than chance would make of it (sign test, p = {chance:.2f})."
    return f"{'Better' if gain > 0 else 'Worse'} beyond chance (sign test, p = {chance:.3f})."


def _changed(title: str, outcomes: Sequence[Outcome], earlier: Earlier) -> str:
    if not outcomes:
        return ""
    rows = [
        (o.id, o.text, o.truth, str(earlier.outcomes[o.id].get("told", "")), o.told)
        for o in outcomes[:MOST_ROWS]
    ]
    table = _table(("case", "text", "expected", "earlier", "now"), rows, words={1, 2, 3, 4})
    more = _left_out(len(outcomes) - len(rows))
    return f"<details><summary>{title}: {len(outcomes)}</summary><div>{table}{more}</div></details>"


def _coverage(report: Report, earlier: Earlier | None) -> str:
    points = coverage_curve(report.outcomes)
    if not points and not report.curves:
        return ""
    old = coverage_curve([_outcome(row) for row in earlier.outcomes.values()]) if earlier else []
    keys = [("main", "this run"), ("band", "95% interval")] if points else []
    lines: list[Line] = []
    if report.tolerated is not None:
        lines.append(Line(((0, report.tolerated), (1, report.tolerated)), "kept", "tolerated"))
        keys.append(("kept", f"tolerated: {100 * report.tolerated:.3g}%"))
    if old:
        lines.append(Line([(x, y) for x, y, *_ in old], "earlier", "earlier run"))
        keys.append(("earlier", "earlier run"))
    for curve in report.curves:
        lines.append(Line(curve.points, "other", curve.name))
        keys.append(("other", curve.name))
    if points:
        lines.insert(0, Line([(x, y) for x, y, *_ in points], "main", "this run"))
    highest = max((y for line in lines for _, y in line.points), default=0.0)
    frame = Frame("answered", "wrong among the answered", y_end=_round_up(highest * 1.15))
    plot = plots.curves(
        frame, lines, band=[(x, low, high) for x, _, low, high in points],
        label="Coverage against error",
    )  # fmt: skip
    return _section("Coverage against error", plots.legend(keys) + plot + _coverages(points))


def _coverages(points: Sequence[tuple[float, float, float, float]]) -> str:
    """Return how much can be answered at common error rates, seen afterwards."""
    if not points:
        return ""
    rows = []
    for rate in (0.01, 0.02, 0.05, 0.1):
        kept = [x for x, error, *_ in points if error <= rate]
        rows.append((f"{100 * rate:.0f}%", f"{100 * max(kept, default=0.0):.1f}%"))
    note = '<p class="quiet">As these cases turned out; for others it must be certified.</p>'
    return _table(("wrong at most", "answered"), rows) + note


def _calibration(report: Report) -> str:
    scored = _scored(report.outcomes)
    if not scored:
        return ""
    note = (
        f"<p>Expected calibration error {calibration_error(report.outcomes):.3f} over "
        f"{len(scored)} cases. Dots below the line: surer than right.</p>"
    )
    plot = plots.reliability(_bins(scored, RELIABILITY_BINS), label="Reliability diagram")
    return _section("Calibration", note + plot)


def _languages(report: Report) -> str:
    by_language: dict[str, list[Outcome]] = {}
    for outcome in report.outcomes:
        if outcome.language:
            by_language.setdefault(outcome.language, []).append(outcome)
    if not by_language:
        return ""
    rows: list[tuple[str, ...]] = []
    for language, some in sorted(by_language.items(), key=lambda pair: -len(pair[1])):
        known = [o.right for o in some if o.right is not None]
        low, high = _interval(sum(known), len(known))
        share = f"{100 * sum(known) / len(known):.1f}%" if known else "–"
        interval = f"{100 * low:.0f}–{100 * high:.0f}%" if known else "–"
        sure = [o.confidence for o in some if o.confidence is not None]
        mean = f"{sum(sure) / len(sure):.2f}" if sure else "–"
        rows.append((language, str(len(some)), share, interval, mean))
    heads = ("language", "cases", "right", "95% interval", "mean confidence")
    return _section("By language", _table(heads, rows))


def _latency(report: Report) -> str:
    taken = sorted(o.milliseconds for o in report.outcomes if o.milliseconds is not None)
    if not taken:
        return ""
    shares = (0.5, 0.9, 0.95, 0.99)
    marks = [(f"p{100 * s:.0f}", f"{_quantile(taken, s):.3g} ms") for s in shares]
    marks.append(("slowest", f"{taken[-1]:.3g} ms"))
    frame = Frame(
        "milliseconds", "share that was done", x_end=_round_up(_quantile(taken, 0.99)),
        as_percent=False,
    )  # fmt: skip
    step = max(len(taken) // MOST_POINTS, 1)
    points = [(ms, (place + 1) / len(taken)) for place, ms in enumerate(taken)]
    plot = plots.curves(frame, [Line(points[::step] + points[-1:])], label="Latency")
    return _section("Latency", _table(("", "a case"), marks) + plot)


def _confusions(report: Report) -> str:
    if not report.confusion:
        return ""
    counts = Counter((o.truth, o.told) for o in report.outcomes if o.truth and o.told)
    labels = sorted({label for pair in counts for label in pair})
    if not labels:
        return ""
    body = _matrix(counts, labels) if len(labels) <= MATRIX_LABELS else _largest(counts)
    return _section("Confusion", body + _by_label(counts))


def _matrix(counts: Mapping[tuple[str, str], int], labels: Sequence[str]) -> str:
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    rows: list[str] = []
    for truth in labels:
        whole = sum(counts.get((truth, told), 0) for told in labels)
        cells = "".join(_cell(counts.get((truth, told), 0), whole) for told in labels)
        rows.append(f'<tr><th scope="row">{escape(truth)}</th>{cells}</tr>')
    return (
        '<p class="quiet">A row is what was expected, a column what was told.</p>'
        f'<div class="wide"><table class="matrix"><tr><th></th>{heads}</tr>{"".join(rows)}'
        "</table></div>"
    )


def _cell(count: int, whole: int) -> str:
    share = count / whole if whole else 0.0
    return f'<td style="background:rgb(var(--heat) / {60 * share:.0f}%)">{count or ""}</td>'


def _largest(counts: Mapping[tuple[str, str], int]) -> str:
    wrong = sorted(((n, t, s) for (t, s), n in counts.items() if t != s), key=lambda x: (-x[0], x))
    if not wrong:
        return "<p>Nothing was confused.</p>"
    whole = _by_truth(counts)
    rows = [(t, s, str(n), f"{100 * n / whole[t]:.0f}%") for n, t, s in wrong[:MOST_ROWS]]
    table = _table(("expected", "told", "cases", "of the label"), rows, words={0, 1})
    return f"<p>The largest confusions:</p>{table}{_left_out(len(wrong) - len(rows))}"


def _by_label(counts: Mapping[tuple[str, str], int]) -> str:
    whole, told = _by_truth(counts), Counter[str]()
    for (_, label), count in counts.items():
        told[label] += count
    rows: list[tuple[float, tuple[str, ...]]] = []
    for label in sorted(whole.keys() | told.keys()):
        hits = counts.get((label, label), 0)
        recall = hits / whole[label] if whole[label] else None
        precision = hits / told[label] if told[label] else None
        shown = (label, str(whole[label]), _percent(recall), _percent(precision))
        rows.append((1.0 if recall is None else recall, shown))
    rows.sort(key=lambda row: row[0])
    heads = ("label", "cases", "recall", "precision")
    table = _table(heads, [shown for _, shown in rows], words={0})
    return f"<details><summary>Each label, the worst first</summary><div>{table}</div></details>"


def _by_truth(counts: Mapping[tuple[str, str], int]) -> Counter[str]:
    whole: Counter[str] = Counter()
    for (truth, _), count in counts.items():
        whole[truth] += count
    return whole


def _cases(report: Report) -> str:
    if not report.outcomes:
        return ""
    ordered = sorted(report.outcomes, key=lambda o: o.right is not False)
    shown = "".join(_case(outcome) for outcome in ordered[:MOST_CASES])
    tools = (
        '<div class="tools" hidden><input type="search" id="words" placeholder="Find in cases" '
        'aria-label="Find in cases"><label><input type="checkbox" id="wrong"> only wrong ones'
        '</label><span id="shown" class="quiet"></span></div>'
    )
    more = _left_out(len(ordered) - MOST_CASES)
    return _section(f"Cases ({len(ordered)})", tools + shown + more)


def _case(outcome: Outcome) -> str:
    marks = {True: ("✓", "good", "yes"), False: ("✗", "bad", "no"), None: ("·", "quiet", "")}
    sign, colour, right = marks[outcome.right]
    told = outcome.told if outcome.right else f"{outcome.told} (expected {outcome.truth})"
    sure = f", {outcome.confidence:.2f}" if outcome.confidence is not None else ""
    said = f'<span class="told">{escape(told if outcome.truth else outcome.told)}{sure}</span>'
    turns = [*outcome.before, ("customer", outcome.text)] if outcome.before else []
    talk = "".join(
        f'<p class="turn"><b>{escape(who)}</b> {escape(text)}</p>' for who, text in turns
    )
    facts = [("case", outcome.id), ("expected", outcome.truth), ("told", outcome.told)]
    listed = "".join(f'<p class="turn"><b>{k}</b> {escape(v)}</p>' for k, v in facts if v)
    trace = _pretty(outcome.trace) if outcome.trace else ""
    return (
        f'<details class="case" data-right="{right}"><summary><span class="mark {colour}">{sign}'
        f"</span>{escape(outcome.text) or '<i>empty</i>'} {said}</summary>"
        f"<div>{talk}{listed}{trace}</div></details>"
    )


def _pretty(trace: Mapping[str, Any]) -> str:
    """Return a trace with a line for each value, and for each element of a list of lists."""
    lines: list[str] = []
    for name, value in trace.items():
        several = isinstance(value, list) and any(isinstance(v, list | dict) for v in value)
        shown = [_json(one) for one in value] if several else [_json(value)]
        lines += [f"{name}: {shown[0]}", *(f"{' ' * len(name)}  {one}" for one in shown[1:])]
    return f"<pre>{escape(chr(10).join(lines))}</pre>"


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    words: set[int] | frozenset[int] = frozenset(),
) -> str:
    """Return a table; columns in `words` hold text that may break."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=words' if place in words else ''}>{escape(cell)}</{tag}>"
            for place, cell in enumerate(row)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{cells(heads, "th")}</tr>{body}</table></div>'


def _left_out(count: int) -> str:
    return f'<p class="quiet">{count} more in {RESULTS}.</p>' if count > 0 else ""


def _scored(outcomes: Sequence[Outcome]) -> list[tuple[float, bool]]:
    return [
        (o.confidence, o.judged)
        for o in outcomes
        if o.confidence is not None and o.judged is not None and math.isfinite(o.confidence)
    ]


def _bins(scored: Sequence[tuple[float, bool]], number: int) -> list[tuple[float, float, int]]:
    """Return (mean confidence, share right, cases) of each equal-width bin that is not empty."""
    filled: dict[int, list[tuple[float, bool]]] = {}
    for confidence, right in scored:
        filled.setdefault(min(int(confidence * number), number - 1), []).append((confidence, right))
    return [
        (sum(c for c, _ in some) / len(some), sum(r for _, r in some) / len(some), len(some))
        for _, some in sorted(filled.items())
    ]


def _interval(hits: int, number: int) -> tuple[float, float]:
    """Return Clopper and Pearson's interval of a share."""
    outside = (1 - INTERVAL) / 2
    low = float(beta.ppf(outside, hits, number - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - outside, hits + 1, number - hits)) if hits < number else 1.0
    return low, high


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _round_up(value: float) -> float:
    """Return the next number that an axis may end at."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 1.5, 2, 3, 5, 7.5, 10) if step * power >= value)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _change(value: Any, old: Any) -> str:
    if not isinstance(value, int | float) or not isinstance(old, int | float):
        return "" if value == old else f"earlier {old}"
    return f"{value - old:+.3g} (was {_shown(old)})" if value != old else "as before"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def _results(report: Report, made_at: str) -> str:
    rows = [asdict(outcome) for outcome in report.outcomes]
    stored = {
        "title": report.title, "made_at": made_at, "about": dict(report.about),
        "figures": dict(report.figures), "outcomes": rows,
    }  # fmt: skip
    return json.dumps(stored, ensure_ascii=False, indent=1, default=str) + "\n"


def _outcome(row: Mapping[str, Any]) -> Outcome:
    return Outcome(
        str(row["id"]), str(row.get("text", "")), right=row.get("right"),
        confidence=row.get("confidence"), correct=row.get("correct"),
    )  # fmt: skip


def _resource(name: str) -> str:
    return (files("training.evaluation") / name).read_text(encoding="utf-8")


def _replace(place: Path, text: str) -> None:
    """Write a file so that a full disk leaves the earlier one."""
    unfinished = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(place)
    finally:
        unfinished.unlink(missing_ok=True)
