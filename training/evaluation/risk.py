"""Whether a tolerated error rate is kept: many random splits into labels and questions to come."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from core import risk
from core.errors import InvalidInput
from core.risk import Judged, Labelled
from training import risk as fitting
from training.evaluation import report
from training.evaluation.replies import Result

Case = TypeVar("Case")
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST_CASES = 20
"""Fewer cannot be split into two halves of which either says anything."""
FIXED_STEPS = 200
CURVE_POINTS = 25
WHAT_A_CASE_IS = (
    'a case is {"confidence": 0.93, "correct": true}, with "language", "entry" and "signals" '
    "where they are known, or a line that `deskhand eval replies --out` wrote, with its "
    '"relevant" entries or with --relevance'
)


@dataclass(frozen=True)
class Ways:
    """What is compared in one split: for each way of choosing, which test cases are answered."""

    answered: Mapping[str, Bools]
    right: Bools
    languages: NDArray[np.str_]


def read_cases(path: Path, relevance: Path | None = None) -> list[Labelled]:
    """Return the cases of a JSON Lines file.

    Args:
        path: Lines with `confidence` and `correct`, or the output of `deskhand eval replies`.
        relevance: The conversations that those replies answer, by `id`, with their `relevant`.

    Raises:
        InvalidInput: A line is wrong, with its number, or there are too few.
    """
    known = _relevance(relevance) if relevance else {}
    cases = [
        case_of(row, f"{path} line {number}", known)
        for number, row in numbered(report.read_jsonl(path), path)
    ]
    return enough(cases, path)


def enough(cases: list[Case], path: Path) -> list[Case]:
    """Return cases as they came.

    Raises:
        InvalidInput: There are too few to be split.
    """
    if len(cases) < FEWEST_CASES:
        raise InvalidInput(
            f"{path}: {len(cases)} cases cannot be split into labels and questions to come; "
            f"give {FEWEST_CASES} at least, and some hundreds for figures that mean something."
        )
    return cases


def case_of_result(result: Result) -> Labelled:
    """Return the case of what the pipeline said: whether the entry found first is relevant."""
    passages = result.reply.trace.passages
    entry = passages[0].entry.id if passages else ""
    language = result.reply.language
    is_right = entry in result.case.relevant
    return Labelled(result.signals, is_right, language, result.case.message, entry=entry)


def numbered(rows: Sequence[dict[str, Any]], path: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return rows with the numbers of their lines, which blank lines move on."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    places = [number for number, line in enumerate(lines, start=1) if line.strip()]
    return list(zip(places, rows, strict=True))


def case_of(
    row: Mapping[str, Any], where: str, relevance: Mapping[str, frozenset[str]]
) -> Labelled:
    """Return the case of a line.

    Raises:
        InvalidInput: It is none.
    """
    signals = _numbers(row.get("signals") or {}, where)
    entry = str(row.get("entry") or "")
    if "passages" in row:
        entry, is_right = _of_reply(row, signals, where, relevance)
    elif "confidence" in row and "correct" in row:
        signals["confidence"] = _confidence(row["confidence"], where)
        is_right = _truth(row["correct"], where)
    else:
        missing = "correct" if "confidence" in row else "confidence"
        raise InvalidInput(
            f"{where}: the field {missing!r} is missing; {WHAT_A_CASE_IS}.", field=missing
        )
    language = row.get("language") or "en"
    if not isinstance(language, str):
        raise InvalidInput(f"{where}: language must be a text such as en.", field="language")
    group = str(row.get("group", ""))
    return Labelled(signals, is_right, language, group, entry=entry)


def _of_reply(
    row: Mapping[str, Any],
    signals: dict[str, float],
    where: str,
    relevance: Mapping[str, frozenset[str]],
) -> tuple[str, bool]:
    """Add the signals of a reply's best entry; return that entry, and whether it is right.

    What was decided does not matter.

    The reply's own `confidence` is that in its decision: of a hand-off, 1 less the best chance.
    """
    key = str(row.get("id", ""))
    given = row.get("relevant")
    relevant = frozenset(map(str, given)) if isinstance(given, list) else relevance.get(key)  # pyright: ignore[reportUnknownArgumentType]
    if relevant is None:
        raise InvalidInput(
            f"{where}: which entries are relevant to {key!r} is not known; give the file of the "
            "conversations as --relevance.",
            field="relevant",
        )
    passages = row["passages"]
    if not isinstance(passages, list):
        raise InvalidInput(f"{where}: passages must be a list.", field="passages")
    found = [_passage(each, where) for each in passages]  # pyright: ignore[reportUnknownVariableType]
    chances = [chance for _, chance in found]
    best = chances[0] if chances else 0.0
    signals["confidence"] = best
    signals.setdefault("margin", best - (chances[1] if len(chances) > 1 else 0.0))
    signals.setdefault("rest", max(1.0 - sum(chances), 0.0))
    entry = found[0][0] if found else ""
    return entry, entry in relevant


def _passage(passage: Any, where: str) -> tuple[str, float]:
    if not isinstance(passage, dict) or "id" not in passage or "score" not in passage:
        raise InvalidInput(f'{where}: a passage is {{"id", "score"}}.', field="passages")
    return str(passage["id"]), _confidence(passage["score"], where)  # pyright: ignore[reportUnknownArgumentType]


def _relevance(path: Path) -> dict[str, frozenset[str]]:
    rows = report.read_jsonl(path, ("id",))
    return {str(row["id"]): frozenset(map(str, row.get("relevant") or ())) for row in rows}


def _confidence(value: Any, where: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value <= 1:
        raise InvalidInput(
            f"{where}: confidence {value!r} is no number from 0 to 1.", field="confidence"
        )
    return float(value)


def _truth(value: Any, where: str) -> bool:
    if value in (0, 1):  # also False and True, 0.0 and 1.0
        return bool(value)
    raise InvalidInput(f"{where}: correct {value!r} is neither true nor false.", field="correct")


def _numbers(given: Any, where: str) -> dict[str, float]:
    if not isinstance(given, dict):
        raise InvalidInput(f"{where}: signals must be an object of numbers.", field="signals")
    signals: dict[str, float] = {}
    for name, value in given.items():  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise InvalidInput(f"{where}: signal {name!r} is no number.", field="signals")
        signals[str(name)] = float(value)  # pyright: ignore[reportUnknownArgumentType]
    return signals


def evaluate(
    cases: Sequence[Labelled],
    *,
    tolerated: float,
    confidence: float,
    splits: int,
    seed: int = 7,
    tell: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Return how well the rate is kept, and how much is answered, over many random splits.

    In each, a calibrator over all signals and a threshold on its chance are fitted on one half and
    met by the other half. Beside that way:

    - `by_language`: each language has the threshold that its own labels certify.
    - `single`: one threshold for all on the confidence as it came, certified in the same way.
    - `fixed`: the most generous constant on it that keeps the rate as often, chosen in hindsight
      from the answers to all splits: nobody has it, it is what could be had at best without
      further signals.
    - `same_error`: the most generous constant on it that has no more errors in all than the
      certified way, likewise in hindsight.
    - `naive`: where the labelled half's own error is within the rate: it breaks the promise.
    - `long_run`: the fixed sequence that `deskhand calibrate` uses. It promises the rate itself;
      among so few answers chance adds to it.

    Args:
        cases: At least FEWEST_CASES.
        tolerated: The share of wrong answers, in (0, 1).
        confidence: In (0, 1): the share of splits in which the rate shall be kept.
        splits: How many.
        seed: Of chance.
        tell: Told after each split how many are done.
    """
    chance = np.random.default_rng(seed)
    everything = np.asarray([case.signals["confidence"] for case in cases])
    right = np.asarray([case.is_right for case in cases])
    rounds: list[Ways] = []
    halves: list[NDArray[np.int64]] = []
    for done in range(1, splits + 1):
        order = chance.permutation(len(cases))
        learnt, met = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
        labels, questions = [cases[i] for i in learnt], [cases[i] for i in met]
        rounds.append(_split(labels, questions, tolerated, 1 - confidence))
        halves.append(met)
        tell(done)
    figures: dict[str, Any] = {
        "cases": len(cases),
        "splits": splits,
        "tolerated": tolerated,
        "confidence": confidence,
        "right_at_all": float(right.mean()),
    }
    ways = {name: _over(rounds, name, tolerated) for name in rounds[0].answered}
    ways["fixed"] = _fixed(everything, right, halves, tolerated, confidence)
    figures |= ways.pop("certified")
    figures |= ways
    figures["same_error"] = _same_error(everything, right, halves, tolerated, figures["error"])
    for name in ("single", "fixed", "same_error"):
        least = float(figures[name]["coverage"])
        figures[f"gain_over_{name}"] = figures["coverage"] / least - 1 if least else None
    figures["languages"] = _by_language(rounds, tolerated)
    figures["curve"] = curve(everything, right, 1 - confidence)
    return figures


