"""The cases that confidence is fitted on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from core.types import FaqEntry
from retrieval.encoders.protocol import Vectors
from training.businesses import Asked, own_data
from training.calibrating import Cases, business_cases

DIMENSIONS = 16


class ByLetters:
    """An encoder whose vectors follow from the text alone."""

    name = "by-letters"
    dimensions = DIMENSIONS

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors, shape (texts, 16)."""
        seeds = [int.from_bytes(hashlib.sha256(t.encode()).digest()[:4], "big") for t in texts]
        drawn = np.stack([np.random.default_rng(seed).normal(size=DIMENSIONS) for seed in seeds])
        return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)

    encode_passages = encode_queries


def test_each_question_to_a_business_is_a_case_with_its_entry_and_one_without_it():
    bases, asked = own_data()
    gym = [said for said in asked if said.base == "gym"]

    made = list(business_cases({"gym": bases["gym"]}, gym, ByLetters()))

    answered = sum(said.entry is not None for said in gym)
    assert Counter(case.kind for case in made) == {
        "business": answered, "business missing": answered, "business gap": len(gym) - answered,
    }  # fmt: skip
    for case in made:
        assert len(case.right) == (1 if case.kind == "business" else 0)


def test_a_question_of_a_gap_has_no_right_candidate_among_all_entries():
    entries = [FaqEntry("a", "Opening hours?", "9 to 5."), FaqEntry("b", "Prices?", "10 euros.")]

    (made,) = business_cases({"shop": entries}, [Asked("shop", "any parking?", None)], ByLetters())

    assert made.right == ()
    assert len(made.signals) == len(entries)


def test_a_base_gives_cases_with_and_without_the_entry_that_answers():
    entries = [
        FaqEntry("a", "Opening hours?", "9 to 5.", alternates=("when are you open",)),
        FaqEntry("b", "What are the prices?", "10 euros.", alternates=("how much is it",)),
    ]
    asked = [("until when can I come", frozenset({"a"}))]
    examples = [("tell me a joke", "out_of_scope"), ("hello", "greeting")]

    kinds = Counter(case.kind for case in Cases(entries, examples, asked, ByLetters()).make())

    assert (kinds["customer"], kinds["missing"], kinds["alternate"]) == (1, 1, 2)
