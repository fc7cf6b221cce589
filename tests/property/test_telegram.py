"""Cutting the bot's name out of any text, and laying out any answer within Telegram's limits."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from telegram import Update

from bots.telegram import sending
from bots.telegram.parsing import Identity, parse
from core.types import (
    Author,
    ConversationId,
    Delivery,
    DeliveryId,
    InboxId,
    Incoming,
    MessageId,
)

ME = Identity(99, "DeskhandBot")
NAME = "@DeskhandBot"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


@given(before=TEXTS, after=TEXTS)
def test_nothing_but_the_name_and_its_gap_is_cut(before: str, after: str):
    mention = {"type": "mention", "offset": units(before), "length": len(NAME)}
    message = {
        "message_id": 7,
        "date": 1_700_000_000,
        "chat": {"id": -5, "type": "group", "title": "G"},
        "from": {"id": 42, "is_bot": False, "first_name": "Ada"},
        "text": before + NAME + after,
        "entities": [mention],
    }

    incoming = parse(Update.de_json({"update_id": 1, "message": message}, None), ME)

    assert isinstance(incoming, Incoming)
    assert incoming.text.replace(" ", "") == (before + after).strip().replace(" ", "")


PIECES = st.text(st.sampled_from("ab *_`\n.😀👩\u200d👧问[](){}"), min_size=1, max_size=80)


@settings(max_examples=60, deadline=None)
@given(piece=PIECES, times=st.integers(1, 200), markdown=st.booleans())
def test_every_post_fits_and_every_entity_lies_within_it(piece: str, times: int, markdown: bool):
    text = piece * times
    what = Delivery(
        DeliveryId(UUID(int=1)),
        InboxId(1),
        ConversationId(UUID(int=2)),
        MessageId(UUID(int=3)),
        "42",
        Author.BOT,
        text,
        is_markdown=markdown,
    )

    for post in sending.posts(what):
        assert units(post.text) <= sending.TEXT_LIMIT
        assert units(post.plain) <= sending.TEXT_LIMIT
        encoded = post.text.encode("utf-16-le")
        for entity in post.entities:
            assert entity.length > 0
            assert entity.offset + entity.length <= len(encoded) // 2
            piece = encoded[entity.offset * 2 : (entity.offset + entity.length) * 2]
            assert piece.decode("utf-16-le")  # begins and ends between characters
