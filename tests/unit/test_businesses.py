"""Our own little FAQs, which calibration learns from."""

from __future__ import annotations

from retrieval.index import bare
from training.businesses import own_data
from training.evaluation.samples import sample_conversations


def test_what_is_asked_of_a_business_is_answered_by_an_entry_of_it_or_by_none():
    bases, asked = own_data()

    for said in asked:
        assert said.entry is None or said.entry in bases[said.base]
    assert all(any(a.base == base and a.entry is None for a in asked) for base in bases)


def test_no_business_is_asked_what_a_test_conversation_says():
    _, asked = own_data()
    tested = {bare(turn["text"]) for row in sample_conversations() for turn in row["turns"]}

    assert not tested & {bare(said.text) for said in asked}