def _split(
    labels: Sequence[Labelled], questions: Sequence[Labelled], tolerated: float, delta: float
) -> Ways:
    right = np.asarray([q.is_right for q in questions])
    came = np.asarray([q.signals["confidence"] for q in questions])
    judged = [Judged(label.signals["confidence"], label.is_right) for label in labels]
    ahead = len(questions)
    ours = fitting.fit(labels, tolerated, 1.0, delta=delta, horizon=ahead).thresholds
    chances = _chances(ours, questions)
    single = risk.certify(judged, tolerated, delta, horizon=ahead).threshold
    long_run = risk.certify(judged, tolerated, delta).threshold
    return Ways(
        {
            "certified": _from(chances, ours.pooled.threshold),
            "by_language": _answered(ours, questions, chances),
            "single": _from(came, single),
            "naive": _from(came, _naive(judged, tolerated)),
            "long_run": _from(came, long_run),
        },
        right,
        np.asarray([q.language for q in questions]),
    )


def _chances(thresholds: risk.Thresholds, questions: Sequence[Labelled]) -> Floats:
    return np.asarray([thresholds.confidence(q.signals, q.language, q.entry) for q in questions])


def _answered(thresholds: risk.Thresholds, questions: Sequence[Labelled], chances: Floats) -> Bools:
    """Return which are answered by their language's threshold; without a certificate none."""
    return np.asarray(
        [
            thresholds.basis(q.language) != "prior" and c >= thresholds.answer_from(q.language)
            for q, c in zip(questions, chances, strict=True)
        ]
    )


