"""Thresholds that keep an error rate: figures, fallbacks, calibrators, drift, the evaluation."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.main import run
from core import drift, risk
from core.errors import InvalidInput
from core.risk import (
    Certificate,
    Fitted,
    Judged,
    Labelled,
    Spread,
    Term,
    Thresholds,
    binomial_tail,
    certify,
    fewest_answers,
    interval,
    upper_bound,
)
from core.types import FaqEntry, Intent, Passage
from training import risk as fitting
from training.evaluation import risk as evaluation


def judged(count: int, failures: int = 0) -> list[Judged]:
    """Return labels of falling confidence, the least sure of which are wrong."""
    return [Judged(1 - n / (2 * count), n < count - failures) for n in range(count)]


def labels(count: int, seed: int = 1, **fields: Any) -> list[Labelled]:
    """Return labels whose truth hangs on the confidence and as much on another signal."""
    chance = random.Random(seed)
    made: list[Labelled] = []
    for _ in range(count):
        confidence, other = chance.random(), chance.gauss(0, 1)
        is_right = 10 * (confidence - 0.4) + 4 * other + chance.gauss(0, 1) > 0
        made.append(Labelled({"confidence": confidence, "other": other}, is_right, **fields))
    return made


@pytest.mark.parametrize(
    ("tolerated", "delta", "answers"), [(0.05, 0.1, 45), (0.02, 0.05, 149), (0.01, 0.05, 299)]
)
def test_so_many_answers_without_a_failure_certify_a_rate(
    tolerated: float, delta: float, answers: int
):
    assert fewest_answers(tolerated, delta) == answers
    assert certify(judged(answers), tolerated, delta).threshold is not None
    assert certify(judged(answers - 1), tolerated, delta).threshold is None


def test_a_certificate_answers_as_much_as_the_labels_allow():
    certificate = certify(judged(400, failures=100), 0.05)

    assert 300 / risk.STEP <= certificate.answered < 316
    assert certificate.failures == max(certificate.answered - 300, 0)
    assert certificate.upper <= 0.05
    assert certificate.coverage == certificate.answered / 400


def test_testing_ends_at_a_stretch_of_mistakes_whatever_comes_after_it():
    truth = [True] * 100 + [False] * 40 + [True] * 1500  # 2.4% wrong in all
    some = [Judged(1 - n / 2000, is_right) for n, is_right in enumerate(truth)]

    certificate = certify(some, 0.05)

    assert 77 <= certificate.answered <= 110


def test_labels_that_are_all_wrong_certify_nothing_and_more_of_them_will_not_do():
    wrong = [Judged(0.9, is_right=False) for _ in range(500)]

    assert certify(wrong, 0.05).threshold is None
    assert risk.missing_labels(wrong, 0.05) is None


def test_equal_confidences_are_answered_together():
    tied = [Judged(0.9, is_right=True)] * 100 + [Judged(0.5, is_right=False)] * 100

    certificate = certify(tied, 0.05)

    assert (certificate.threshold, certificate.answered) == (0.9, 100)


def test_the_promise_on_the_next_answers_is_stricter_than_that_of_the_long_run():
    some = judged(400, failures=40)

    assert certify(some, 0.05, horizon=400).answered < certify(some, 0.05).answered


def test_how_many_labels_are_missing_is_foretold():
    assert risk.missing_labels([], 0.05) == 45
    assert risk.missing_labels(judged(30), 0.05) == 15
    few = [Judged(0.9, n % 40 != 0) for n in range(80)]  # 2.5% wrong
    needed = risk.missing_labels(few, 0.05)
    assert needed is not None
    more = [Judged(0.9, n % 40 != 0) for n in range(80 + needed)]
    assert binomial_tail(sum(not e.is_right for e in more), len(more), 0.05) <= 0.1


def test_bounds_are_those_of_clopper_and_pearson():
    assert upper_bound(0, 45) == pytest.approx(1 - 0.1 ** (1 / 45))
    assert interval(3, 100, 0.1) == pytest.approx((0.00823, 0.07571), abs=1e-4)
    assert interval(0, 0) == (0.0, 1.0)


def thresholds(**certificates: Certificate) -> Thresholds:
    pooled = certificates.pop("pooled", Certificate(0.6, 500, 300, 5, 0.03))
    return Thresholds(0.05, 0.1, 0.8, pooled, certificates)


def test_a_language_uses_its_own_certificate_then_that_of_all_then_the_prior():
    found = thresholds(en=Certificate(0.5, 400, 250, 4, 0.03), de=Certificate(None, 20))

    assert (found.basis("en-US"), found.answer_from("en-US")) == ("language", 0.5)
    assert (found.basis("de"), found.answer_from("de")) == ("pooled", 0.6)
    assert [found.is_certified(name) for name in ("en", "de", "fr")] == [True, False, False]
    nothing = thresholds(pooled=Certificate(None, 30), en=Certificate(None, 30))
    assert (nothing.basis("en"), nothing.answer_from("en")) == ("prior", 0.8)


def test_a_language_whose_own_labels_speak_against_it_borrows_no_certificate():
    found = thresholds(pooled=Certificate(0.9, 500, 300, 5, 0.03), de=Certificate(None, 200))

    assert (found.basis("de"), found.answer_from("de")) == ("prior", 0.9)


def test_thresholds_come_back_from_json_as_they_went():
    made = fitting.fit(labels(600, entry="returns"), 0.05, 0.6, encoder="e5", note="a test")

    stored = json.loads(json.dumps(made.thresholds.to_json()))

    assert Thresholds.from_json(stored) == made.thresholds


@pytest.mark.parametrize("stored", [{}, {"tolerated": "much"}, {"pooled": {}}])
def test_what_is_no_thresholds_is_refused(stored: dict[str, Any]):
    with pytest.raises(InvalidInput, match="deskhand calibrate"):
        Thresholds.from_json(stored)


def test_several_signals_answer_more_than_the_confidence_alone():
    some = labels(1000)
    bare = certify([Judged(e.signals["confidence"], e.is_right) for e in some], 0.05)

    made = fitting.fit(some, 0.05, 0.6)

    assert "signals" in made.chosen
    assert made.thresholds.pooled.coverage > 1.15 * bare.coverage


def test_few_labels_fit_no_calibrator():
    made = fitting.fit(labels(100), 0.05, 0.6)

    assert made.thresholds.calibrator is None
    assert made.thresholds.confidence({"confidence": 0.7, "other": 9.0}) == 0.7
    assert made.thresholds.prior == 0.6


def test_signals_that_say_nothing_are_left_out():
    chance = random.Random(3)
    some = [
        Labelled({"confidence": c, "noise": chance.random()}, chance.random() < c)
        for c in (chance.random() for _ in range(800))
    ]

    assert "signals" not in fitting.fit(some, 0.05, 0.6).chosen


def test_entries_that_mislead_are_trusted_less():
    chance = random.Random(4)
    some: list[Labelled] = []
    for number in range(800):
        confidence = chance.random()
        is_right = chance.random() < confidence ** (0.2 if number % 4 else 6)
        entry = f"entry {number % 4}"
        some.append(Labelled({"confidence": confidence}, is_right, entry=entry))

    made = fitting.fit(some, 0.05, 0.6)

    assert "entry by entry" in made.chosen
    said = {e: made.thresholds.confidence({"confidence": 0.8}, "en", f"entry {e}") for e in (0, 1)}
    assert said[0] < said[1] - 0.2


def test_a_language_is_trusted_as_its_labels_say():
    chance = random.Random(5)
    some: list[Labelled] = []
    for number in range(800):
        confidence, language = chance.random(), ("en", "de")[number % 2]
        is_right = chance.random() < confidence ** (0.2 if language == "en" else 3)
        some.append(Labelled({"confidence": confidence}, is_right, language))

    found = fitting.fit(some, 0.05, 0.6).thresholds

    said = {name: found.confidence({"confidence": 0.7}, name) for name in ("de", "fr", "en")}
    assert said["de"] < said["fr"] < said["en"]


def test_weak_labels_move_the_calibrator_and_certify_nothing():
    weak = labels(400, weight=0.5, certifies=False)

    made = fitting.fit(weak, 0.05, 0.6)

    assert made.thresholds.calibrator is not None
    assert made.thresholds.pooled.labels == 0
    assert made.thresholds.basis("en") == "prior"


def test_thresholds_are_tested_with_calibrators_that_had_not_seen_the_label():
    """A calibrator with a signal for each label knows them by heart; held out it knows nothing."""
    chance = random.Random(6)
    some = [
        Labelled(
            {"confidence": chance.random(), **{f"s{n}": chance.gauss(0, 1) for n in range(60)}},
            chance.random() < 0.5,
        )
        for _ in range(160)
    ]

    assert fitting.fit(some, 0.05, 0.6).thresholds.pooled.threshold is None


def test_a_missing_signal_counts_as_the_average_one():
    fitted = Fitted((Term("a", None, 2.0, 1.0, 1.0), Term("b", 1.0, 0.5, 1.0, 1.0)), 0.0)

    assert fitted.chance({}) == 0.5
    assert fitted.chance({"a": 2.0, "b": 1.5}) == 0.5
    assert fitted.chance({"a": 3.0}) > 0.7
    assert fitted.chance({"a": float("nan")}) == 0.5


def test_an_isotonic_curve_is_used_where_it_foretells_better():
    chance = random.Random(7)
    some = [
        Labelled({"confidence": c}, chance.random() < (0.97 if c > 0.5 else 0.1))
        for c in (chance.random() for _ in range(3000))
    ]

    made = fitting.fit(some, 0.05, 0.6).thresholds

    assert made.calibrator is not None
    assert made.confidence({"confidence": 0.8}) == pytest.approx(0.97, abs=0.03)
    assert made.confidence({"confidence": 0.2}) == pytest.approx(0.1, abs=0.05)


def test_signals_of_a_reply_and_of_its_stored_trace_are_the_same():
    passages = [
        Passage(FaqEntry("a", "?", "!"), 1.0, 0.8, dense=0.9, lexical=0.4),
        Passage(FaqEntry("b", "?", "!"), 0.5, 0.1, dense=0.7),
    ]
    intents = [Intent("order", 0.6), Intent("out_of_scope", 0.3)]
    stored = {
        "passages": [{"entry_id": p.entry.id, "confidence": p.confidence, "dense": p.dense,
                      "lexical": p.lexical} for p in passages],
        "intents": [{"name": i.name, "probability": i.probability} for i in intents],
        "signals": {"seeking": 0.9},
    }  # fmt: skip

    signals = risk.signals_of(passages, intents, {"seeking": 0.9})

    assert signals == risk.stored_signals(stored)
    assert signals["margin"] == pytest.approx(0.7)
    assert (signals["off_topic"], signals["seeking"]) == (0.3, 0.9)
    assert risk.signals_of([], [], {}) == {"confidence": 0.0}


def test_confidences_spread_as_before_are_no_drift_and_others_are():
    spread = fitting.spread([n / 400 for n in range(400)])

    same = drift.drift(spread, [n / 150 for n in range(150)])
    other = drift.drift(spread, [n / 500 for n in range(150)])

    assert same is not None
    assert other is not None
    assert same.is_calm
    assert not same.is_drifted
    assert other.is_drifted
    assert drift.drift(spread, [0.1] * 20) is None
    assert drift.drift(Spread(), [0.1] * 200) is None


def test_few_labels_make_an_index_that_chance_explains():
    chance = random.Random(8)
    spread = fitting.spread([chance.random() for _ in range(50)])
    seen = [chance.random() ** 1.3 for _ in range(60)]

    found = drift.drift(spread, seen)

    assert found is not None
    assert found.index < found.chance
    assert not found.is_drifted


def test_a_changed_share_must_be_large_and_no_chance():
    grown = drift.change((10, 100), (40, 100))
    slight = drift.change((100, 1000), (150, 1000))

    assert grown is not None
    assert grown.is_large
    assert slight is not None
    assert not slight.is_large
    assert drift.change((1, 10), (9, 10)) is None


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
    return path


def cases(count: int = 400, seed: int = 1) -> list[dict[str, Any]]:
    return [
        {"confidence": e.signals["confidence"], "correct": e.is_right, "signals": dict(e.signals)}
        for e in labels(count, seed)
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 3: this is no JSON"),
        ('{"confidence": NaN, "correct": true}', "line 3: confidence nan"),
        ('{"confidence": 1.2, "correct": true}', "line 3: confidence 1.2"),
        ('{"confidence": "0.5", "correct": true}', "line 3: confidence '0.5'"),
        ('{"confidence": true, "correct": true}', "line 3: confidence True"),
        ('{"confidence": 0.5}', "line 3: the field 'correct' is missing"),
        ('{"correct": true}', "line 3: the field 'confidence' is missing"),
        ('{"confidence": 0.5, "correct": "yes"}', "line 3: correct 'yes'"),
        ('{"confidence": 0.5, "correct": null}', "line 3: correct None"),
        ('{"confidence": 0.5, "correct": 1, "signals": {"a": "x"}}', "line 3: signal 'a'"),
        ('{"confidence": 0.5, "correct": 1, "language": 3}', "line 3: language"),
        ('{"id": "a", "passages": []}', "line 3: which entries are relevant to 'a'"),
        ('{"relevant": [], "passages": [3]}', "line 3: a passage is"),
    ],
)
def test_a_wrong_case_is_named_with_its_line(tmp_path: Path, line: str, reason: str):
    path = write(tmp_path / "cases.jsonl", [cases(1)[0], "", line, *cases(30)])

    with pytest.raises(InvalidInput, match=reason.replace("(", r"\(")):
        evaluation.read_cases(path)


def test_too_few_cases_are_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="3 cases cannot be split"):
        evaluation.read_cases(write(tmp_path / "cases.jsonl", list(cases(3))))


def test_replies_are_cases_with_their_relevant_entries(tmp_path: Path):
    replies = [
        {"id": str(n), "decision": "hand_off", "confidence": 0.7,
         "passages": [{"id": "a", "score": 0.3}, {"id": "b", "score": 0.2}]}
        for n in range(20)
    ]  # fmt: skip
    relevance = [{"id": str(n), "relevant": ["a" if n % 2 else "b"]} for n in range(20)]

    read = evaluation.read_cases(
        write(tmp_path / "replies.jsonl", list(replies)),
        write(tmp_path / "relevance.jsonl", list(relevance)),
    )

    assert [each.is_right for each in read] == [bool(n % 2) for n in range(20)]
    assert read[0].signals["confidence"] == 0.3  # of the entry, not that a hand-off is right
    assert read[0].entry == "a"


def test_the_command_counts_splits_in_which_the_rate_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = write(tmp_path / "cases.jsonl", list(cases(600)))
    command = ["eval", "risk", "--cases", str(path), "--splits", "20"]

    assert run([*command, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert run([*command, "--report", str(tmp_path / "page")]) == 0
    told = capsys.readouterr().out

    assert figures["kept"] >= 0.9
    assert figures["coverage"] > 1.15 * figures["fixed"]["coverage"]
    assert figures["naive"]["kept"] < 0.9
    assert figures["fixed"]["kept"] >= 0.9
    assert "kept (" in told
    page = (tmp_path / "page" / "report.html").read_text(encoding="utf-8")
    assert "calibrated on all signals" in page
    assert f"{figures['coverage']:.1%}" in told


@pytest.mark.parametrize(("is_right", "coverage"), [(True, 1.0), (False, 0.0)])
def test_cases_that_are_all_right_or_all_wrong_are_answered_or_not(is_right: bool, coverage: float):
    same = [Labelled({"confidence": n / 400}, is_right) for n in range(400)]

    figures = evaluation.evaluate(same, tolerated=0.05, confidence=0.9, splits=10)

    assert figures["kept"] == 1.0
    assert figures["coverage"] == pytest.approx(coverage, abs=0.01)


def test_a_single_confidence_for_all_is_no_trouble():
    same = [Labelled({"confidence": 0.5}, n % 50 != 0) for n in range(1000)]

    figures = evaluation.evaluate(same, tolerated=0.05, confidence=0.9, splits=10)

    assert figures["kept"] == 1.0
    assert figures["coverage"] > 0.9


def test_the_curve_shows_the_error_with_its_interval():
    right = np.asarray([True] * 90 + [False] * 10)
    points = evaluation.curve(np.linspace(1, 0, 100), right)

    assert points[-1]["coverage"] == 1.0
    assert points[-1]["error"] == pytest.approx(0.1)
    assert all(p["low"] <= p["error"] <= p["high"] for p in points)
