"""Conversations, dead letters and system texts for staff's programs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from core import conversations, deliveries, faq, turns, wording
from core.conversations import Desk
from core.db.deliveries import troubled
from core.errors import NotFound
from core.types import Conversation, Holder
from desk.checking import NAME_LIMIT_CHARACTERS, Authorize, Base, ConversationName, Storable

PAGE_LIMIT = 500

Count = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
Moves = Callable[[Desk, str, str], Awaitable[Conversation]]


class ConversationOut(BaseModel):
    """A customer's thread of messages."""

    id: str
    conversation_id: str = Field(description="The same as `id`.")
    channel: str
    name: str = Field(description="Its name within its channel.")
    contact_name: str
    holder: str = Field(description="`bot`, `waiting` (for a person), `agent` or `resolved`.")
    agent: str | None
    working: bool = Field(description="The bot is at work in it.")
    waiting_since: str | None
    hand_off_reason: str | None
    created_at: str
    last_message_at: str


class ConversationsOut(BaseModel):
    """Conversations, those who wait longest for a person first, then the latest."""

    conversations: list[ConversationOut]


class ActIn(BaseModel):
    """Who acts."""

    agent: Storable = Field(min_length=1, max_length=NAME_LIMIT_CHARACTERS, examples=["ada"])


class SayIn(ActIn):
    """What an agent says to the customer."""

    text: str = Field(description="1 to 8,000 characters, sent as they are.")
    id: Annotated[Storable, Field(min_length=1, max_length=NAME_LIMIT_CHARACTERS)] | None = Field(
        default=None, description="Your own id; sent again it is not said again."
    )


class FailedTurnOut(BaseModel):
    """A question that could not be answered."""

    id: str
    conversation_id: str
    inbox: str
    text: str
    error: str
    attempts: int
    opened_at: str
    finished_at: str


class FailedTurnsOut(BaseModel):
    """Dead letters, the latest first."""

    turns: list[FailedTurnOut]


class ReplayedOut(BaseModel):
    """A question that will be answered after all."""

    turn_id: str
    conversation_id: str


class TroubledOut(BaseModel):
    """A message that may not have reached its customer."""

    id: str
    conversation_id: str
    inbox: str
    state: str
    error: str
    attempts: int
    created_at: str


class TroubledListOut(BaseModel):
    """Deliveries that staff should look at, the latest first."""

    deliveries: list[TroubledOut]


class ResentOut(BaseModel):
    """A delivery that is sent again."""

    delivery_id: str


class TextsOut(BaseModel):
    """What Deskhand says by itself, by language and key; `texts` win over `shipped`."""

    texts: dict[str, dict[str, str]]
    shipped: dict[str, dict[str, str]]


class TextIn(BaseModel):
    """A text to change; null brings the shipped one back."""

    locale: Storable = Field(examples=["en"])
    key: Storable = Field(examples=["greeting"])
    text: str | None


def conversation_out(conversation: Conversation) -> ConversationOut:
    """Return a conversation as the API shows it."""
    return ConversationOut(
        id=str(conversation.id),
        conversation_id=str(conversation.id),
        channel=conversation.channel,
        name=conversation.key,
        contact_name=conversation.contact_name,
        holder=conversation.holder,
        agent=conversation.agent,
        working=conversation.working,
        waiting_since=_moment(conversation.waiting_since),
        hand_off_reason=conversation.hand_off_reason,
        created_at=conversation.created_at.isoformat(),
        last_message_at=conversation.last_message_at.isoformat(),
    )


def plain(record: Any) -> dict[str, Any]:
    """Return a record of ids, texts and moments as JSON."""
    return {
        name: str(value)
        if isinstance(value, UUID)
        else _moment(value)
        if isinstance(value, datetime)
        else value
        for name, value in asdict(record).items()
    }


