"""When the approved answer goes out as it stands, and when the model may word it."""

from __future__ import annotations

import pytest

from answering.saying import Words, quote_because
from core.types import FaqEntry, KnowledgeBase, KnowledgeBaseId, Question, ReplyStyle

BASE = KnowledgeBase(KnowledgeBaseId(1), "default")
CODE = FaqEntry(
    "welcome",
    "How do I use the code WELCOME10?",
    "Enter it in the basket. It works on a first order of at least €40.",
    alternates=("where do i put WELCOME10",),
)


def reason(
    message: str, *, entry: FaqEntry = CODE, style: ReplyStyle, **more: object
) -> str | None:
    question = Question(BASE, (message,), **more)  # type: ignore[arg-type]
    words = Words("en", style, frozenset({"en"}), 1.0)
    return quote_because(question, message, entry, words)


@pytest.mark.parametrize(
    ("message", "because"),
    [
        ("where do i put WELCOME10", "the entry's own"),
        ("My first order is 35 euros, does WELCOME10 work?", "own figures"),
    ],
)
def test_the_adaptive_style_quotes_where_wording_is_a_risk(message: str, because: str):
    assert because in (reason(message, style=ReplyStyle.ADAPTIVE) or "")


def test_the_adaptive_style_words_what_the_entry_plainly_says():
    assert reason("where can I type WELCOME10 in?", style=ReplyStyle.ADAPTIVE) is None


def test_the_generated_style_words_also_what_is_a_risk():
    assert reason("My order is 35 euros", style=ReplyStyle.GENERATED) is None


@pytest.mark.parametrize(
    ("more", "because"),
    [({"seconds_left": 2.5}, "deadline"), ({"waiting": 100}, "many turns wait")],
)
def test_without_time_the_approved_answer_goes_out(more: dict[str, object], because: str):
    told = reason("where can I type it in?", style=ReplyStyle.GENERATED, **more)

    assert because in (told or "")


def test_the_verbatim_style_always_quotes():
    assert "verbatim" in (reason("where can I type it in?", style=ReplyStyle.VERBATIM) or "")
