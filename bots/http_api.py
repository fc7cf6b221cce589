"""The HTTP API as a channel: messages in by POST, replies out by GET or server-sent events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from bots import streaming
from bots.checking import NAME_LIMIT, checked_name, counting_route
from bots.streaming import Source
from core import conversations
from core.intake import check_text
from core.ports import Receiver
from core.types import Incoming, IncomingFeedback, MessageId, MessageKind, Sender, Verdict

MESSAGES_LIMIT = 1_000

Authorize = Callable[..., Awaitable[None]]

Name = Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)]


class SenderIn(BaseModel):
    """Who wrote."""

    model_config = ConfigDict(strict=True)

    id: Name = Field(description="Your id of the customer.", examples=["customer-17"])
    name: str = Field(default="", max_length=NAME_LIMIT, examples=["Ada"])
    locale: str | None = Field(
        default=None, max_length=35, description="The customer's language.", examples=["de"]
    )


class MessageIn(BaseModel):
    """What a customer wrote."""

    model_config = ConfigDict(strict=True)

    id: Name = Field(
        description="Your id of the message; sent again it is not answered again.",
        examples=["order-17-message-1"],
    )
    conversation: Name = Field(
        description="Your name of the conversation; a new name begins one.", examples=["order-17"]
    )
    sender: SenderIn
    text: str = Field(
        description="1 to 8,000 characters.", examples=["How long does delivery take?"]
    )
    kind: Literal["text", "person"] = Field(
        default="text", description="`person`: the customer pressed a button that asks for one."
    )


class Accepted(BaseModel):
    """The message is stored and will be answered."""

    message_id: str
    conversation_id: str


class CitationOut(BaseModel):
    """An entry that a reply rests on; the first one answers."""

    entry_id: str
    question: str
    url: str | None


class MessageOut(BaseModel):
    """A message of a conversation."""

    id: str
    position: int = Field(description="Its place in the conversation; give it as `after`.")
    author: str = Field(description="`customer`, `bot` or `agent`.")
    agent: str | None = Field(description="The person who wrote it.")
    kind: str
    text: str
    is_markdown: bool = Field(description="The text is limited CommonMark, else literal.")
    citations: list[CitationOut]
    suggestions: list[str] = Field(description="Questions that the customer may ask next.")
    decision: str | None = Field(
        description="`answer`, `clarify`, `small_talk`, `hand_off` or `refuse`."
    )
    turn_id: str | None
    created_at: str


class FeedbackIn(BaseModel):
    """What a customer thinks of a reply."""

    model_config = ConfigDict(strict=True)

    id: Name = Field(description="Your id of the verdict; sent again it counts once.")
    sender: SenderIn
    message_id: UUID = Field(strict=False, description="The reply.")
    verdict: Verdict = Field(strict=False)


class FeedbackOut(BaseModel):
    """`stored`, `duplicate`, or `ignored` where the message is none of the bot's."""

    outcome: str


class MessagesOut(BaseModel):
    """Messages, oldest first; `next` is where to go on when there are more."""

    conversation_id: str
    holder: str
    working: bool
    messages: list[MessageOut]
    next: int | None


def routes(receiver: Receiver, source: Source, authorize: Authorize) -> APIRouter:
    """Return the routes of the HTTP API's own channel.

    Args:
        receiver: The intake of the inbox `api`.
        source: Where messages are read from.
        authorize: Raises 401 for a wrong or missing token.
    """
    router = APIRouter(prefix="/v1", tags=["Messages"], dependencies=[Depends(authorize)])
    incoming = APIRouter(route_class=counting_route(receiver))

    @incoming.post("/messages", status_code=202, summary="Send a customer's message")
    async def send(message: MessageIn) -> Accepted:
        """Store a message and have it answered; the same `id` again gets the first receipt."""
        receipt = await receiver.receive(_incoming(message))
        return Accepted(
            message_id=str(receipt.message_id), conversation_id=str(receipt.conversation_id)
        )

    router.include_router(incoming)

    @router.get("/conversations/{conversation:path}/messages", summary="Read a conversation")
    async def read(
        conversation: str,
        after: Annotated[int, Query(ge=0, le=streaming.LONGEST_POSITION)] = 0,
        limit: Annotated[int, Query(ge=1, le=MESSAGES_LIMIT)] = MESSAGES_LIMIT,
    ) -> MessagesOut:
        """Return messages, oldest first.

        `conversation` is a conversation_id, or the name under which its messages were sent.
        """
        found, said = await conversations.show(
            source.database,
            checked_name(conversation, "conversation"),
            after_position=after,
            limit=limit,
        )
        return MessagesOut(
            conversation_id=str(found.id),
            holder=found.holder,
            working=found.working,
            messages=[MessageOut(**streaming.message_json(message)) for message in said],
            next=said[-1].position if len(said) == limit else None,
        )

    @router.get(
        "/conversations/{conversation:path}/events",
        summary="Follow a conversation",
        response_class=StreamingResponse,
        responses={200: {"content": {streaming.CONTENT_TYPE: {}}}},
    )
    async def follow(
        conversation: str,
        after: Annotated[int, Query(ge=0, le=streaming.LONGEST_POSITION)] = 0,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> StreamingResponse:
        """Stream server-sent events, from the first message or from `after` or Last-Event-ID on.

        An unnamed event is a whole message; `status` says whether the bot is at work; `sentence`
        is the next checked sentence of a reply that is still being written: the message with the
        same `turn_id` begins with it, or has it above the approved text.
        """
        found, _ = await conversations.show(
            source.database, checked_name(conversation, "conversation"), limit=1
        )
        events = streaming.follow(source, found.id, streaming.position_after(last_event_id, after))
        return StreamingResponse(
            events, media_type=streaming.CONTENT_TYPE, headers=streaming.HEADERS
        )

    @router.post("/conversations/{conversation:path}/feedback", summary="Rate a reply")
    async def rate(conversation: str, feedback: FeedbackIn) -> FeedbackOut:
        """Store a customer's verdict on a reply; the last one of a customer stands."""
        found, _ = await conversations.show(
            source.database, checked_name(conversation, "conversation"), limit=1
        )
        receipt = await receiver.give_feedback(
            IncomingFeedback(
                event_id=checked_name(feedback.id, "id"),
                chat=found.chat,
                sender=_sender(feedback.sender),
                verdict=feedback.verdict,
                message_id=MessageId(feedback.message_id),
            )
        )
        return FeedbackOut(outcome=receipt.outcome)

    return router


def _incoming(message: MessageIn) -> Incoming:
    return Incoming(
        event_id=checked_name(message.id, "id"),
        message_id=message.id,
        chat=checked_name(message.conversation, "conversation"),
        sender=_sender(message.sender),
        text=check_text(message.text),
        kind=MessageKind(message.kind),
    )


def _sender(sender: SenderIn) -> Sender:
    return Sender(
        id=checked_name(sender.id, "sender.id"),
        name=checked_name(sender.name, "sender.name"),
        locale=checked_name(sender.locale, "sender.locale") if sender.locale else None,
    )
