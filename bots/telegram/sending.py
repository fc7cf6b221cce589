"""How a delivery looks on Telegram: its parts, entities, sources and buttons; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from telegram import (
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    MessageEntity,
    ReplyParameters,
)

from bots import markup
from bots.markup import Document, Entity, Paragraph, Span
from bots.telegram.parsing import RATING, SUGGESTION
from core.types import Citation, Delivery, Verdict

TEXT_LIMIT = 4096
"""Of a message, after entities; counted in UTF-16 units, the stricter reading of the docs."""
MOST_SOURCES = 3
MOST_SUGGESTIONS = 8
LABEL_LIMIT = 100
"""Characters of a button; phones show about half of it."""

NO_PREVIEW = LinkPreviewOptions(is_disabled=True)
THUMBS = ((Verdict.UP, "👍"), (Verdict.DOWN, "👎"))


@dataclass(frozen=True)
class Post:
    """One message as it goes to Telegram; `plain` is what is sent if its entities are refused."""

    text: str
    plain: str
    entities: tuple[MessageEntity, ...] = ()
    buttons: InlineKeyboardMarkup | None = None


def posts(delivery: Delivery) -> tuple[Post, ...]:
    """Return the messages of a delivery, in order; always the same ones for one delivery."""
    document = markup.document(delivery.text, delivery.is_markdown)
    sources = _sources(delivery.citations)
    if sources is not None:
        document = Document((*document.blocks, sources))
    parts = markup.split(document, TEXT_LIMIT, markup.telegram_length)
    last = len(parts) - 1
    return tuple(
        _post(part, _buttons(delivery) if number == last else None)
        for number, part in enumerate(parts)
    )


def _post(part: Document, buttons: InlineKeyboardMarkup | None) -> Post:
    text, entities = markup.telegram(part)
    return Post(text, markup.plain(part), tuple(_entity(entity) for entity in entities), buttons)


def _entity(entity: Entity) -> MessageEntity:
    return MessageEntity(
        entity.type, entity.offset, entity.length, url=entity.url, language=entity.language
    )


def _sources(citations: Sequence[Citation]) -> Paragraph | None:
    """Return a line of links to the pages that the cited entries name, if they name any."""
    pages = {
        citation.url: citation.question
        for citation in reversed(citations)
        if citation.url is not None and citation.url.startswith(("http://", "https://"))
    }
    lines: list[Span] = []
    for url, question in list(reversed(pages.items()))[:MOST_SOURCES]:
        lines += [Span("\n" if lines else ""), Span("↗ "), Span(question, href=url)]
    return Paragraph(tuple(span for span in lines if span.text)) if lines else None


def _buttons(delivery: Delivery) -> InlineKeyboardMarkup | None:
    rows = [
        [InlineKeyboardButton(_label(question), callback_data=f"{SUGGESTION}:{number}")]
        for number, question in enumerate(delivery.suggestions[:MOST_SUGGESTIONS])
    ]
    if delivery.rateable:
        rated = delivery.message_id.hex
        rows.append(
            [
                InlineKeyboardButton(sign, callback_data=f"{RATING}:{verdict}:{rated}")
                for verdict, sign in THUMBS
            ]
        )
    return InlineKeyboardMarkup(rows) if rows else None


def _label(question: str) -> str:
    """Return a question as a button shows it; a press sends the label back, not a reference."""
    words = " ".join(question.split())
    return words if len(words) <= LABEL_LIMIT else words[: LABEL_LIMIT - 1].rstrip() + "…"


def reply_parameters(delivery: Delivery, part: int) -> ReplyParameters | None:
    """Return whom a reply answers: in groups only, where others may have written since."""
    if delivery.private or part > 0 or not (delivery.reply_to or "").isdecimal():
        return None
    return ReplyParameters(int(delivery.reply_to or 0), allow_sending_without_reply=True)
