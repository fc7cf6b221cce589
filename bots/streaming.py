"""A conversation as clients of ours read it: messages as JSON, and the same live, by SSE."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from core.db import messages as rows
from core.db import sentences
from core.db.connect import Database
from core.db.sentences import Sentence
from core.errors import Unavailable
from core.following import Followers
from core.types import Author, Conversation, ConversationId, Message, TurnId

HEARTBEAT_SECONDS = 15.0
"""Proxies close a silent connection after 30 s or more; each beat also reads again."""

RECONNECT_MILLISECONDS = 1_000
DATABASE_AWAY_SECONDS = 1.0
PAGE = 200
LONGEST_POSITION = 2**62

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would hold events back
}
CONTENT_TYPE = "text/event-stream"

Shape = Callable[[Message], dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """Where events come from; `stopping` is set when the process shuts down and ends them."""

    database: Database
    followers: Followers
    stopping: asyncio.Event


def message_json(message: Message) -> dict[str, Any]:
    """Return a message as the HTTP API shows it."""
    return {
        "id": str(message.id),
        "position": message.position,
        "author": message.author,
        "agent": message.agent,
        "kind": message.kind,
        "text": message.text,
        "is_markdown": message.is_markdown,
        "citations": [
            {"entry_id": c.entry_id, "question": c.question, "url": c.url}
            for c in message.citations
        ],
        "suggestions": list(message.suggestions),
        "decision": message.decision,
        "turn_id": str(message.turn_id) if message.turn_id else None,
        "created_at": message.created_at.astimezone(UTC).isoformat(timespec="microseconds"),
    }


def status_json(conversation: Conversation) -> dict[str, Any]:
    """Return whether the bot is at work, and who has the conversation."""
    return {
        "working": conversation.working,
        "holder": conversation.holder,
        "agent": conversation.agent,
    }


def sentence_json(sentence: Sentence) -> dict[str, Any]:
    """Return a sentence of a reply that is still being written; `number` counts within its turn."""
    return {
        "turn_id": str(sentence.turn_id),
        "number": sentence.position,
        "text": sentence.text,
    }


def position_after(last_event_id: str | None, after: int) -> int:
    """Return from where a stream goes on; a header that is no position of ours is ignored."""
    if last_event_id and last_event_id.isascii() and last_event_id.isdigit():
        return min(int(last_event_id[:19]), LONGEST_POSITION)
    return after


def event(data: dict[str, Any], *, name: str | None = None, position: int | None = None) -> str:
    """Return one server-sent event."""
    lines = [f"event: {name}"] if name else []
    if position is not None:
        lines.append(f"id: {position}")
    lines.append(f"data: {json.dumps(data, ensure_ascii=False)}")
    return "\n".join(lines) + "\n\n"


async def follow(
    source: Source,
    conversation_id: ConversationId,
    after: int,
    shape: Shape = message_json,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncGenerator[str, None]:
    """Yield what is said in a conversation after a position, and the status as it changes.

    The sentences of a reply that is still being written come as events of their own; a stream that
    begins anew repeats them until the message that begins with them is there.

    While the database is away the stream stays open: a browser gives up on a stream that answers
    with an error, but not on a quiet one.
    """
    status: dict[str, Any] | None = None
    shown: set[tuple[TurnId, int]] = set()
    yield f"retry: {RECONNECT_MILLISECONDS}\n\n"
    with source.followers.follow(conversation_id) as changed:
        while not source.stopping.is_set():
            changed.clear()
            pause = heartbeat_seconds
            try:
                conversation, said, written = await _read(source.database, conversation_id, after)
            except Unavailable:
                pause = DATABASE_AWAY_SECONDS
            else:
                for message in said:
                    after = message.position
                    yield event(shape(message), position=after)
                if conversation is None:
                    return
                if len(said) == PAGE:
                    continue
                fresh = [s for s in written if (s.turn_id, s.position) not in shown]
                shown = {(s.turn_id, s.position) for s in written}
                for sentence in fresh:
                    yield event(sentence_json(sentence), name="sentence")
                now = status_json(conversation)
                if now != status:
                    status = now
                    yield event(now, name="status")
            if not await _woken(changed, source.stopping, pause):
                yield ": still here\n\n"


async def _read(
    database: Database, conversation_id: ConversationId, after: int
) -> tuple[Conversation | None, Sequence[Message], Sequence[Sentence]]:
    async with database.transaction() as conn:
        # The state first: what is said in between is then read, and told of, once more. The
        # messages last: a sentence that one of them took over meanwhile is not told of after it.
        conversation = await rows.conversation(conn, conversation_id)
        written = await sentences.of_conversation(conn, conversation_id)
        said = await rows.messages(conn, conversation_id, after_position=after, limit=PAGE)
    replied = {message.turn_id for message in said if message.author is not Author.CUSTOMER}
    return conversation, said, [s for s in written if s.turn_id not in replied]


async def _woken(changed: asyncio.Event, stopping: asyncio.Event, seconds: float) -> bool:
    """Wait until something changed or the process stops; False if the time ran out."""
    waits = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(stopping.wait())]
    try:
        done, _ = await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return bool(done)
    finally:
        for wait in waits:
            wait.cancel()
            with suppress(asyncio.CancelledError):
                await wait
