"""What staff are asked to label next, how texts are compared, and files of labels."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import pytest

from core import label_files, weak_labels
from core.db.labels import Asked, Candidate, Label
from core.errors import InvalidInput
from core.types import Decision, KnowledgeBaseId, TurnId, Verdict
from core.weak_labels import Answers
from core.words import likeness, words
from training import active
from training.active import Doubtful

SURE = Doubtful("where is my parcel", 0.98, 0.01, 0.7, intent=0.97)


def picked(messages: list[Doubtful], limit: int = 1, **options: object) -> list[str]:
    picks = active.choose(messages, limit, **options)  # type: ignore[arg-type]
    return [messages[pick.place].text for pick in picks]


@pytest.mark.parametrize(
    ("doubtful", "why"),
    [
        (replace(SURE, text="a b", confidence=0.69), "its chance is near the threshold"),
        (replace(SURE, text="a b", confidence=0.46, runner_up=0.45), "two entries compete"),
        (replace(SURE, text="a b", intent=0.2), "the intent is unclear"),
        (replace(SURE, text="a b", out_of_scope=0.9), "intent and search disagree"),
        (replace(SURE, text="a b", refuted=True), "a customer or an agent spoke against"),
    ],
)
def test_what_is_doubtful_comes_before_what_is_sure_and_says_why(
    doubtful: Doubtful, why: str
) -> None:
    messages = [SURE, replace(SURE, text="opening hours"), doubtful]
    (pick,) = active.choose(messages, 1)
    assert (messages[pick.place], pick.why[: len(why)]) == (doubtful, why)


def test_the_same_question_in_other_words_is_not_asked_twice_in_a_row() -> None:
    near = replace(SURE, confidence=0.7)
    messages = [
        replace(near, text="how long does a refund take"),
        replace(near, text="how long will the refund take"),
        replace(near, text="does the lamp dim", confidence=0.6),
    ]
    assert picked(messages, 2) == ["how long does a refund take", "does the lamp dim"]


def test_what_is_like_a_labelled_text_comes_later() -> None:
    near = replace(SURE, confidence=0.7)
    messages = [
        replace(near, text="how long does a refund take"),
        replace(near, text="does the lamp dim", confidence=0.6),
    ]
    assert picked(messages, labelled=["how long does the refund take"]) == ["does the lamp dim"]


def test_what_many_ask_comes_first() -> None:
    near = replace(SURE, confidence=0.7)
    messages = [replace(near, text="does the lamp dim"), replace(near, text="is it blue", times=40)]
    assert picked(messages) == ["is it blue"]


def test_vectors_tell_apart_by_meaning_what_words_cannot() -> None:
    near = replace(SURE, confidence=0.7)
    messages = [
        replace(near, text="money back when"),
        replace(near, text="how long does a refund take"),
        replace(near, text="does the lamp dim", confidence=0.62),
    ]
    vectors = np.asarray([[1.0, 0.1, 0.0], [1.0, 0.0, 0.1], [0.0, 1.0, 1.0]], np.float32)
    assert picked(messages, 2) == ["money back when", "how long does a refund take"]
    assert picked(messages, 2, vectors=vectors) == ["money back when", "does the lamp dim"]


def test_no_more_is_asked_than_there_is_and_nothing_twice() -> None:
    messages = [replace(SURE, text=f"same text {n % 2}") for n in range(5)]
    picks = active.choose(messages, 9)
    assert sorted(pick.place for pick in picks) == [0, 1, 2, 3, 4]
    assert active.choose([], 3) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [("Where is my PARCEL?", "the parcel"), ("怎么退款", "退款呢"), ("返品したい", "返品")],
)
def test_texts_that_share_their_words_are_alike(one: str, other: str) -> None:
    assert likeness(words(one), words(other)) > likeness(words(one), words("blaue Lampe 灯泡"))


def test_a_text_of_common_words_alone_still_has_words() -> None:
    assert words("what is it") == {"what", "is", "it"}
    assert words("?!") == frozenset()
    assert likeness(frozenset(), frozenset()) == 0.0


RETURNS = "Everything can be sent back within thirty days, and we pay the label."
ANSWERS = Answers(
    [
        ("returns", RETURNS),
        ("hours", "We are open from nine to six, except on Sundays."),
        ("lamp-a", "The lamp takes bulbs with an E27 socket and can be dimmed."),
        ("lamp-b", "The lamp takes bulbs with an E27 socket and can be dimmed!"),
    ]
)


def test_an_agents_words_around_an_answer_do_not_hide_it() -> None:
    match = ANSWERS.match(f"Hello Ann, good that you ask! {RETURNS} Have a nice day, Eve")
    assert match is not None
    assert match.entry_id == "returns"
    assert match.weight > 0.7


def test_two_entries_with_one_answer_tell_nothing() -> None:
    assert ANSWERS.match("The lamp takes bulbs with an E27 socket and can be dimmed.") is None


def test_what_is_half_like_an_answer_tells_nothing() -> None:
    assert ANSWERS.match("Sent back within thirty days? Sadly lamps on sale are final.") is None


@pytest.mark.parametrize(
    ("before", "now", "again"),
    [
        ("how long does the refund take", "how long does the refund take", True),
        ("how long does the refund take", "refund how long does it take please", True),
        ("how long does the refund take", "no, i asked about the refund", True),
        ("退款要多久", "不是，我问退款", True),
        ("how long is delivery to france", "how long is delivery to spain", False),
        ("how long does the refund take", "and what does it cost", False),
        ("how long does the refund take", "no problem, thank you", False),
        ("refund", "refund", False),
    ],
)
def test_asking_again_is_told_from_asking_something_else(
    before: str, now: str, again: bool
) -> None:
    assert weak_labels.asks_again(before, now) is again


ASKED = Asked(
    TurnId(UUID(int=1)), KnowledgeBaseId(1), "both please", "en", [],
    Decision.ANSWER, 0.8, ["a", "b"], [Candidate("a", 0.9)], [], 0.7, datetime.now(UTC),
)  # fmt: skip


def test_a_thumb_on_an_answer_that_rests_on_several_entries_tells_nothing() -> None:
    assert weak_labels.from_verdict(ASKED, Verdict.UP) is None


def test_any_of_several_entries_that_were_given_was_right() -> None:
    assert weak_labels.judged(ASKED, "b").is_correct is True
    assert weak_labels.judged(ASKED, "c").is_correct is False


def test_a_candidate_that_was_not_given_can_be_right_too() -> None:
    unanswered = replace(ASKED, decision=Decision.HAND_OFF, cited=[])
    label = weak_labels.judged(unanswered, "a")
    assert (label.chosen_entry_id, label.confidence, label.is_correct) == ("a", 0.9, True)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "line 2: this is no JSON"),
        ("[1]", "line 2: an object is needed"),
        ('{"entry_id": "a"}', "line 2: text is blank"),
        ('{"text": "b"}', "line 2: it says nothing of the text"),
        ('{"text": "b", "entry_id": "a", "none": true}', "line 2: entry_id and none exclude"),
        ('{"text": "b", "none": "perhaps"}', "line 2: none is 'perhaps'"),
        ('{"text": "b", "label": "Not so!"}', "line 2: label 'not so!' must be a word"),
        ('{"text": "b", "none": true, "weight": 2}', "line 2: weight 2 must be above 0"),
        ('{"text": "b", "none": true, "weight": "x"}', "line 2: weight x must be above 0"),
        ('{"text": "b", "none": true, "history": [1]}', "line 2: history must be a list"),
        (json.dumps({"text": "b" * 9_000, "none": True}), "line 2: text has 9000 characters"),
        ('{"text": "a\\u0000b", "none": true}', "line 2: text holds a NUL"),
    ],
)
def test_a_wrong_line_is_named_with_its_number(line: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        label_files.read(['{"text": "a", "none": true}\n', line + "\n"], "l.jsonl")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("label\nx\n", "line 1: the header must name text"),
        ("text,entry_id\na,b,c\n", "line 2: 3 cells for 2 columns"),
        ('text,entry_id\n"a,b\n', "line 2: unexpected end of data"),
        ("text,entry_id\n", "holds no labels"),
    ],
)
def test_a_wrong_table_is_named_with_its_line(content: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        label_files.read(content.splitlines(keepends=True), "l.csv")


LABELS = (
    Label('may i "return", it', "returns", "return_item", source="file"),
    Label("tell me a joke", locale="zh", source="file", weight=0.5),
    Label("lamps\nplease", chosen_entry_id="hours", is_correct=False, source="file"),
)


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_what_is_written_is_read_back_as_it_was(ending: str) -> None:
    text = "".join(label_files.write(LABELS, ending))
    lines = label_files.read(text.splitlines(keepends=True), f"l.{ending}")

    first, second, third = lines
    assert first.label == replace(LABELS[0], intent=None)
    assert first.intent == replace(LABELS[0], entry_id=None)
    assert (second.label, second.intent) == (LABELS[1], None)
    assert third.label is not None
    assert third.label.only_refutes
    assert third.label.text == "lamps\nplease"


def test_a_conversation_is_written_as_the_encoders_training_reads_it() -> None:
    history = [{"author": "customer", "text": "hi, a@b.org"}, {"author": "bot", "text": "hello"}]
    (line,) = label_files.write([Label("and it?", "a", history=history)], "jsonl")

    assert json.loads(line)["turns"] == [
        {"speaker": "U", "text": "hi, [e-mail]"},
        {"speaker": "S", "text": "hello"},
        {"speaker": "U", "text": "and it?"},
    ]