def _from(came: Floats, threshold: float | None) -> Bools:
    return came >= (math.inf if threshold is None else threshold)


def _naive(judged: Sequence[Judged], tolerated: float) -> float | None:
    """Return the most generous threshold whose own answers among the labels keep the rate."""
    order = sorted(judged, key=lambda each: -each.confidence)
    wrong = np.cumsum([not each.is_right for each in order])
    kept = [
        each.confidence
        for place, each in enumerate(order)
        if (place + 1 == len(order) or order[place + 1].confidence < each.confidence)
        and wrong[place] <= tolerated * (place + 1)
    ]
    return kept[-1] if kept else None


def _over(rounds: Sequence[Ways], name: str, tolerated: float) -> dict[str, Any]:
    answered = np.asarray([int(r.answered[name].sum()) for r in rounds])
    wrong = np.asarray([int((r.answered[name] & ~r.right).sum()) for r in rounds])
    questions = sum(len(r.right) for r in rounds)
    return _figures(answered, wrong, questions, tolerated)


def _figures(
    answered: NDArray[np.int64], wrong: NDArray[np.int64], questions: int, tolerated: float
) -> dict[str, Any]:
    total = int(answered.sum())
    return {
        # A split in which nothing is answered has no wrong answer.
        "kept": float((wrong <= tolerated * answered + 1e-9).mean()),
        "coverage": total / questions if questions else 0.0,
        "error": int(wrong.sum()) / total if total else 0.0,
        "silent_splits": float((answered == 0).mean()),
    }