def _moment(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def routes(desk: Desk, reply_deadline_seconds: float, authorize: Authorize) -> APIRouter:
    """Return the routes under /v1/conversations, /v1/turns, /v1/deliveries and /v1/texts.

    Args:
        desk: What the work of staff needs.
        reply_deadline_seconds: Of a turn that is replayed.
        authorize: Raises 401 for a wrong or missing token.
    """
    router = APIRouter(prefix="/v1", dependencies=[Depends(authorize)])
    _add_moves(router, desk)
    _add_conversations(router, desk)
    _add_dead_letters(router, desk, reply_deadline_seconds)
    _add_texts(router, desk)
    return router


def _add_conversations(router: APIRouter, desk: Desk) -> None:
    @router.get("/conversations", tags=["Conversations"], summary="List conversations")
    async def overview(
        holder: Holder | None = None,
        channel: Annotated[Storable | None, Query(max_length=NAME_LIMIT_CHARACTERS)] = None,
        limit: Count = 50,
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> ConversationsOut:
        """Return conversations; with `holder=waiting` those who wait for a person."""
        found = await conversations.overview(
            desk.database, holder=holder, channel=channel, limit=limit, offset=offset
        )
        return ConversationsOut(conversations=[conversation_out(each) for each in found])

    # Last: its path takes slashes, so that names with slashes are found.
    @router.get(
        "/conversations/{conversation:path}", tags=["Conversations"], summary="Show a conversation"
    )
    async def show(conversation: ConversationName) -> ConversationOut:
        """Return a conversation without its messages."""
        found, _ = await conversations.show(desk.database, conversation, limit=1)
        return conversation_out(found)


def _add_moves(router: APIRouter, desk: Desk) -> None:
    @router.post("/conversations/{conversation:path}/take", tags=["Conversations"], summary="Take")
    async def take(conversation: ConversationName, act: ActIn) -> ConversationOut:
        """Give a conversation to an agent; the bot is silent from then on."""
        return conversation_out(await conversations.take(desk, conversation, act.agent))

    @router.post(
        "/conversations/{conversation:path}/release", tags=["Conversations"], summary="Release"
    )
    async def release(conversation: ConversationName, act: ActIn) -> ConversationOut:
        """Give a conversation back to the bot."""
        return conversation_out(await conversations.release(desk, conversation, act.agent))

    @router.post(
        "/conversations/{conversation:path}/resolve", tags=["Conversations"], summary="Resolve"
    )
    async def resolve(conversation: ConversationName, act: ActIn) -> ConversationOut:
        """Close a conversation; the customer's next message opens it again with the bot."""
        return conversation_out(await conversations.resolve(desk, conversation, act.agent))

    @router.post("/conversations/{conversation:path}/say", tags=["Conversations"], summary="Say")
    async def say(conversation: ConversationName, said: SayIn) -> ConversationOut:
        """Say something to the customer; 409 unless the agent holds the conversation."""
        return conversation_out(
            await conversations.say(desk, conversation, said.agent, said.text, said.id)
        )


def _add_dead_letters(router: APIRouter, desk: Desk, deadline_seconds: float) -> None:
    @router.get("/turns/failed", tags=["Dead letters"], summary="List unanswered questions")
    async def failed(limit: Count = 100) -> FailedTurnsOut:
        """Return questions whose attempts or time were spent."""
        found = await turns.failed(desk.database, limit)
        return FailedTurnsOut(turns=[FailedTurnOut.model_validate(plain(each)) for each in found])

    @router.post("/turns/{turn_id}/replay", tags=["Dead letters"], summary="Answer after all")
    async def replay(turn_id: UUID) -> ReplayedOut:
        """Open a dead letter again."""
        conversation_id = await turns.replay(
            desk.database, desk.doorbell, turn_id, deadline_seconds
        )
        return ReplayedOut(turn_id=str(turn_id), conversation_id=str(conversation_id))

    @router.get("/deliveries/troubled", tags=["Dead letters"], summary="List doubtful deliveries")
    async def troubled_deliveries(limit: Count = 100) -> TroubledListOut:
        """Return deliveries that are held, uncertain or failed."""
        async with desk.database.transaction() as conn:
            found = await troubled(conn, limit)
        return TroubledListOut(
            deliveries=[TroubledOut.model_validate(plain(each)) for each in found]
        )

    @router.post("/deliveries/{delivery_id}/resend", tags=["Dead letters"], summary="Send again")
    async def resend(delivery_id: UUID) -> ResentOut:
        """Send a failed, uncertain or held delivery again; it may then stand there twice."""
        if not await deliveries.resend(desk.database, desk.doorbell, delivery_id):
            raise NotFound(f"Delivery {delivery_id} is not held, uncertain or failed.")
        return ResentOut(delivery_id=str(delivery_id))


def _add_texts(router: APIRouter, desk: Desk) -> None:
    @router.get("/texts", tags=["Texts"], summary="List system texts")
    async def texts(base: Base = faq.DEFAULT_BASE) -> TextsOut:
        """Return what Deskhand says by itself: a base's own texts, and the shipped ones."""
        own, shipped = await wording.texts_of(desk.database, base=base)
        return TextsOut.model_validate({"texts": own, "shipped": shipped})

    @router.put("/texts", tags=["Texts"], summary="Change a system text")
    async def set_text(change: TextIn, base: Base = faq.DEFAULT_BASE) -> TextsOut:
        """Change a text of a base in one language."""
        await wording.set_text(desk.database, change.locale, change.key, change.text, base=base)
        own, shipped = await wording.texts_of(desk.database, base=base)
        return TextsOut.model_validate({"texts": own, "shipped": shipped})
