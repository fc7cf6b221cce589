"""Splitting and escaping: nothing lost, nothing too long, nothing that a platform reads as ours."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from bots import markup
from bots.markup import Code, Document

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
WORDS = st.text(
    st.one_of(st.sampled_from(list("ab *_~`<>&|[]()!#-.\n\n👍👩‍👩‍👧é中。")), CHARACTERS),
    max_size=400,
)
PIECES = st.lists(
    st.sampled_from(
        [
            "**bold** and *it*",
            "- one\n- two\n  - deep",
            "1. a\n2. b",
            "`x < y`",
            "word " * 20,
            "```py\nline = 1\n\nother\n```",
            "[a label](https://shop.example/a?b=1&c=2)",
            "👩‍👩‍👧" * 9,
            "![picture](https://shop.example/p.png)",
            "<!channel> <@U1> a & b",
            "句子。" * 30,
            "https://shop.example/a_b_c",
            "x" * 90,
            "Ends here. Begins there!",
        ]
    ),
    max_size=8,
).map("\n\n".join)
LIMITS = st.integers(min_value=64, max_value=300)
MEASURES = st.sampled_from([markup.plain_length, markup.slack_length, markup.telegram_length])


def shown_in_slack(blocks: list[dict[str, Any]]) -> str:
    """Return the text that Slack shows for rich_text blocks."""
    out: list[str] = []
    for block in blocks:
        if isinstance(block.get("text"), str):
            out.append(block["text"])
        out.append(shown_in_slack(block.get("elements", [])))
    return "".join(out)


def words_of(doc: Document) -> str:
    """Return all text of a document without white space and list markers."""
    return re.sub(r"\s", "", "".join(block.text for block in doc.blocks))


def utf16(text: str, offset: int, length: int) -> str:
    return text.encode("utf-16-le")[2 * offset : 2 * (offset + length)].decode("utf-16-le")


@given(WORDS | PIECES, st.booleans(), LIMITS, MEASURES)
def test_parts_fit_the_limit_and_lose_nothing_but_white_space(
    text: str, is_markdown: bool, limit: int, measure: markup.Measure
) -> None:
    doc = markup.document(text, is_markdown)

    parts = markup.split(doc, limit, measure)

    assert all(measure(part) <= limit for part in parts)
    assert "".join(words_of(part) for part in parts) == words_of(doc)


@given(WORDS | PIECES, LIMITS)
def test_no_cut_falls_inside_a_character_of_several_code_points(text: str, limit: int) -> None:
    # White space may vanish at a cut; a cluster that begins with it has no base to lose.
    allowed = {re.sub(r"\s", "", cluster) for cluster in regex.findall(r"\X", text)}
    if any(len(cluster) > 32 for cluster in allowed) or "```" in text:
        return

    parts = markup.split(markup.literal(text), limit, markup.telegram_length)

    for part in parts:
        for cluster in regex.findall(r"\X", markup.plain(part)):
            assert re.sub(r"\s", "", cluster) in allowed


@given(WORDS.filter(lambda text: "```" not in text))
def test_literal_text_is_shown_as_it_stands_everywhere(text: str) -> None:
    doc = markup.literal(text)

    assert markup.plain(doc) == text
    assert shown_in_slack(markup.slack_blocks(doc)) == text
    assert markup.telegram(doc)[0] == text


@given(WORDS | PIECES, st.booleans())
def test_slack_is_sent_no_control_sequence_but_links_to_safe_addresses(
    text: str, is_markdown: bool
) -> None:
    mrkdwn = markup.slack_mrkdwn(markup.document(text, is_markdown))

    outside_links = re.sub(r"<(?:https?://|mailto:)[^<>|]*\|[^<>|]*>", "", mrkdwn)
    assert "<" not in outside_links
    assert ">" not in outside_links
    assert not re.search(r"&(?!amp;|lt;|gt;)", mrkdwn)


class Collector(HTMLParser):
    """Notes what a browser would find in a piece of HTML."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("br", "img"):
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@given(WORDS | PIECES, st.booleans())
def test_html_is_well_formed_and_holds_only_our_tags_and_safe_addresses(
    text: str, is_markdown: bool
) -> None:
    collector = Collector()
    collector.feed(markup.html(markup.document(text, is_markdown)))
    collector.close()

    allowed = {"p", "br", "a", "img", "ul", "ol", "li", "strong", "em", "code", "pre"}
    assert set(collector.tags) <= allowed
    assert collector.open == []
    assert all(
        a.lower().startswith(("http://", "https://", "mailto:")) for a in collector.addresses
    )


