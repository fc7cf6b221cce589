"""Keeping an error rate: from which confidence on to answer, with a certificate; pure.

The rate is kept by Learn-then-Test (Angelopoulos et al. 2021, "Learn then Test: Calibrating
Predictive Algorithms to Achieve Risk Control"): each threshold is a hypothesis "more than the
tolerated share of its answers is wrong", the strictest is tested first, and testing goes on while
each is refused. How that works and what it does not promise: docs/explanation/error-rate.md.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from core.errors import InvalidInput
from core.types import Intent, Passage

DELTA = 0.1
"""The chance that a certificate is given though the rate is not kept: 90% confidence."""
STEP = 1.05
"""Each threshold tested answers at least so many times as many labels as the one before.

Each further test is a chance to be stopped by bad luck, and neighbours tell next to nothing new.
"""
START_SHARE = 0.25
"""Of the labels, answered at the first threshold: a single failure among the few surest ones would
else end the tests before they began. Chosen without a look at any label."""
POWER = 0.9
"""With which chance the first threshold shall pass where its error is half the tolerated one."""
SMALL_START = 0.2
"""Of delta, spent on a second start at the fewest answers, for bases of which little can be
answered. Unused shares move on to the next hypothesis: the fallback procedure (Wiens 2003)."""
LOOKS = 0.5
"""What each of many thresholds is tested at, as a share of delta, where the next answers are
certified. Half of it kept the promise on simulated labels of all shapes (tests/property)."""
FORETELLING = 20
"""From fewer answers nothing is foretold."""
TINY = 1e-6
OUT_OF_SCOPE = "out_of_scope"


@dataclass(frozen=True)
class Judged:
    """A labelled question: how sure the bot was of its best entry, and whether that was right."""

    confidence: float
    is_right: bool


@dataclass(frozen=True)
class Labelled:
    """A question with the signals of its best entry, and whether that entry was right.

    Attributes:
        signals: As `core.risk.signals_of` makes them, `confidence` among them.
        language: ISO 639-1.
        entry: The best entry's id, empty where it is not known; some mislead more than others.
        group: Labels of one group, such as one wording, are never on both sides of a fold.
        weight: How far the label is believed, in (0, 1].
        certifies: Whether thresholds are tested on it. Weak labels, made from thumbs and from what
            agents wrote, say no: they are wrong more often than the rate that is to be certified,
            so they move the calibrator alone.
    """

    signals: Mapping[str, float]
    is_right: bool
    language: str = "en"
    group: str = ""
    weight: float = 1.0
    certifies: bool = True
    entry: str = ""


@dataclass(frozen=True)
class Certificate:
    """What labels say about a threshold.

    Attributes:
        threshold: Answer from this confidence on; None where no threshold could be certified.
        labels: How many labels there are.
        answered: How many of them are answered from the threshold on.
        failures: How many of these are wrong.
        upper: The bound, at 1 - delta, on the share of wrong answers; 1 without a threshold.
        missing: How many more labels would do, as `missing_labels` tells; None for a certified
            one, and where more labels alone will not do.
    """

    threshold: float | None
    labels: int
    answered: int = 0
    failures: int = 0
    upper: float = 1.0
    missing: int | None = None

    @property
    def coverage(self) -> float:
        """The share of the labels that is answered."""
        return self.answered / self.labels if self.labels else 0.0


def binomial_tail(failures: int, answered: int, rate: float) -> float:
    """Return P(Bin(answered, rate) <= failures): how lucky so few failures would be."""
    if failures >= answered or rate <= 0:
        return 1.0
    if rate >= 1 or failures < 0:
        return 0.0
    if failures > rate * answered:  # far above the middle the terms from here on down vanish
        return max(1.0 - _binomial_above(failures, answered, rate), 0.0)
    total = term = _binomial_term(failures, answered, rate)
    odds = (1 - rate) / rate
    for k in range(failures, 0, -1):  # downwards: each term from the one above
        term *= k / (answered - k + 1) * odds
        total += term
        if term < total * 1e-12:
            break
    return min(total, 1.0)


def _binomial_above(failures: int, answered: int, rate: float) -> float:
    total = term = _binomial_term(failures + 1, answered, rate)
    odds = rate / (1 - rate)
    for k in range(failures + 1, answered):
        term *= (answered - k) / (k + 1) * odds
        total += term
        if term < total * 1e-12:
            break
    return total


def _binomial_term(k: int, n: int, rate: float) -> float:
    return math.exp(_log_choose(n, k) + k * math.log(rate) + (n - k) * math.log1p(-rate))


def ahead_tail(failures: int, answered: int, ahead: int, rate: float) -> float:
    """Return how lucky so few failures would be if the next answers broke the rate.

    The tail of the hypergeometric: of all failures, seen and to come, so few fell among the
    answers seen although more than `rate` of the `ahead` next ones are wrong. Exact where seen and
    next answers are exchangeable; it bounds the realised share of wrong ones, not its mean.
    """
    allowed = math.floor(rate * ahead + 1e-9)
    if ahead <= 0 or allowed >= ahead:
        return 0.0
    bad = failures + allowed + 1  # the fewest failures in all that break the rate
    everything = answered + ahead
    if bad > everything:
        return 0.0  # so many failures cannot fall among the next ones any more
    middle = answered * bad / everything
    if failures > middle:
        return max(1.0 - sum(_hypergeometric(bad, answered, everything, failures + 1, 1)), 0.0)
    return min(sum(_hypergeometric(bad, answered, everything, failures, -1)), 1.0)


def _hypergeometric(bad: int, drawn: int, everything: int, first: int, way: int) -> Iterator[float]:
    """Yield the chances that so many of the drawn are bad, from `first` on in one direction."""
    k = first
    largest = 0.0
    while max(0, drawn + bad - everything) <= k <= min(bad, drawn):
        term = math.exp(
            _log_choose(bad, k)
            + _log_choose(everything - bad, drawn - k)
            - _log_choose(everything, drawn)
        )
        yield term
        largest = max(largest, term)
        if term < largest * 1e-12:
            return
        k += way


def upper_bound(failures: int, answered: int, delta: float = DELTA) -> float:
    """Return the share of failures that is exceeded with chance `delta` at most.

    Source: Clopper and Pearson 1934, one-sided.
    """
    if failures >= answered:
        return 1.0
    low, high = failures / answered, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if binomial_tail(failures, answered, middle) > delta else (low, middle)
        )
    return high


def interval(failures: int, answered: int, delta: float = DELTA) -> tuple[float, float]:
    """Return the two-sided interval of a share, each side at half of `delta`.

    Source: Clopper and Pearson 1934.
    """
    if not answered:
        return 0.0, 1.0
    right = answered - failures
    return (1 - upper_bound(right, answered, delta / 2), upper_bound(failures, answered, delta / 2))


def fewest_answers(tolerated: float, delta: float = DELTA) -> int:
    """Return how many answers without any failure certify a rate: 45 for 5% at 90%."""
    return math.ceil(math.log(delta) / math.log1p(-tolerated) - 1e-9)


def certify(
    judged: Sequence[Judged],
    tolerated: float,
    delta: float = DELTA,
    *,
    horizon: int | None = None,
) -> Certificate:
    """Return the most generous threshold whose answers keep the rate, with confidence 1 - delta.

    Args:
        judged: Labels that the model which gave the confidences has not seen.
        tolerated: The share of wrong answers, in (0, 1).
        delta: The chance that the certificate is wrong, in (0, 1).
        horizon: Certify what will be wrong among the answers to so many next questions, chance
            included; None certifies the rate in the long run.
    """
    steps = _steps(sorted(judged, key=lambda each: -each.confidence))
    labels = len(judged)
    if horizon is None:
        best = _in_the_long_run(steps, labels, tolerated, delta)
    else:
        best = _among_the_next(steps, labels, tolerated, delta, horizon)
    if best is None:
        return Certificate(None, labels)
    upper = upper_bound(best.failures, best.answered, delta)
    return Certificate(best.threshold, labels, best.answered, best.failures, upper)


@dataclass(frozen=True)
class _Step:
    threshold: float
    answered: int
    failures: int


def _steps(judged: Sequence[Judged]) -> list[_Step]:
    """Return all thresholds, strictest first; equal confidences are answered together."""
    steps: list[_Step] = []
    failures = 0
    for number, each in enumerate(judged, start=1):
        failures += not each.is_right
        if number == len(judged) or judged[number].confidence < each.confidence:
            steps.append(_Step(each.confidence, number, failures))
    return steps


def _in_the_long_run(
    steps: Sequence[_Step], labels: int, tolerated: float, delta: float
) -> _Step | None:
    """Return the last threshold of the fixed sequence that passes."""
    best: _Step | None = None
    budget = 0.0
    for step, share in _sequence(steps, labels, tolerated, delta):
        budget += share
        if binomial_tail(step.failures, step.answered, tolerated) <= budget:
            best = step
        else:
            budget = 0.0
    return best


def _among_the_next(
    steps: Sequence[_Step], labels: int, tolerated: float, delta: float, horizon: int
) -> _Step | None:
    """Return the most generous threshold that passes by itself.

    What is realised is noisy at every threshold, so a sequence would end at the first unlucky one.
    The looks at several thresholds are paid for by LOOKS instead.
    """
    best: _Step | None = None
    for step in _spaced(steps, fewest_answers(tolerated, delta)):
        ahead = max(round(step.answered * horizon / labels), 1)
        if ahead_tail(step.failures, step.answered, ahead, tolerated) <= delta * LOOKS:
            best = step
    return best


def _spaced(steps: Sequence[_Step], fewest: int) -> Iterator[_Step]:
    """Yield thresholds that answer `fewest` labels or more, each STEP times more than the last."""
    wanted = float(fewest)
    for step in steps:
        if step.answered >= wanted or (step is steps[-1] and step.answered >= fewest):
            yield step
            wanted = step.answered * STEP


def _sequence(
    steps: Sequence[_Step], labels: int, tolerated: float, delta: float
) -> Iterator[tuple[_Step, float]]:
    """Yield what is tested, in its order, with the share of delta that each is given at first."""
    fewest = fewest_answers(tolerated, delta)
    main = max(fewest, min(round(START_SHARE * labels), _strong_start(tolerated, delta)))
    small = fewest_answers(tolerated, delta * SMALL_START)
    shares = {main: delta}
    if small < main:
        shares = {small: delta * SMALL_START, main: delta * (1 - SMALL_START)}
    for step in _spaced(steps, min(shares)):
        started = [start for start in shares if step.answered >= start]
        yield step, sum(shares.pop(start) for start in started)


@cache
def _strong_start(tolerated: float, delta: float) -> int:
    """Return how many answers pass the test with POWER where half the tolerated share is wrong."""
    answered = fewest_answers(tolerated, delta)
    while answered < 10_000:
        allowed = _most_failures(answered, tolerated, delta)
        if binomial_tail(allowed, answered, tolerated / 2) >= POWER:
            break
        answered = math.ceil(answered * 1.1)
    return answered


def _most_failures(answered: int, tolerated: float, delta: float) -> int:
    """Return how many failures still certify; -1 where none does."""
    failures = -1
    while binomial_tail(failures + 1, answered, tolerated) <= delta:
        failures += 1
    return failures


def _luck(step: _Step, tolerated: float, ahead: int | None) -> float:
    if ahead is None:
        return binomial_tail(step.failures, step.answered, tolerated)
    return ahead_tail(step.failures, step.answered, ahead, tolerated)


def missing_labels(judged: Sequence[Judged], tolerated: float, delta: float = DELTA) -> int | None:
    """Return how many more labels would certify some threshold, if they look like these.

    Returns:
        At least 1; None where at every threshold too many are wrong: then better entries are
        needed, not more labels.
    """
    fewest = fewest_answers(tolerated, delta)
    if not judged:
        return fewest
    steps = _steps(sorted(judged, key=lambda each: -each.confidence))
    wanted: list[int] = []
    for step in _spaced(steps, min(len(judged), FORETELLING)):
        rate = step.failures / step.answered
        if rate < tolerated:
            needed = (
                n
                for n in _growing(fewest)
                if binomial_tail(math.ceil(rate * n), n, tolerated) <= delta
            )
            if (answers := next(needed, None)) is not None:
                wanted.append(math.ceil(answers * len(judged) / step.answered) - len(judged))
    return max(min(wanted), 1) if wanted else None


def _growing(first: int) -> Iterator[int]:
    value = first
    while value < 20_000:
        yield value
        value = math.ceil(value * STEP)


def _log_choose(n: int, k: int) -> float:
    if k < 0 or k > n:
        return -math.inf
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def signals_of(
    passages: Sequence[Passage], intents: Sequence[Intent], further: Mapping[str, float]
) -> dict[str, float]:
    """Return what speaks for the best entry and against it, by name.

    Args:
        passages: Best first.
        intents: Likeliest first.
        further: What else the decision saw, such as the chance that something is asked.
    """
    found = [(p.confidence, p.dense, p.lexical) for p in passages]
    return _signals(found, [(i.name, i.probability) for i in intents], further)


def stored_signals(trace: Mapping[str, Any]) -> dict[str, float]:
    """Return the same signals from a trace as `core.db.turns.trace_to_json` wrote it."""
    found = [
        (float(p["confidence"]), float(p.get("dense", 0.0)), float(p.get("lexical", 0.0)))
        for p in trace.get("passages", ())
    ]
    wanted = [(str(i["name"]), float(i["probability"])) for i in trace.get("intents", ())]
    return _signals(found, wanted, trace.get("signals", {}))


def _signals(
    found: Sequence[tuple[float, float, float]],
    wanted: Sequence[tuple[str, float]],
    further: Mapping[str, float],
) -> dict[str, float]:
    if not found:
        return {"confidence": 0.0}
    (confidence, dense, lexical), *others = found
    second = others[0] if others else (0.0, 0.0, 0.0)
    named = dict(wanted)
    return {
        **{name: float(value) for name, value in further.items()},
        "confidence": confidence,
        "margin": confidence - second[0],
        "dense": dense,
        "dense_margin": dense - second[1],
        "lexical": lexical,
        "off_topic": named.get(OUT_OF_SCOPE, 0.0),
    }


@dataclass(frozen=True)
class Term:
    """One addend of a calibrator's score: a signal, or how far it lies above a bend.

    Attributes:
        name: The signal; `confidence` counts as its log odds.
        bend: The term is max(0, signal - bend); None for the signal itself.
        mean: Of the term; a signal that is missing counts as its mean.
        scale: Of the term.
        weight: Of the standardised term.
    """

    name: str
    bend: float | None
    mean: float
    scale: float
    weight: float


@dataclass(frozen=True)
class Fitted:
    """A calibrator as plain figures: signals in, the chance that the best entry is right out.

    A logistic regression on the signals, piecewise linear where they bend; its score is then read
    off a curve where a curve foretold held-out labels better. That several signals answer more at
    the same accuracy than the bare score: Kamath et al. 2020, "Selective Question Answering under
    Domain Shift".

    Attributes:
        terms: What is added up.
        bias: Of the score.
        curve: (score, chance) in rising order, read linearly between; empty for the logistic one.
        entries: What is added for each entry that was right more or less often than its signals
            made believe; nothing for others.
    """

    terms: tuple[Term, ...]
    bias: float
    curve: tuple[tuple[float, float], ...] = ()
    entries: Mapping[str, float] = field(default_factory=dict[str, float])

    def chance(self, signals: Mapping[str, float], entry: str = "") -> float:
        """Return the chance in [0, 1]."""
        score = self.bias + self.entries.get(entry, 0.0)
        for term in self.terms:
            value = signals.get(term.name)
            if value is not None and math.isfinite(value):
                seen = log_odds(value) if term.name == "confidence" else value
                bent = seen if term.bend is None else max(0.0, seen - term.bend)
                score += term.weight * (bent - term.mean) / term.scale
        if self.curve:
            return read(self.curve, score)
        return 1 / (1 + math.exp(-max(min(score, 60.0), -60.0)))


def with_language(
    signals: Mapping[str, float], locale: str, languages: Iterable[str]
) -> Mapping[str, float]:
    """Return signals with one more for each language: 1 for the question's own, 0 for others.

    They stay away where the language is none of these: then it counts as an average one.
    """
    own = language_of(locale)
    known = tuple(languages)
    if own not in known:
        return signals
    return {**signals, **{f"language {name}": float(name == own) for name in known}}


def log_odds(chance: float) -> float:
    """Return ln(p / (1 - p)), bounded."""
    kept = min(max(chance, TINY), 1 - TINY)
    return math.log(kept / (1 - kept))


def read(curve: Sequence[tuple[float, float]], at: float) -> float:
    """Return the value of a curve, linear between its points and level beyond them."""
    after = bisect_right(curve, at, key=lambda point: point[0])
    if after == 0:
        return curve[0][1]
    if after == len(curve):
        return curve[-1][1]
    (left, low), (right, high) = curve[after - 1], curve[after]
    return low + (high - low) * (at - left) / (right - left) if right > left else high


@dataclass(frozen=True)
class Spread:
    """How confidences are spread: edges of bins in rising order, and the count in each bin.

    `counts` has one more than `edges`; bin i holds what lies in [edges[i - 1], edges[i]).
    """

    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Thresholds:
    """From which confidence on a knowledge base's questions are answered.

    Attributes:
        tolerated: The share of wrong answers that staff tolerate.
        delta: The chance that a certificate is wrong.
        prior: The threshold where nothing is certified, on the scale of `confidence`.
        pooled: Of all languages together.
        languages: By ISO 639-1 code.
        calibrator: None leaves the confidence as it came.
        spread: Of the labelled questions' confidences, against which drift is measured.
        note: How it was fitted.
        encoder: Whose confidences these are; those of another encoder mean something else.
    """

    tolerated: float
    delta: float
    prior: float
    pooled: Certificate
    languages: Mapping[str, Certificate] = field(default_factory=dict[str, Certificate])
    calibrator: Fitted | None = None
    spread: Spread = Spread()
    note: str = ""
    encoder: str = ""

    def basis(self, locale: str) -> str:
        """Return what a language's threshold rests on: `language`, `pooled` or `prior`.

        A language with enough labels of its own that was not certified does not borrow the
        certificate of the others: its labels speak against that.
        """
        own = self.languages.get(language_of(locale))
        if own is not None and own.threshold is not None:
            return "language"
        has_own = own is not None and own.labels >= fewest_answers(self.tolerated, self.delta)
        return "pooled" if self.pooled.threshold is not None and not has_own else "prior"

    def answer_from(self, locale: str) -> float:
        """Return the confidence from which questions in a language are answered."""
        basis = self.basis(locale)
        if basis == "language":
            threshold = self.languages[language_of(locale)].threshold
        elif basis == "pooled":
            threshold = self.pooled.threshold
        else:
            threshold = max(self.prior, self.pooled.threshold or 0.0)
        return self.prior if threshold is None else threshold

    def is_certified(self, locale: str) -> bool:
        """Return whether the rate is certified for a language by labels of its own."""
        return self.basis(locale) == "language"

    def confidence(self, signals: Mapping[str, float], locale: str = "", entry: str = "") -> float:
        """Return the chance that the best entry is right, on the scale of the thresholds.

        Args:
            signals: As `signals_of` makes them; `confidence` must be among them.
            locale: Of the question; a calibrator may trust one language more than another.
            entry: The best entry's id; a calibrator may trust one more than another.
        """
        if self.calibrator is None:
            return signals["confidence"]
        return self.calibrator.chance(with_language(signals, locale, self.languages), entry)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values, whole: `from_json` makes the same again."""
        calibrator = self.calibrator
        return {
            "tolerated": self.tolerated,
            "delta": self.delta,
            "prior": self.prior,
            "pooled": _certificate_to_json(self.pooled),
            "languages": {
                name: _certificate_to_json(each) for name, each in sorted(self.languages.items())
            },
            "calibrator": None
            if calibrator is None
            else {
                "terms": [vars(term) for term in calibrator.terms],
                "bias": calibrator.bias,
                "curve": [list(point) for point in calibrator.curve],
                "entries": dict(calibrator.entries),
            },
            "spread": {"edges": list(self.spread.edges), "counts": list(self.spread.counts)},
            "note": self.note,
            "encoder": self.encoder,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Thresholds:
        """Return what `to_json` wrote.

        Raises:
            InvalidInput: A part is missing or has another type.
        """
        try:
            fitted = stored["calibrator"]
            return cls(
                float(stored["tolerated"]),
                float(stored["delta"]),
                float(stored["prior"]),
                Certificate(**stored["pooled"]),
                {name: Certificate(**each) for name, each in stored["languages"].items()},
                None if fitted is None else _fitted(fitted),
                Spread(tuple(stored["spread"]["edges"]), tuple(stored["spread"]["counts"])),
                str(stored.get("note", "")),
                str(stored.get("encoder", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidInput(
                f"These are no thresholds ({type(error).__name__}: {error}); "
                "`deskhand calibrate` makes them."
            ) from error


def _fitted(stored: Mapping[str, Any]) -> Fitted:
    return Fitted(
        tuple(Term(**term) for term in stored["terms"]),
        float(stored["bias"]),
        tuple((float(score), float(chance)) for score, chance in stored["curve"]),
        {name: float(offset) for name, offset in stored.get("entries", {}).items()},
    )


def _certificate_to_json(certificate: Certificate) -> dict[str, Any]:
    return {
        "threshold": certificate.threshold,
        "labels": certificate.labels,
        "answered": certificate.answered,
        "failures": certificate.failures,
        "upper": certificate.upper,
        "missing": certificate.missing,
    }


def language_of(locale: str) -> str:
    """Return the ISO 639-1 code of a locale such as de-AT."""
    return locale.replace("_", "-").split("-")[0].lower()
