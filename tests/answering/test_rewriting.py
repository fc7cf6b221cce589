"""Making follow-ups stand alone, and measuring it on sets of other people's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import InvalidInput
from core.types import Author
from retrieval.rewriting import Context, candidates, standalone
from training.evaluation.rewriting import FollowUp, canard, evaluate, mtrag, trec_cast

BAND = ("Blue Harbour", "early years", "Who founded the band?", "Anna Winter, in 1994.")


@pytest.mark.parametrize(
    ("message", "said", "expected"),
    [
        ("Is it treatable?", ["What is throat cancer?"], "Is throat cancer treatable?"),
        ("What are its symptoms?", ["Tell me about lung cancer."], "lung cancer's symptoms"),
        ("When was she born?", BAND, "Anna Winter"),
        ("Any albums?", BAND, "Blue Harbour"),
        # What names something already is left as it is.
        ("Tell me about tiger sharks.", ["Are whales big?"], "Tell me about tiger sharks."),
        ("Is it treatable?", [], "Is it treatable?"),
        ("它防水吗？", ["Heron 是什么？"], "Heron防水吗？"),
        ("它防水吗？", ["《蓝鹭》背包多少钱？", "80 欧元。"], "蓝鹭防水吗？"),
        ("それは防水ですか？", ["Heron のリュックはいくらですか？"], "Heronは防水ですか？"),
        ("它防水吗？", ["背包多少钱？"], "它防水吗？"),
        ("Otter 防水吗？", ["Heron 是什么？"], "Otter 防水吗？"),
    ],
)
def test_a_follow_up_is_told_without_its_conversation(
    message: str, said: Sequence[str], expected: str
):
    assert expected in standalone(message, said)


def test_a_message_that_names_something_takes_nothing_on():
    said = ["What is throat cancer?"]
    assert standalone("Where do tiger sharks live?", said) == "Where do tiger sharks live?"


HERON = Context("is the heron waterproof", "Heron", "Is the Heron backpack waterproof?")


def test_a_question_that_only_begins_like_a_follow_up_does_not_repeat_the_earlier_one():
    assert candidates("and how big is it?", HERON) == ["and how big is it?", "how big is Heron"]


def test_a_pronoun_that_points_to_nothing_in_the_base_is_resolved_from_what_was_said():
    context = Context("what is throat cancer?", said=("what is throat cancer?",))
    assert "is throat cancer treatable" in candidates("is it treatable", context)


def test_a_chinese_follow_up_takes_the_thing_that_the_conversation_is_about():
    blue = Context("红色的背包多少钱？", "苍鹭背包", "苍鹭背包多少钱？")
    assert "红色的背包多少钱？ 蓝色" in candidates("那蓝色的呢？", blue)
    assert "苍鹭背包防水吗" in candidates("它防水吗？", blue)


def test_who_said_what_before_is_told_where_the_set_holds_the_answers():
    turns = FollowUp("1", "Is it?", ("title", "Who?", "Ann."), "Is A?", has_answers=True)
    assert [u.author for u in turns.history] == [Author.BOT, Author.CUSTOMER, Author.BOT]
    questions = FollowUp("1", "Is it?", ("What?", "Who?"), "Is A?")
    assert {u.author for u in questions.history} == {Author.CUSTOMER}


class WordCounts:
    """An encoder that counts letters: alike texts are alike."""

    name = "letters"
    dimensions = 27

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        counts = np.asarray(
            [[text.lower().count(chr(97 + i)) for i in range(26)] + [1] for text in texts],
            np.float32,
        )
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)

    encode_passages = encode_queries


ROWS = [
    FollowUp("1", "What is throat cancer?", (), "What is throat cancer?"),
    FollowUp("2", "Is it treatable?", ("What is throat cancer?",), "Is throat cancer treatable?"),
    FollowUp("3", "Is it treatable?", ("What is lung cancer?",), "Is lung cancer treatable?"),
]


def test_rules_find_what_the_raw_message_misses():
    figures = evaluate(ROWS, WordCounts())
    assert figures["people_recall@1"] == 1.0
    assert figures["rules_recall@1"] == 1.0
    assert figures["raw_recall@1"] < 1.0
    assert figures["n"] == 2


def test_the_published_files_are_read(tmp_path: Path):
    row = {"History": ["A", "B"], "Question": "Is it?", "Rewrite": "Is A?"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert list(canard(tmp_path)) == [
        FollowUp("dev:1", "Is it?", ("A", "B"), "Is A?", has_answers=True)
    ]

    folder = tmp_path / "2019" / "data" / "evaluation"
    folder.mkdir(parents=True)
    turns = [(1, "What is X?"), (2, "Is it?")]
    asked = [{"number": number, "raw_utterance": text} for number, text in turns]
    topics = [{"number": 31, "turn": asked}]
    (folder / "evaluation_topics_v1.0.json").write_text(json.dumps(topics), encoding="utf-8")
    (folder / "evaluation_topics_annotated_resolved_v1.0.tsv").write_text(
        "31_1\tWhat is X?\n31_2\tIs X?\n", encoding="utf-8"
    )
    assert list(trec_cast(tmp_path))[1] == FollowUp("31_2", "Is it?", ("What is X?",), "Is X?")

    before = {"_id": "a<::>2", "text": "|user|: What is X?\n|user|: Is it?"}
    after = {"_id": "a<::>2", "text": "|user|: Is X?"}
    (tmp_path / "x_questions.jsonl").write_text(json.dumps(before), encoding="utf-8")
    (tmp_path / "x_rewrite.jsonl").write_text(json.dumps(after), encoding="utf-8")
    assert list(mtrag(tmp_path)) == [FollowUp("a<::>2", "Is it?", ("What is X?",), "Is X?")]


def test_a_wrong_folder_or_line_is_named(tmp_path: Path):
    with pytest.raises(InvalidInput, match="holds no"):
        list(canard(tmp_path))
    (tmp_path / "dev.jsonl").write_text('{"Question": "Is it?"}\n{"x"\n', encoding="utf-8")
    with pytest.raises(InvalidInput, match="line 1: Rewrite is missing"):
        list(canard(tmp_path))
