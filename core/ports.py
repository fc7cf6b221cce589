"""Where Deskhand meets the rest of the world: only ports with two real sides."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

from core.types import (
    ConversationId,
    Delivery,
    Incoming,
    IncomingChange,
    IncomingFeedback,
    Limits,
    Question,
    Receipt,
    Reply,
)


class Doorbell(Protocol):
    """Rings workers; a ring may come late, twice or never, the sweeper makes it good.

    Each method returns at once and never raises: the publish goes on by itself.
    """

    def turn(self, conversation_id: ConversationId, *, after_seconds: float = 0.0) -> None:
        """Ring for what is open in a conversation, when its debounce is over."""
        ...

    def delivery(self, channel: str, inbox_id: int) -> None:
        """Ring for the deliveries that are due in an inbox."""
        ...

    def query(self, request_id: UUID) -> None:
        """Ring for a question to the models that waits in the table `request`."""
        ...


class Receiver(Protocol):
    """Takes in what happened on a platform, for one inbox; returns when it is stored.

    Raises:
        Unavailable: The database is away: answer 503 or leave the polling offset where it is.
        InvalidInput: The text is blank or otherwise not acceptable.
    """

    async def receive(self, incoming: Incoming) -> Receipt:
        """Store a customer's message and open a turn, once per event and message."""
        ...

    async def give_feedback(self, feedback: IncomingFeedback) -> Receipt:
        """Store a verdict on a reply, once per event."""
        ...

    async def change(self, change: IncomingChange) -> Receipt:
        """Follow what happens to what was said; ignored where it was answered already."""
        ...

    def ignored(self, reason: str) -> None:
        """Count an event that is not for us."""
        ...

    def rejected(self, reason: str) -> None:
        """Count and log a request that was refused (never its content or signature)."""
        ...

    async def starters(self, limit: int) -> Sequence[str]:
        """Return questions that a customer may begin with; none while the database is away."""
        ...

    async def shut(self, trouble: str) -> None:
        """Take the inbox out of service: what is to be sent is held until it is connected again."""
        ...

    async def report_trouble(self, trouble: str | None) -> None:
        """Show staff and /readyz what is wrong with this inbox, or that it is well again."""
        ...


class Channel(Protocol):
    """One account on one platform: turns its objects into ours and its errors into our branches."""

    name: str
    limits: Limits
    """What the platform allows in one group chat; private chats are never that busy."""

    async def start(self) -> None:
        """Open sessions; learn who we are, without failing while the platform is away."""
        ...

    async def close(self) -> None:
        """Close sessions."""
        ...

    def parts(self, delivery: Delivery) -> int:
        """Return into how many posts a delivery is split; always the same for one delivery."""
        ...

    async def send(self, delivery: Delivery, part: int) -> str:
        """Send one part (from 0) of a delivery and return the platform's id of the post.

        Raises:
            TransientError: Surely not sent; with `retry_after` where the platform named it.
            UncertainError: Perhaps sent.
            PermanentError: Will never be sent.
        """
        ...

    async def find_sent(self, delivery: Delivery, part: int) -> str | None:
        """Return the id under which a part stands on the platform, None if it surely does not.

        Raises:
            UncertainError: The platform cannot tell.
            TransientError: The platform cannot be asked now.
        """
        ...

    working_seconds: float
    """How long a shown status lasts; it is renewed before it ends."""

    async def show_working(self, chat: str, thread: str | None) -> None:
        """Show that the bot is at work; errors are swallowed, since it is only a courtesy."""
        ...


class PolledChannel(Protocol):
    """A channel that fetches its events itself (Telegram's polling, Slack's Socket Mode)."""

    async def poll(self, receiver: Receiver, stop: asyncio.Event) -> None:
        """Take in events until `stop` is set; one holder per inbox, however many processes run."""
        ...


Show = Callable[[str], Awaitable[None]]
"""Shows the customer one checked sentence of a reply that is still being written.

Raises:
    LostClaim: Nobody wants the reply any more; whoever writes it lets this pass.
"""


class Answerer(Protocol):
    """From a turn to a grounded reply."""

    async def answer(self, question: Question, show: Show | None = None) -> Reply:
        """Return what to say; raises only when a reply cannot be made at all.

        Args:
            question: What the customer said. The reply begins with `question.shown`, or it is put
                below it.
            show: Takes the reply's sentences while it is written, in order and each for good; None
                where the channel cannot show them.
        """
        ...


class Asker(Protocol):
    """Asks a worker for what needs a model: FAQ search, a suggested reply.

    Raises:
        Unavailable: No worker answered in time.
    """

    async def ask(self, kind: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the request, ring, and return the worker's answer."""
        ...
