"""What comes in: checked, stored once, and only then acknowledged."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from core import handoff, telemetry
from core.db import changes, deliveries, inboxes, messages
from core.db import feedback as feedback_rows
from core.db import starters as starter_rows
from core.db.connect import Connection, Database
from core.db.messages import StoredMessage
from core.errors import InvalidInput, Unavailable
from core.ports import Doorbell
from core.types import (
    TEXT_LIMIT_CHARACTERS,
    Holder,
    Inbox,
    Incoming,
    IncomingChange,
    IncomingDeletion,
    IncomingEdit,
    IncomingFeedback,
    IncomingMove,
    MessageKind,
    Outcome,
    Receipt,
)

log = logging.getLogger(__name__)

CLEAN_AFTER_SECONDS = 24 * 3600.0
"""After this silence a conversation starts clean."""

LONGEST_DEBOUNCE_SECONDS = 3.0
"""However fast a customer goes on writing, a turn waits no longer than this."""

BURST_SECONDS = 1.0
"""Telegram hands the parts of an album over within this time, whatever they look like."""

SURROGATES = re.compile("[\ud800-\udfff]")
COMPLETE = re.compile(r"[?？!！。…]\s*$|[\w)\"'][.]\s*$")


@dataclass(frozen=True)
class Timing:
    """How long turns wait for more, and how long customers wait for us; in seconds."""

    debounce: float = 0.4
    deadline: float = 30.0


def check_text(text: str) -> str:
    """Return a text that the HTTP API may take in.

    Raises:
        InvalidInput: It is blank, too long, or holds what PostgreSQL or UTF-8 cannot.
    """
    if not text.strip():
        raise InvalidInput("text is blank; send what the customer wrote.", field="text")
    if len(text) > TEXT_LIMIT_CHARACTERS:
        raise InvalidInput(
            f"text has {len(text)} characters; {TEXT_LIMIT_CHARACTERS} are the most.", field="text"
        )
    if "\x00" in text or SURROGATES.search(text):
        raise InvalidInput(
            "text holds a NUL character or a lone surrogate; remove it.", field="text"
        )
    return text


def clean_text(text: str) -> str:
    """Return a platform's text as we can store it: cut, NUL and lone surrogates replaced."""
    return SURROGATES.sub("\ufffd", text.replace("\x00", "\ufffd"))[:TEXT_LIMIT_CHARACTERS]


def looks_complete(text: str) -> bool:
    """Tell whether a message ends like a whole question or sentence, so nothing more is awaited."""
    return len(text) > 8 and COMPLETE.search(text) is not None