@given(WORDS | PIECES, st.booleans())
def test_telegram_entities_lie_within_the_text_and_on_whole_characters(
    text: str, is_markdown: bool
) -> None:
    shown, entities = markup.telegram(markup.document(text, is_markdown))

    for entity in entities:
        marked = utf16(shown, entity.offset, entity.length)
        assert entity.length > 0
        assert marked in shown
        assert markup.utf16_length(marked) == entity.length


@given(st.integers(min_value=100, max_value=500), st.integers(min_value=80, max_value=400))
def test_a_code_block_that_is_cut_is_closed_and_reopened(lines: int, limit: int) -> None:
    code = "\n".join(f"step {number}" for number in range(lines))

    parts = markup.split(markup.parse(f"Do:\n\n```sh\n{code}\n```\n\nDone."), limit)

    pieces = [block for part in parts for block in part.blocks if isinstance(block, Code)]
    assert len(pieces) > 1
    assert "\n".join(piece.text for piece in pieces) == code
    assert all(markup.plain(part).count("```") % 2 == 0 for part in parts)


def test_markdown_is_rendered_for_slack_and_telegram() -> None:
    doc = markup.parse("**Paid** by *card*: see [terms](https://shop.example/t) and `code`.\n- one")

    assert markup.slack_mrkdwn(doc) == (
        "*Paid* by _card_: see <https://shop.example/t|terms> and `code`.\n• one"
    )
    text, entities = markup.telegram(doc)
    assert text == "Paid by card: see terms and code.\n• one"
    assert [(e.type, utf16(text, e.offset, e.length), e.url) for e in entities] == [
        ("bold", "Paid", None),
        ("italic", "card", None),
        ("text_link", "terms", "https://shop.example/t"),
        ("code", "code", None),
    ]


def test_offsets_count_utf16_units_after_an_emoji() -> None:
    text, (entity,) = markup.telegram(markup.parse("👍 **ok**"))

    assert (entity.offset, entity.length) == (3, 2)
    assert utf16(text, entity.offset, entity.length) == "ok"


@pytest.mark.parametrize(
    "address", ["javascript:alert(1)", "data:text/html,x", "/local", "ftp://x"]
)
def test_a_link_elsewhere_than_to_the_web_or_a_mailbox_is_no_link(address: str) -> None:
    assert "href" not in markup.html(markup.parse(f"[x]({address})"))


def test_a_bare_address_can_be_pressed_and_keeps_the_sentences_full_stop_out() -> None:
    html = markup.html(markup.literal("See https://shop.example/a_(b)."))

    assert 'href="https://shop.example/a_(b)"' in html
    assert html.endswith("</a>.</p>")


def test_cuts_prefer_a_paragraph_to_a_sentence_to_a_word() -> None:
    paragraph = "One two three. Four five six seven eight nine ten eleven."

    assert markup.split_text(f"{paragraph}\n\n{paragraph}", 90) == (paragraph, paragraph)
    assert markup.split_text(
        "Short words here, more of them stand here now. Then some more words", 64
    ) == (
        "Short words here, more of them stand here now.",
        "Then some more words",
    )


def test_a_limit_that_leaves_no_room_for_text_is_refused() -> None:
    with pytest.raises(ValueError, match="63"):
        markup.split(markup.literal("x"), 63)
