"""Noise, conversations made by rule, and the figures of retrieval on them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from core.types import FaqEntry
from training.dialogues import dialogues, split, subject_of
from training.evaluation.retrieval import evaluate, made_queries, query_of
from training.noise import misheard, mistyped, spoken

QUESTIONS = (
    "Do you have wifi?",
    "Are pets allowed?",
    "Is there a pool?",
    "What time is check out?",
)
ENTITIES = ("GONVILLE HOTEL", "ACORN GUEST HOUSE", "AVALON", "HOBSONS HOUSE")
ENTRIES = [
    FaqEntry(f"{name}/{number}", question, "Yes.", entity=name)
    for name in ENTITIES
    for number, question in enumerate(QUESTIONS)
]


class Words:
    """Encodes a text as the letters it holds: alike texts are near, and it takes no time."""

    dimensions = 256
    name = "letters"

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in enumerate(texts):
            for a, b in zip(text.lower(), text.lower()[1:], strict=False):
                vectors[row, (ord(a) * 31 + ord(b)) % self.dimensions] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    encode_queries = encode_passages = encode_examples = _encode


def test_what_cannot_be_heard_is_gone_and_numbers_are_said():
    assert spoken("Is check-out at 10:30, or 11:00?") == "is check out at ten thirty or eleven"


def test_the_same_seed_makes_the_same_noise():
    text = "Does the Gonville Hotel have parking?"
    assert misheard(text, random.Random(4)) == misheard(text, random.Random(4))
    assert mistyped(text, random.Random(4)) == mistyped(text, random.Random(4))


def test_most_words_survive_recognition():
    text = "could you tell me whether they have a swimming pool at the gonville hotel"
    rng = random.Random(1)
    kept = [len({*text.split()} & {*misheard(text, rng).split()}) for _ in range(50)]
    assert 0.6 < np.mean(kept) / len({*text.split()}) < 0.97


def test_a_mistyped_message_keeps_its_words_apart():
    text = "Does the Gonville Hotel have parking for guests?"
    rng = random.Random(2)
    made = {mistyped(text, rng) for _ in range(30)}
    assert all(len(each.split()) == len(text.split()) for each in made)
    assert len(made) > 5


def test_a_conversation_asks_what_its_entry_answers_in_other_words():
    by_id = {entry.id: entry for entry in ENTRIES}
    made = [row for row in dialogues(ENTRIES, 60, random.Random(3), "none") if row["relevant"]]
    for row in made:
        (entry_id,) = row["relevant"]
        entry = by_id[entry_id]
        asked = row["turns"][-1]["text"]
        assert entry.entity == row["entity"]
        assert asked.rstrip("?").lower() != entry.question.rstrip("?").lower()
    assert {row["kind"] for row in made} == {"now", "ago"}


def test_a_conversation_names_its_entity_before_the_question_or_in_it():
    for row in dialogues(ENTRIES, 60, random.Random(3), "none"):
        first = row["entity"].split()[0].lower()
        places = [n for n, t in enumerate(row["turns"]) if first in t["text"].lower()]
        last = len(row["turns"]) - 1
        assert places, row
        assert row["kind"] != "now" or last in places
        assert row["kind"] != "ago" or places[0] < last


def test_entries_without_known_subjects_make_no_conversation():
    with pytest.raises(ValueError, match="No entry is about an entity"):
        dialogues([FaqEntry("x", "Why?", "Because.", entity="AVALON")], 1, random.Random(1))


def test_both_parts_of_a_split_have_their_own_entities():
    one, other = split(ENTRIES, 0.5, random.Random(1))
    assert not {e.entity for e in one} & {e.entity for e in other}
    assert len(one) + len(other) == len(ENTRIES)


def test_the_more_special_subject_is_recognised_first():
    assert subject_of("Is there a charge for wifi?") != subject_of("Is there wifi?")
    assert subject_of("What is the meaning of life?") is None


def test_a_question_is_found_by_the_entity_that_was_named_turns_ago():
    turns = [
        {"speaker": "U", "text": "i want to stay at the gone ville hotel"},
        {"speaker": "S", "text": "It is in the centre."},
        {"speaker": "U", "text": "are pets allowed"},
    ]
    row = {"id": "1", "turns": turns, "relevant": ["GONVILLE HOTEL/1"]}
    figures = evaluate(ENTRIES, [query_of(row, 1)], Words(), lambda text: "en")
    assert figures["recall@1"] == 1.0


def test_figures_stand_apart_for_each_kind_of_question():
    asked = made_queries(ENTRIES, 40, "none")
    figures = evaluate(ENTRIES, asked, Words(), lambda text: "en")
    kinds = [query.kind for query in asked if query.relevant]
    assert figures["n now"] == kinds.count("now")
    assert figures["n"] == figures["n now"] + figures["n ago"]
    mean = figures["recall@1 now"] * figures["n now"] + figures["recall@1 ago"] * figures["n ago"]
    assert figures["recall@1"] == pytest.approx(mean / figures["n"])


def test_questions_that_nothing_answers_are_not_counted():
    rows = [query_of({"text": "hello", "relevant": []}, 1)]
    assert evaluate(ENTRIES, rows, Words(), lambda text: "en")["n"] == 0
