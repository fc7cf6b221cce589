"""The country of a place that a customer names."""

from __future__ import annotations

import pytest

from core.types import FaqEntry
from retrieval.lexical import LexicalIndex
from retrieval.places import placed


@pytest.fixture
def shop() -> LexicalIndex:
    """Return what a shop says about four countries and one of its cities."""
    index = LexicalIndex()
    entries = (
        FaqEntry("fr", "How much is shipping to France?", "€7.95.", status="published"),
        FaqEntry("uk", "Do you ship to the United Kingdom?", "Yes.", status="published"),
        FaqEntry("us", "Do you ship to the United States?", "No.", status="published"),
        FaqEntry("nl", "Where is your shop?", "In Utrecht, Netherlands.", status="published"),
        FaqEntry("ch", "寄到瑞士运费多少？", "14.95 欧元。", locale="zh", status="published"),
    )
    for entry in entries:
        index.put(entry)
    return index


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Do you deliver to Paris?", "Do you deliver to Paris (France)?"),
        ("same for britain", "same for britain (United Kingdom)"),
        ("can you send it to new york!", "can you send it to new york (United States)!"),
        ("那苏黎世呢？", "那苏黎世呢（瑞士）？"),
    ],
)
def test_a_place_brings_its_country_in_as_the_base_calls_it(
    shop: LexicalIndex, said: str, meant: str
):
    assert placed(said, shop.knows) == meant


@pytest.mark.parametrize(
    "said",
    [
        "Is Paris in France?",  # the country is named already
        "Is the Utrecht shop open?",  # the base knows the place itself
        "Do you deliver to Lisbon?",  # the base says nothing about its country
        "Can you tell us more?",  # no country, though America is called so in capitals
        "I parked in parishes",  # a name is a whole word
        "北京呢？",
        "",
    ],
)
def test_nothing_is_added_that_would_not_help(shop: LexicalIndex, said: str):
    assert placed(said, shop.knows) == said


def test_an_entry_that_is_taken_out_is_not_known_any_more(shop: LexicalIndex):
    shop.remove("fr")

    assert placed("Do you deliver to Paris?", shop.knows) == "Do you deliver to Paris?"
