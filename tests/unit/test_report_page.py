"""The evaluation page: it stands alone, says nothing that a text could forge, and compares runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli.commands.eval import common
from core.errors import InvalidInput
from core.types import (
    Author,
    Choice,
    Decision,
    FaqEntry,
    Insight,
    Intent,
    Passage,
    Reply,
    Sentiment,
    Tier,
    Trace,
    Utterance,
)
from training.evaluation.outcomes import of_queries, of_replies
from training.evaluation.page import (
    PAGE,
    RESULTS,
    Curve,
    Earlier,
    Outcome,
    Report,
    calibration_error,
    coverage_curve,
    html,
    read_earlier,
    write,
)
from training.evaluation.replies import Case, Result
from training.evaluation.retrieval import Query


def outcome(number: int, *, right: bool = True, confidence: float = 0.9, **more: object) -> Outcome:
    made = Outcome(
        f"case-{number}", f"message {number}", "refund", "refund" if right else "delivery",
        right, confidence, "en" if number % 2 else "de", 12.0 + number,
    )  # fmt: skip
    return replace(made, **more)


def report(*outcomes: Outcome, **more: object) -> Report:
    made = Report("Intents of test.csv", {"accuracy": 0.91234, "n": len(outcomes)}, outcomes)
    return replace(made, **more)


def page(made: Report, earlier: Earlier | None = None) -> str:
    return html(made, "2026-11-24 10:00 UTC", earlier)


class Balanced(HTMLParser):
    """Fails where a tag is not closed as it was opened, and keeps what could load something."""

    VOID = frozenset({"meta", "wbr", "input", "br", "line", "circle", "polyline", "polygon"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {k}" for k, _ in attrs if k in ("src", "href", "srcset", "data")]
        self.loads += [tag] if tag in ("link", "img", "iframe", "object") else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing_from_anywhere():
    parsed = Balanced()
    text = page(
        report(
            *(outcome(i, right=i % 3 > 0, confidence=i / 40) for i in range(40)),
            confusion=True,
            tolerated=0.05,
            curves=[Curve("one fixed threshold", [(0.5, 0.1), (1.0, 0.2)])],
            notes=["a note"],
        )
    )
    parsed.feed(text)
    assert parsed.open == []
    assert parsed.loads == []
    assert not re.search(r"https?://|@import|url\(", text)
    for heading in ("Figures", "Coverage against error", "Calibration", "By language", "Latency",
                    "Confusion", "Cases (40)", "Notes"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in text


def test_what_a_customer_wrote_is_text_and_never_markup():
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>'
    text = page(
        report(
            outcome(1, id=evil, text=evil, truth=evil, told=evil + "!", right=False, language=evil,
                    before=((evil, evil),), trace={evil: evil}),
            title=evil, about={evil: evil}, figures={evil: evil}, notes=[evil], confusion=True,
            curves=[Curve(evil, [(0.5, 0.5)])],
        )
    )  # fmt: skip
    assert "<script>alert" not in text
    assert "<img" not in text
    assert text.count("<script>") == 1
    assert "&lt;script&gt;alert" in text


def test_sections_without_data_are_left_out():
    text = page(Report("Bare", {"recall@1": 0.5}))
    assert re.findall(r"<h2>(.*?)</h2>", text) == ["Figures"]
    without_chance = replace(outcome(1), confidence=None, milliseconds=None, language="")
    text = page(report(without_chance))
    assert "<h2>Calibration</h2>" not in text
    assert "<h2>Latency</h2>" not in text
    assert "<h2>By language</h2>" not in text


def test_of_many_labels_the_largest_confusions_are_listed():
    pairs = [(f"label {i}", f"label {i}") for i in range(20)] * 3
    pairs += [("label 3", "label 4")] * 5 + [("label 7", "label 8")] * 2
    outcomes = [
        outcome(i, truth=truth, told=told, right=truth == told)
        for i, (truth, told) in enumerate(pairs)
    ]
    text = page(report(*outcomes, confusion=True))
    first, second = (
        text.index("<td class=words>label 3</td><td class=words>label 4</td><td>5</td>"),
        text.index("<td class=words>label 7</td><td class=words>label 8</td><td>2</td>"),
    )
    assert first < second
    assert "<td>5</td><td>62%</td>" in text
    assert 'class="matrix"' not in text
    assert 'class="matrix"' in page(report(outcome(1), outcome(2, right=False), confusion=True))


def test_the_calibration_error_is_the_gap_between_confidence_and_being_right():
    honest = [outcome(i, right=i < 8, confidence=0.8) for i in range(10)]
    boasting = [outcome(i, right=i < 2, confidence=0.8) for i in range(10)]
    assert calibration_error(honest) == pytest.approx(0.0)
    assert calibration_error(boasting) == pytest.approx(0.6)
    assert calibration_error([replace(honest[0], confidence=float("nan"))]) == 0.0


def test_coverage_grows_as_confidence_falls_and_ties_are_answered_together():
    outcomes = [outcome(i, confidence=0.9) for i in range(10)]
    outcomes += [outcome(10 + i, right=False, confidence=0.4) for i in range(10)]
    points = coverage_curve(outcomes)
    assert [(x, error) for x, error, *_ in points] == [(0.5, 0.0), (1.0, 0.5)]
    _, _, low, high = points[0]
    assert low == 0.0
    assert high == pytest.approx(0.3085, abs=1e-3)  # Clopper and Pearson, none of 10
    assert coverage_curve([]) == []


def test_a_run_is_compared_with_an_earlier_one(tmp_path: Path):
    before = [outcome(i, right=i >= 12) for i in range(40)]
    after = [outcome(i, right=i != 39) for i in range(40)]
    write(report(*before, figures={"accuracy": 0.7, "same": 1}), tmp_path / "old")
    written = write(
        report(*after, figures={"accuracy": 0.975, "same": 1}), tmp_path / "new", tmp_path / "old"
    )
    text = written.read_text(encoding="utf-8")
    assert written == tmp_path / "new" / PAGE
    assert "12 became right" in text
    assert "1 became wrong" in text
    assert "Better beyond chance" in text
    assert "+0.275 (was 0.7)" in text
    assert "as before" in text
    assert "earlier run" in text


def test_a_difference_that_chance_would_make_is_called_so(tmp_path: Path):
    write(report(*(outcome(i, right=i != 1) for i in range(20))), tmp_path / "old")
    written = write(
        report(*(outcome(i, right=i != 2) for i in range(20))), tmp_path / "new", tmp_path / "old"
    )
    assert "No more than chance" in written.read_text(encoding="utf-8")


def test_results_beside_the_page_hold_every_case(tmp_path: Path):
    outcomes = [outcome(i, text="你好" if i else "", right=bool(i)) for i in range(700)]
    write(report(*outcomes), tmp_path, now=lambda: datetime(2026, 11, 24, 9, 5, tzinfo=UTC))
    stored = json.loads((tmp_path / RESULTS).read_text(encoding="utf-8"))
    assert stored["made_at"] == "2026-11-24 09:05 UTC"
    assert len(stored["outcomes"]) == 700
    assert stored["outcomes"][1]["text"] == "你好"
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert text.count('<details class="case"') == 600
    assert "100 more in results.json" in text
    assert text.index('data-right="no"') < text.index('data-right="yes"')
    assert sorted(path.name for path in tmp_path.iterdir()) == [PAGE, RESULTS]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"outcomes": [1], "figures": {}}', "{"])
def test_what_is_no_earlier_run_is_refused_by_name(tmp_path: Path, content: str):
    (tmp_path / RESULTS).write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"results\.json is no result of --report"):
        read_earlier(tmp_path)


def test_a_folder_without_results_and_one_that_cannot_be_written_are_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="does not exist; give the folder"):
        write(report(), tmp_path / "new", tmp_path / "nowhere")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InvalidInput, match="cannot be written"):
        write(report(), tmp_path / "file")


def test_small_talk_is_right_where_expected_though_no_entry_is():
    entry = FaqEntry("pets", "Are pets allowed?", "No.")
    trace = Trace((Intent("thanks", 0.9),), (Passage(entry, 1.0, 0.2),), "thanks", "only thanks")
    insight = Insight((Intent("other", 0.8),), Sentiment("positive", 0.7, 0.4))
    reply = Reply(
        Choice(Decision.SMALL_TALK, "only thanks"), "You are welcome.", Tier.APPROVED, "en",
        trace=trace, insight=insight,
    )  # fmt: skip
    history = (Utterance(Author.CUSTOMER, "hi"), Utterance(Author.BOT, "Hello!"))
    case = Case("1", "thanks", history, frozenset(), "", None, "small_talk")
    (told,) = of_replies([Result(case, reply, 0.02)])
    assert (told.right, told.correct, told.confidence) == (True, False, 0.2)
    assert told.milliseconds == 20.0
    assert told.before == (("customer", "hi"), ("bot", "Hello!"))
    assert told.trace["why"] == "only thanks"
    assert told.trace["sentiment"] == "positive"
    assert told.trace["passages"][0][:3] == ["pets", "Are pets allowed?", 0.2]
    asked = replace(case, relevant=frozenset({"pets"}), expect=None)
    (told,) = of_replies([Result(asked, reply, 0.02)])
    assert (told.right, told.correct) == (True, True)
    (told,) = of_replies([Result(replace(case, expect=None), reply, 0.02)])
    assert (told.right, told.correct) == (None, None)


def test_a_query_is_right_where_its_entry_is_first():
    entries = [FaqEntry("a", "Question A?", "A"), FaqEntry("b", "Question B?", "B")]
    query = Query("q", "b please", (), frozenset({"b"}))
    first, second, none = of_queries(
        [(query, ["b", "a"], 0.01), (query, ["a", "b"], 0.01), (query, [], 0.01)],
        entries,
        lambda text: "en",
    )
    assert (first.right, second.right, none.right) == (True, False, False)
    assert second.truth == "b: Question B?"
    assert (second.told, none.told) == ("a: Question A?", "nothing")
    assert second.trace["rank"] == 2


def test_a_comparison_needs_a_folder_and_is_refused_before_the_work_begins(tmp_path: Path):
    with pytest.raises(InvalidInput, match="--compare needs --report"):
        common.check_report(None, tmp_path)
    with pytest.raises(InvalidInput, match="does not exist"):
        common.check_report(tmp_path / "new", tmp_path)


def test_without_a_folder_no_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    common.write_report(report(outcome(1)), None, None)
    assert capsys.readouterr().err == ""
    common.write_report(report(outcome(1)), tmp_path / "page", None)
    assert capsys.readouterr().err.strip() == f"Report: {tmp_path / 'page' / PAGE}"


def test_a_trace_has_a_line_for_each_of_its_passages():
    text = page(report(outcome(1, trace={"why": "it is clear", "passages": [["a", 1], ["b", 2]]})))
    assert (
        "<pre>why: it is clear\npassages: [&quot;a&quot;, 1]\n          [&quot;b&quot;, 2]" in text
    )
