"""Following conversations as they change, for server-sent events and typing statuses."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager

from core.types import ConversationId

CHANNEL = "deskhand_conversation"
"""The notification that a conversation changed; its payload is the conversation's id."""


class Followers:
    """Wakes whoever follows a conversation; they then read the database, which is the truth."""

    def __init__(self) -> None:
        self._events: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def follow(self, conversation_id: ConversationId) -> Generator[asyncio.Event]:
        """Lend an event that is set whenever the conversation may have changed; clear it first."""
        event = asyncio.Event()
        key = str(conversation_id)
        self._events[key].add(event)
        try:
            yield event
        finally:
            self._events[key].discard(event)
            if not self._events[key]:
                del self._events[key]

    def heard(self, payload: str) -> None:
        """Wake the followers of a conversation, or all of them without a payload."""
        keys = [payload] if payload else list(self._events)
        for key in keys:
            for event in self._events.get(key, ()):
                event.set()
