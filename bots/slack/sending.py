"""How a delivery looks in Slack: its parts, sources and buttons; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

from bots import markup
from bots.markup import Document, Paragraph, Span
from bots.slack.parsing import FEEDBACK, SUGGESTION
from core.types import Citation, Delivery, Verdict

TEXT_LIMIT = 3_000
"""Characters of a post, escaped. Above 4,040 Slack makes several posts of one, each with an id that
we would not know; below it there is room for the buttons' text."""
MOST_SOURCES = 3
MOST_SUGGESTIONS = 8
LABEL_LIMIT = 75
"""Characters of a button, the platform's limit."""
VALUE_LIMIT = 2_000
SOURCE_LIMIT = 150

EVENT_TYPE = "deskhand_delivery"
"""The kind of metadata by which a post is found again."""

_IDS = UUID("5a1c07a8-8b4f-5c58-9d0e-3a7f5f6b1c11")
THUMBS = ((Verdict.UP, "👍", "Helpful"), (Verdict.DOWN, "👎", "Not helpful"))

Arguments = dict[str, Any]


def parts(delivery: Delivery) -> tuple[Document, ...]:
    """Return the texts of the posts of a delivery, always the same ones for one delivery."""
    return _parts(delivery.text, delivery.is_markdown, delivery.citations)


@lru_cache(maxsize=64)  # asked for once per part, and once more to count them
def _parts(text: str, is_markdown: bool, citations: tuple[Citation, ...]) -> tuple[Document, ...]:
    document = markup.document(text, is_markdown)
    sources = _sources(citations)
    if sources is not None:
        document = Document((*document.blocks, sources))
    return markup.split(document, TEXT_LIMIT, markup.slack_length)


def post(delivery: Delivery, part: int) -> Arguments:
    """Return the arguments of `chat.postMessage` for a part.

    What people see are the blocks, whose text elements Slack never reads as formatting or as a
    mention; `text` is what notifications show.
    """
    documents = parts(delivery)
    document = documents[part]
    blocks = markup.slack_blocks(document)
    if part == len(documents) - 1:
        blocks += _buttons(delivery)
    text = markup.slack_mrkdwn(document) if delivery.is_markdown else _escaped(document)
    shown = {"text": text, "mrkdwn": delivery.is_markdown, "blocks": blocks}
    return _address(delivery, part) | shown


def plain_post(delivery: Delivery, part: int) -> Arguments:
    """Return the arguments of the same part without blocks, for when Slack refuses those."""
    text = _escaped(parts(delivery)[part])
    return _address(delivery, part) | {"text": text, "mrkdwn": False}


def _address(delivery: Delivery, part: int) -> Arguments:
    address: Arguments = {
        "channel": delivery.chat,
        "metadata": {"event_type": EVENT_TYPE, "event_payload": mark(delivery, part)},
        # No documented argument, perhaps heeded: the same post asked for twice may become one.
        "client_msg_id": str(uuid5(_IDS, f"{delivery.id}:{part}")),
        "unfurl_links": False,
        "unfurl_media": False,
        "link_names": False,
    }
    return address | ({"thread_ts": delivery.thread} if delivery.thread else {})


def mark(delivery: Delivery, part: int) -> dict[str, Any]:
    """Return what marks a post as this part; everybody in the workspace can read it."""
    return {"delivery_id": str(delivery.id), "part": part}


def _escaped(document: Document) -> str:
    return markup.escape_slack(markup.plain(document)) or " "


def _sources(citations: Sequence[Citation]) -> Paragraph | None:
    """Return a line of links to the pages that the cited entries name, if they name any."""
    pages: Mapping[str, str] = {
        citation.url: citation.question
        for citation in reversed(citations)
        if citation.url is not None and citation.url.startswith(("http://", "https://"))
    }
    spans: list[Span] = []
    for url, question in list(reversed(pages.items()))[:MOST_SOURCES]:
        spans += [
            Span("\n" if spans else ""),
            Span("↗ "),
            Span(_label(question, SOURCE_LIMIT), href=url),
        ]
    return Paragraph(tuple(span for span in spans if span.text)) if spans else None


def _buttons(delivery: Delivery) -> list[Arguments]:
    """Return the rows of buttons under a reply.

    Plain buttons also for the verdict: Slack's own `feedback_buttons` are not known everywhere, and
    a block that is refused would take the formatting with it.
    """
    rows: list[Arguments] = []
    questions = [
        question for question in delivery.suggestions[:MOST_SUGGESTIONS] if question.strip()
    ]
    if questions:
        buttons = [
            _button(f"{SUGGESTION}:{number}", question, question[:VALUE_LIMIT])
            for number, question in enumerate(questions)
        ]
        rows.append({"type": "actions", "block_id": SUGGESTION, "elements": buttons})
    if delivery.rateable:
        buttons = [
            _button(f"{FEEDBACK}:{verdict}", sign, f"{verdict}:{delivery.message_id}")
            | {"accessibility_label": meaning}
            for verdict, sign, meaning in THUMBS
        ]
        rows.append({"type": "actions", "block_id": FEEDBACK, "elements": buttons})
    return rows


def _button(action_id: str, label: str, value: str) -> Arguments:
    text = {"type": "plain_text", "text": _label(label, LABEL_LIMIT), "emoji": True}
    return {"type": "button", "action_id": action_id, "text": text, "value": value}


def _label(words: str, limit: int) -> str:
    words = " ".join(words.split())
    return words if len(words) <= limit else words[: limit - 1].rstrip() + "…"
