"""Showing that the bot is at work, from the process that took the message in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from core.db import messages
from core.db.connect import Database
from core.errors import DeskhandError
from core.following import Followers
from core.ports import Channel
from core.types import ConversationId, Inbox, InboxId, Incoming, Receipt

log = logging.getLogger(__name__)

RENEWED_AT = 0.8
"""A status is renewed at this share of its life, so that it never flickers."""
LONGEST_SECONDS = 120.0


class WorkingIndicator:
    """Tells followers of a new message, and shows a typing status until its turn is closed.

    It runs where messages come in (gateway, scheduler) and not in the workers, so that it shows
    while all of them are busy.
    """

    def __init__(
        self, database: Database, followers: Followers, channels: Mapping[InboxId, Channel]
    ) -> None:
        self._database = database
        self._followers = followers
        self._channels = channels
        self._tasks: dict[ConversationId, asyncio.Task[None]] = {}
        self._told: set[asyncio.Task[None]] = set()

    def stored(self, inbox: Inbox, incoming: Incoming, receipt: Receipt) -> None:
        """Note that a message was stored; returns at once."""
        if receipt.conversation_id is None:
            return
        self._followers.heard(str(receipt.conversation_id))
        telling = asyncio.create_task(self._tell(receipt.conversation_id))
        self._told.add(telling)
        telling.add_done_callback(self._told.discard)
        channel = self._channels.get(inbox.id)
        if channel is None or receipt.turn_id is None or receipt.conversation_id in self._tasks:
            return
        task = asyncio.create_task(self._show(channel, incoming, receipt.conversation_id))
        self._tasks[receipt.conversation_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(receipt.conversation_id, None))  # type: ignore[arg-type]

    async def _tell(self, conversation_id: ConversationId) -> None:
        """Tell the followers in other processes; no row changes, so no disk is waited for."""
        try:
            async with self._database.transaction() as conn:
                await messages.notify(conn, conversation_id)
        except DeskhandError:
            return  # they read again at their next heartbeat

    async def _show(
        self, channel: Channel, incoming: Incoming, conversation_id: ConversationId
    ) -> None:
        try:
            with self._followers.follow(conversation_id) as changed:
                async with asyncio.timeout(LONGEST_SECONDS):
                    while await self._is_working(conversation_id):
                        await channel.show_working(incoming.chat, incoming.thread)
                        await _wait(changed, channel.working_seconds * RENEWED_AT)
        except (DeskhandError, TimeoutError):
            return  # only a courtesy
        except Exception:
            log.exception("Status could not be shown", extra={"action": "status_failed"})

    async def _is_working(self, conversation_id: ConversationId) -> bool:
        async with self._database.transaction() as conn:
            conversation = await messages.conversation(conn, conversation_id)
        return conversation is not None and conversation.working

    async def close(self) -> None:
        """End all shown statuses."""
        tasks = [*self._tasks.values(), *self._told]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
    finally:
        changed.clear()
