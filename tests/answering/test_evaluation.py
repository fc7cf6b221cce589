"""`deskhand eval`: formats, figures and the lines that are named when they are wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import InvalidInput
from core.types import Author, Choice, Citation, Decision, FaqEntry, Passage, Reply, Tier, Trace
from training.evaluation import generation_scores, replies, report, retrieval

ENTRIES = [
    FaqEntry("shipping", "How much is shipping?", "Shipping costs €5."),
    FaqEntry("returns", "Can I return it?", "Yes, within 30 days."),
]


def case(name: str, message: str, relevant: str = "", **more: object) -> replies.Case:
    row = {"id": name, "turns": [{"speaker": "U", "text": message}], **more}
    return replies.case_of(row | {"relevant": [relevant] if relevant else []}, "cases line 1")


def result(asked: replies.Case, decision: Decision, entry: int | None, text: str) -> replies.Result:
    passages = tuple(Passage(e, 0.5, 0.5) for e in ENTRIES) if entry is not None else ()
    if entry == 1:
        passages = passages[::-1]
    cited = () if entry is None else (Citation(ENTRIES[entry].id, ENTRIES[entry].question),)
    choice = Choice(decision, "a test", passages[:1])
    reply = Reply(choice, text, Tier.GENERATED, "en", citations=cited, trace=Trace((), passages))
    return replies.Result(asked, reply, 0.1)


def test_a_line_that_is_no_json_is_named(tmp_path: Path):
    path = tmp_path / "F.jsonl"
    path.write_text('{"id": "1"}\nnot json\n')
    with pytest.raises(InvalidInput, match=r"F\.jsonl line 2"):
        report.read_jsonl(path, ("id",))


def test_a_missing_field_is_named(tmp_path: Path):
    path = tmp_path / "F.jsonl"
    path.write_text('\n{"id": "1"}\n')
    with pytest.raises(InvalidInput, match=r"line 2: the field 'answer' is missing"):
        report.read_jsonl(path, ("id", "answer"))


def test_an_empty_cell_is_named_by_its_line(tmp_path: Path):
    path = tmp_path / "T.csv"
    path.write_text('text,label\n"two\nlines",a\nhello,\n')
    with pytest.raises(InvalidInput, match=r"T\.csv line 4: label is empty"):
        report.read_labelled(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match="does not exist"):
        report.read_labelled(tmp_path / "nowhere.csv")


@pytest.mark.parametrize(
    "turns", [None, [], ["hi"], [{"speaker": "X", "text": "hi"}], [{"speaker": "S", "text": "hi"}]]
)
def test_turns_that_cannot_be_read_are_refused(turns: object):
    with pytest.raises(InvalidInput, match="cases line 3"):
        replies.case_of({"id": "1", "turns": turns}, "cases line 3")


def test_what_was_said_before_becomes_history():
    turns = [{"speaker": "U", "text": "a"}, {"speaker": "S", "text": "b"}]
    made = replies.case_of({"id": 1, "turns": [*turns, {"speaker": "U", "text": "c"}]}, "x")
    assert (made.id, made.message) == ("1", "c")
    assert [(u.author, u.text) for u in made.history] == [
        (Author.CUSTOMER, "a"),
        (Author.BOT, "b"),
    ]


def test_figures_of_right_wrong_and_missing_answers():
    said = [
        result(
            case("1", "how much", "shipping", answerable=True, expect="answer",
                 reference="Shipping costs €5."),
            Decision.ANSWER, 0, "Shipping costs €5.",
        ),
        result(
            case("2", "may I return it", "returns", answerable=True, expect="answer"),
            Decision.ANSWER, 0, "Shipping costs €7.",
        ),
        result(case("3", "hi", answerable=False, expect="small_talk"),
               Decision.SMALL_TALK, None, "Hello"),
        result(case("4", "can it fly", answerable=True, expect="answer"),
               Decision.HAND_OFF, None, "A person comes."),
    ]  # fmt: skip
    figures = generation_scores.figures(said, ENTRIES)
    assert figures["detection_precision"] == 1.0
    assert figures["detection_recall"] == pytest.approx(2 / 3)
    assert figures["selection_recall@1"] == 0.5
    assert figures["selection_recall@5"] == 1.0
    assert figures["wrong_among_answered"] == 0.5
    assert figures["generation_rouge_l"] == 1.0
    assert figures["unsupported"] == 0.5  # €7 stands nowhere
    assert figures["as_expected"] == 0.5
    assert figures["n"] == 4


def test_a_line_of_the_output_holds_what_is_promised():
    line = result(case("1", "how much"), Decision.ANSWER, 0, "Shipping costs €5.").line()
    signals = line.pop("signals")
    assert all(0.0 <= value <= 1.0 for value in signals.values())
    assert signals
    assert json.loads(json.dumps(line)) == {
        "id": "1",
        "decision": "answer",
        "text": "Shipping costs €5.",
        "citations": ["shipping"],
        "passages": [{"id": "shipping", "score": 0.5}, {"id": "returns", "score": 0.5}],
        "knowledge_seeking": True,
        "confidence": 0.5,
        "tier": "generated",
        "reason": "",
        "language": "en",
        "seconds": 0.1,
    }


def test_a_question_is_told_apart_from_what_was_decided_on_it():
    unsure = result(case("1", "how much"), Decision.HAND_OFF, 0, "A colleague will answer.")
    assert not replies.seeks_knowledge(unsure.reply)
    sought = replace(unsure.reply, trace=replace(unsure.reply.trace, signals={"seeking": 0.8}))
    assert replies.seeks_knowledge(sought)
    thanks = replace(unsure.reply, trace=replace(unsure.reply.trace, signals={"seeking": 0.1}))
    assert not replies.seeks_knowledge(thanks)


def test_ranks_become_recall_and_gain():
    assert retrieval.recall([0, 3], relevant=2, depth=5) == 1.0
    assert retrieval.recall([0, 3], relevant=2, depth=1) == 1.0
    assert retrieval.recall([], relevant=1, depth=5) == 0.0
    assert retrieval.ndcg([0], relevant=1, depth=10) == 1.0
    assert retrieval.ndcg([1], relevant=1, depth=10) == pytest.approx(0.6309, abs=1e-4)