def _fixed(
    came: Floats,
    right: Bools,
    halves: Sequence[NDArray[np.int64]],
    tolerated: float,
    confidence: float,
) -> dict[str, Any]:
    """Return the figures of the most generous constant threshold that keeps the rate as often."""
    tried = np.unique(np.quantile(came, np.linspace(0, 1, FIXED_STEPS), method="lower"))
    asked = sum(len(half) for half in halves)
    for threshold in tried:
        answered = np.asarray([int((came[half] >= threshold).sum()) for half in halves])
        wrong = np.asarray(
            [int(((came[half] >= threshold) & ~right[half]).sum()) for half in halves]
        )
        figures = _figures(answered, wrong, asked, tolerated)
        if figures["kept"] >= confidence:
            return {"threshold": float(threshold), **figures}
    return {"threshold": None, "kept": 1.0, "coverage": 0.0, "error": 0.0, "silent_splits": 1.0}


def _same_error(
    came: Floats,
    right: Bools,
    halves: Sequence[NDArray[np.int64]],
    tolerated: float,
    error: float,
) -> dict[str, Any]:
    """Return the figures of the most generous constant threshold with no more errors in all."""
    asked = sum(len(half) for half in halves)
    for threshold in np.unique(came):
        over = came >= threshold
        if not over.any() or (~right[over]).mean() > error:
            continue
        answered = np.asarray([int(over[half].sum()) for half in halves])
        wrong = np.asarray([int((over[half] & ~right[half]).sum()) for half in halves])
        return {"threshold": float(threshold), **_figures(answered, wrong, asked, tolerated)}
    return {"threshold": None, "kept": 1.0, "coverage": 0.0, "error": 0.0, "silent_splits": 1.0}


def _by_language(rounds: Sequence[Ways], tolerated: float) -> dict[str, Any]:
    languages = sorted({str(language) for r in rounds for language in np.unique(r.languages)})
    shown: dict[str, Any] = {}
    for language in languages:
        mine = [r.languages == language for r in rounds]
        of_it = [
            (r.answered["certified"] & some, ~r.right & some)
            for r, some in zip(rounds, mine, strict=True)
        ]
        answered = np.asarray([int(a.sum()) for a, _ in of_it])
        wrong = np.asarray([int((a & w).sum()) for a, w in of_it])
        asked = sum(int(some.sum()) for some in mine)
        shown[language] = _figures(answered, wrong, asked, tolerated)
    return shown


def curve(came: Floats, right: Bools, delta: float = risk.DELTA) -> list[dict[str, float]]:
    """Return coverage against error on the confidence as it came, strictest first.

    Returns:
        Points of threshold, coverage, error, and the two-sided Clopper-Pearson interval of the
        error at 1 - delta, from `low` to `high`.
    """
    points: list[dict[str, float]] = []
    wanted = np.linspace(0, 1, CURVE_POINTS + 1)[1:]
    for threshold in np.unique(np.quantile(came, 1 - wanted, method="lower"))[::-1]:
        answered = came >= threshold
        count, wrong = int(answered.sum()), int((answered & ~right).sum())
        low, high = risk.interval(wrong, count, delta)
        points.append(
            {
                "threshold": float(threshold),
                "coverage": count / len(came),
                "error": wrong / count,
                "low": low,
                "high": high,
            }
        )
    return points


def calibrated_curve(cases: Sequence[Labelled]) -> list[tuple[float, float]]:
    """Return (coverage, error) of the chance of calibrators that had not seen the case."""
    by_language = fitting.fit(cases, 0.05, 1.0).judged
    judged = [each for some in by_language.values() for each in some]
    chances = np.asarray([each.confidence for each in judged])
    points = curve(chances, np.asarray([each.is_right for each in judged]))
    return [(point["coverage"], point["error"]) for point in points]