class Intake:
    """Takes in what customers do in one inbox; the `Receiver` of its channel.

    Args:
        database: Where it is stored.
        doorbell: Rung after the commit.
        inbox: Which one.
        timing: Of turns.
        stored: Told of each new message, for what goes on beside (a typing status).
    """

    def __init__(
        self,
        database: Database,
        doorbell: Doorbell,
        inbox: Inbox,
        timing: Timing,
        stored: Callable[[Inbox, Incoming, Receipt], None] | None = None,
    ) -> None:
        self._database = database
        self._doorbell = doorbell
        self._timing = timing
        self._stored = stored
        self.inbox = inbox

    async def receive(self, incoming: Incoming) -> Receipt:
        """Store a customer's message and open a turn, once per event and message."""
        incoming = replace(incoming, text=clean_text(incoming.text))
        if incoming.kind is MessageKind.TEXT and not incoming.text.strip():
            incoming = replace(incoming, kind=MessageKind.START)  # a bare mention says hello
        trace = telemetry.new_trace_id()
        token = telemetry.trace_id.set(trace)
        try:
            with telemetry.stage("intake"):
                receipt = await self._store(incoming, trace)
            self._count(receipt.outcome)
            if receipt.outcome is Outcome.STORED:
                self._announce(incoming, receipt)
            return receipt
        finally:
            telemetry.trace_id.reset(token)

    async def _store(self, incoming: Incoming, trace: str) -> Receipt:
        async with self._database.transaction() as conn:
            known = await messages.find_duplicate(conn, self.inbox.id, incoming)
            if known is None:
                entered = await messages.enter(conn, self.inbox.id, incoming, CLEAN_AFTER_SECONDS)
                if entered is None:
                    return Receipt(Outcome.IGNORED)
                stored = await self._write(conn, incoming, entered, trace)
                if stored is not None:
                    return Receipt(
                        Outcome.STORED, stored.id, stored.conversation_id, stored.turn_id
                    )
                # Another transaction stored the same event while we waited for the lock.
                await conn.rollback()
                known = await messages.find_duplicate(conn, self.inbox.id, incoming)
        if known is None:
            raise RuntimeError("a message conflicted with one that is not there")
        return Receipt(Outcome.DUPLICATE, known.id, known.conversation_id, known.turn_id)

    async def _write(
        self, conn: Connection, incoming: Incoming, entered: messages.Entered, trace: str
    ) -> StoredMessage | None:
        holder, epoch = entered.holder, entered.epoch
        if holder is Holder.RESOLVED:
            holder, epoch = handoff.after(handoff.Move.REOPEN, holder), epoch + 1
        return await messages.store_incoming(
            conn,
            self.inbox.id,
            incoming,
            entered,
            holder=holder,
            epoch=epoch,
            opens_turn=holder is not Holder.AGENT,
            debounce_seconds=self._debounce(incoming),
            longest_debounce_seconds=LONGEST_DEBOUNCE_SECONDS,
            deadline_seconds=self._timing.deadline,
            trace_id=trace,
        )

    def _debounce(self, incoming: Incoming) -> float:
        if incoming.is_burst:
            return max(self._timing.debounce, BURST_SECONDS)
        if incoming.kind is not MessageKind.TEXT or looks_complete(incoming.text):
            return 0.0
        return self._timing.debounce

    def _announce(self, incoming: Incoming, receipt: Receipt) -> None:
        log.info(
            "Message stored",
            extra={
                "action": "message_stored",
                "inbox": self.inbox.name,
                "message_id": receipt.message_id,
                "conversation_id": receipt.conversation_id,
                "turn_id": receipt.turn_id,
            },
        )
        if receipt.turn_id is not None and receipt.conversation_id is not None:
            self._doorbell.turn(receipt.conversation_id, after_seconds=self._debounce(incoming))
        if self._stored is not None:
            self._stored(self.inbox, incoming, receipt)

    async def give_feedback(self, feedback: IncomingFeedback) -> Receipt:
        """Store a verdict on a reply, once per event; the last one of a person stands."""
        async with self._database.transaction() as conn:
            rated = await feedback_rows.rated_message(
                conn,
                self.inbox.id,
                feedback.chat,
                message_id=feedback.message_id,
                external_id=feedback.external_id,
            )
            if rated is None:
                return Receipt(Outcome.IGNORED)
            fresh = await feedback_rows.store_feedback(
                conn,
                self.inbox.id,
                rated,
                event_id=feedback.event_id,
                sender=feedback.sender.id,
                sender_name=feedback.sender.name,
                verdict=feedback.verdict,
            )
        if fresh:
            telemetry.FEEDBACK.labels(feedback.verdict).inc()
        return Receipt(Outcome.STORED if fresh else Outcome.DUPLICATE, rated)

    async def change(self, change: IncomingChange) -> Receipt:
        """Follow an edit, a deletion or a chat's new id; what was answered stays as it was.

        A reply under way to the earlier words is thrown away when it is committed, and made anew.
        """
        async with self._database.transaction() as conn:
            changed = await self._changed(conn, change)
        if changed is None:
            self.ignored("a change of what is not waiting for an answer")
            return Receipt(Outcome.IGNORED)
        log.info(
            "Message changed",
            extra={
                "action": "message_changed",
                "change": type(change).__name__,
                "inbox": self.inbox.name,
                "message_id": changed.id,
                "turn_id": changed.turn_id,
            },
        )
        return Receipt(Outcome.STORED, changed.id, changed.conversation_id, changed.turn_id)

    async def _changed(self, conn: Connection, change: IncomingChange) -> StoredMessage | None:
        match change:
            case IncomingEdit(chat, message_id, text):
                text = clean_text(text)
                if not text.strip():
                    return None
                return await changes.replace_text(conn, self.inbox.id, chat, message_id, text)
            case IncomingDeletion(chat, message_id):
                return await changes.take_back(conn, self.inbox.id, chat, message_id)
            case IncomingMove(chat, moved_to):
                await deliveries.move_chat(conn, self.inbox.id, chat, moved_to)
                return None

    def ignored(self, reason: str) -> None:
        """Count an event that is not for us."""
        self._count(Outcome.IGNORED)
        log.debug("Event ignored", extra={"action": "event_ignored", "reason": reason})

    def rejected(self, reason: str) -> None:
        """Count and log a request that was refused (never its content or signature)."""
        self._count(Outcome.REJECTED)
        log.warning(
            "Request refused",
            extra={"action": "request_refused", "inbox": self.inbox.name, "reason": reason},
        )

    async def starters(self, limit: int) -> Sequence[str]:
        """Return questions that a customer may begin with; none while the database is away."""
        try:
            async with self._database.transaction() as conn:
                base = await inboxes.base_of(conn, self.inbox.knowledge_base_id)
                language = base.locale.split("-")[0].lower()
                return await starter_rows.starters(conn, base.id, language, limit=limit)
        except Unavailable:
            return ()

    async def shut(self, trouble: str) -> None:
        """Take the inbox out of service: what is to be sent is held until it is connected again."""
        async with self._database.transaction() as conn:
            await inboxes.switch_off(conn, self.inbox.id, trouble)
        log.error(
            "Inbox out of service",
            extra={"action": "inbox_shut", "inbox": self.inbox.name, "reason": trouble},
        )

    async def report_trouble(self, trouble: str | None) -> None:
        """Show staff and /readyz what is wrong with this inbox, or that it is well again."""
        async with self._database.transaction() as conn:
            await inboxes.set_trouble(conn, self.inbox.id, trouble)

    def _count(self, outcome: Outcome) -> None:
        telemetry.MESSAGES.labels(self.inbox.channel, outcome).inc()


class ClosedReceiver:
    """The `Receiver` of a channel that is not set up: it takes nothing in, and counts that."""

    def __init__(self, channel: str) -> None:
        self._channel = channel

    async def receive(self, incoming: Incoming) -> Receipt:
        """Refuse a message."""
        raise Unavailable(f"{self._channel} is not set up here.")

    async def give_feedback(self, feedback: IncomingFeedback) -> Receipt:
        """Refuse a verdict."""
        raise Unavailable(f"{self._channel} is not set up here.")

    async def change(self, change: IncomingChange) -> Receipt:
        """Refuse a change."""
        raise Unavailable(f"{self._channel} is not set up here.")

    def ignored(self, reason: str) -> None:
        """Count an event."""
        telemetry.MESSAGES.labels(self._channel, Outcome.IGNORED).inc()

    def rejected(self, reason: str) -> None:
        """Count a refused request."""
        telemetry.MESSAGES.labels(self._channel, Outcome.REJECTED).inc()

    async def starters(self, limit: int) -> Sequence[str]:
        """Return nothing."""
        return ()

    async def shut(self, trouble: str) -> None:
        """Nothing to shut: there is no inbox."""

    async def report_trouble(self, trouble: str | None) -> None:
        """Nothing to report: there is no inbox."""
