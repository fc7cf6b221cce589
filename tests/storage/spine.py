"""A spine for tests: the real database, a doorbell that records, an answerer that is told."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

from core import turns
from core.conversations import Desk
from core.db import inboxes, messages
from core.db.connect import Database
from core.deliveries import Sending
from core.intake import Intake, Timing
from core.ports import Show
from core.turns import Answering
from core.types import (
    Choice,
    Conversation,
    ConversationId,
    Decision,
    Delivery,
    Inbox,
    InboxId,
    Incoming,
    Limits,
    Message,
    Question,
    Reply,
    Sender,
    Tier,
)

_numbers = itertools.count(1)


@dataclass
class Rings:
    """A doorbell that notes who was rung."""

    turns: list[ConversationId] = field(default_factory=list)
    deliveries: list[int] = field(default_factory=list)
    queries: list[UUID] = field(default_factory=list)

    def turn(self, conversation_id: ConversationId, *, after_seconds: float = 0.0) -> None:
        self.turns.append(conversation_id)

    def delivery(self, channel: str, inbox_id: int) -> None:
        self.deliveries.append(inbox_id)

    def query(self, request_id: UUID) -> None:
        self.queries.append(request_id)


def said(text: str, decision: Decision = Decision.ANSWER) -> Reply:
    """Return a reply with these words."""
    return Reply(Choice(decision, "a test said so"), text, Tier.APPROVED, "en")


@dataclass
class Scripted:
    """An answerer that repeats the question, or does what it is told."""

    does: Callable[[Question], Awaitable[Reply]] | None = None
    shows: Callable[[Question, Show], Awaitable[Reply]] | None = None
    asked: list[Question] = field(default_factory=list)

    async def answer(self, question: Question, show: Show | None = None) -> Reply:
        self.asked.append(question)
        if self.shows is not None and show is not None:
            return await self.shows(question, show)
        if self.does is not None:
            return await self.does(question)
        return said(f"You asked: {' / '.join(question.messages)}")


@dataclass
class Wire:
    """A channel that notes what was sent and fails as told, once per entry."""

    name: str = "slack"
    limits: Limits = field(default_factory=Limits)
    working_seconds: float = 5.0
    part_count: int = 1
    sent: list[tuple[Delivery, int]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    found: Callable[[Delivery, int], str | None] | None = None
    before_send: Callable[[Delivery, int], Awaitable[None]] | None = None

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def parts(self, delivery: Delivery) -> int:
        return self.part_count

    async def send(self, delivery: Delivery, part: int) -> str:
        if self.before_send is not None:
            await self.before_send(delivery, part)
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append((delivery, part))
        return f"post-{len(self.sent)}"

    async def find_sent(self, delivery: Delivery, part: int) -> str | None:
        if self.found is None:
            raise AssertionError("nothing should be looked up")
        return self.found(delivery, part)

    async def show_working(self, chat: str, thread: str | None) -> None: ...


@dataclass
class Spine:
    """The use cases on one database."""

    database: Database
    inbox: Inbox
    rings: Rings
    scripted: Scripted
    wire: Wire
    intake: Intake
    lease_seconds: float = 30.0

    @classmethod
    async def build(cls, database: Database, channel: str = "slack") -> Spine:
        async with database.transaction() as conn:
            inbox = await inboxes.ensure_inbox(conn, channel, channel)
        rings = Rings()
        intake = Intake(database, rings, inbox, Timing(debounce=0.0, deadline=30.0))
        return cls(database, inbox, rings, Scripted(), Wire(name=channel), intake)

    def answering(self, owner: str = "worker-1", attempts: int = 3) -> Answering:
        return Answering(
            self.database, self.scripted, self.rings, owner, self.lease_seconds, attempts, 3600.0
        )

    def sending(self, owner: str = "sender-1") -> Sending:
        return Sending(self.database, {InboxId(self.inbox.id): self.wire}, owner, 30.0)

    @property
    def desk(self) -> Desk:
        return Desk(self.database, self.rings, 3600.0)

    async def hear(self, text: str, chat: str = "C1", **fields: object) -> ConversationId:
        receipt = await self.intake.receive(incoming(text, chat, **fields))
        assert receipt.conversation_id is not None
        return receipt.conversation_id

    async def answer(self, conversation_id: ConversationId, owner: str = "worker-1") -> None:
        await turns.answer(self.answering(owner), conversation_id)

    async def until_due(self, conversation_id: ConversationId) -> None:
        """Let the time pass for which a conversation's open turn waits."""
        async with self.database.transaction() as conn:
            await conn.execute(
                "update turn set due_at = now() where conversation_id = %(id)s",
                {"id": conversation_id},
            )

    async def conversation(self, conversation_id: ConversationId) -> Conversation:
        async with self.database.transaction() as conn:
            found = await messages.conversation(conn, conversation_id)
        assert found is not None
        return found

    async def said(self, conversation_id: ConversationId) -> list[Message]:
        async with self.database.transaction() as conn:
            return await messages.messages(conn, conversation_id)

    async def value(self, query: str, **params: object) -> object:
        async with self.database.transaction() as conn:
            cursor = await conn.execute(query.encode(), params)
            row = await cursor.fetchone()
        assert row is not None
        return row[0]


def incoming(text: str, chat: str = "C1", **fields: object) -> Incoming:
    """Return a message as a channel would, under fresh ids unless they are given."""
    number = next(_numbers)
    values: dict[str, object] = {
        "event_id": f"event-{number}",
        "message_id": f"message-{number}",
        "chat": chat,
        "sender": Sender("U1", "Ann"),
        "text": text,
        **fields,
    }
    return Incoming(**values)  # type: ignore[arg-type]
