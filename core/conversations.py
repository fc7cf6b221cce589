"""What staff do with conversations: read, take, say, release, resolve."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from core import handoff, showing, telemetry
from core.db import deliveries, messages, turns
from core.db.connect import Connection, Database
from core.errors import Conflict, InvalidInput, NotFound
from core.handoff import Move
from core.intake import check_text
from core.ports import Doorbell
from core.turns import PULL_CHANNELS
from core.types import Author, Conversation, ConversationId, Holder, Message

log = logging.getLogger(__name__)

API_INBOX = "api"
"""The inbox of POST /v1/messages; its conversations may be named as their sender named them."""

AGENT_LIMIT_CHARACTERS = 200


@dataclass(frozen=True)
class Desk:
    """What the work of staff needs."""

    database: Database
    doorbell: Doorbell
    expiry_seconds: float


async def find(conn: Connection, name: str) -> Conversation:
    """Return a conversation by its id, or by the name that an API caller gave it.

    Raises:
        NotFound: There is none.
    """
    found = await messages.conversation_by_key(conn, API_INBOX, name)
    if found is None:
        try:
            found = await messages.conversation(conn, ConversationId(UUID(name)))
        except ValueError:
            found = None
    if found is None:
        raise NotFound(f"There is no conversation {name!r}.", field="conversation")
    return found


async def show(
    database: Database, name: str, *, after_position: int = 0, limit: int = 1000
) -> tuple[Conversation, Sequence[Message]]:
    """Return a conversation with its messages, oldest first."""
    async with database.transaction() as conn:
        conversation = await find(conn, name)
        said = await messages.messages(
            conn, conversation.id, after_position=after_position, limit=limit
        )
    return conversation, said


async def overview(
    database: Database,
    *,
    holder: Holder | None = None,
    channel: str | None = None,
    limit: int = 50,
    offset: int = 0,
) -> Sequence[Conversation]:
    """Return conversations, those who wait longest for a person first."""
    async with database.transaction() as conn:
        return await messages.conversations(
            conn, holder=holder, channel=channel, limit=limit, offset=offset
        )


async def take(desk: Desk, name: str, agent: str) -> Conversation:
    """Give a conversation to an agent; from the commit on the bot says nothing in it."""
    return await _move(desk, name, Move.TAKE, agent)


async def release(desk: Desk, name: str, agent: str) -> Conversation:
    """Give a conversation back to the bot, which starts clean."""
    return await _move(desk, name, Move.RELEASE, agent)


async def resolve(desk: Desk, name: str, agent: str) -> Conversation:
    """Close a conversation; the customer's next message opens it again with the bot."""
    return await _move(desk, name, Move.RESOLVE, agent)


async def _move(desk: Desk, name: str, move: Move, agent: str) -> Conversation:
    agent = _checked_agent(agent)
    async with desk.database.transaction() as conn:
        found = await find(conn, name)
        locked = await messages.lock(conn, found.id)
        if locked is None:
            raise NotFound(f"There is no conversation {name!r}.", field="conversation")
        holder = handoff.after(move, locked.holder, locked.agent, agent)
        keeps = holder is Holder.AGENT
        if (holder, locked.agent if keeps else None) != (
            locked.holder,
            agent if keeps else locked.agent,
        ):
            # A reply is being shown: what the customer saw of it stays as the bot's message.
            await showing.keep(
                conn,
                locked,
                expiry_seconds=desk.expiry_seconds,
                already_there=locked.channel in PULL_CHANNELS,
            )
            await messages.set_holder(
                conn,
                locked.id,
                holder,
                locked.epoch + 1,
                agent=agent if keeps else None,
                starts_clean=move is Move.RELEASE,
            )
            await turns.silence(conn, locked.id, f"{move} by {agent}")
            await deliveries.drop_bots(conn, locked.id)
            if keeps:
                await messages.record_taken(conn, locked.id, agent)
            await messages.notify(conn, locked.id)
        moved = await messages.conversation(conn, locked.id)
    log.info(
        "Conversation moved",
        extra={"action": f"conversation_{move}", "conversation_id": found.id, "agent": agent},
    )
    if moved is None:
        raise NotFound(f"There is no conversation {name!r}.", field="conversation")
    return moved


async def say(
    desk: Desk, name: str, agent: str, text: str, client_id: str | None = None
) -> Conversation:
    """Say something to the customer as the agent who holds the conversation.

    Args:
        desk: What it needs.
        name: The conversation.
        agent: Who says it.
        text: Literal text.
        client_id: The caller's own id; saying the same id twice says it once.

    Raises:
        Conflict: The agent does not hold the conversation: take it first.
    """
    agent = _checked_agent(agent)
    check_text(text)
    async with desk.database.transaction() as conn:
        found = await find(conn, name)
        locked = await messages.lock(conn, found.id)
        if locked is None or locked.holder is not Holder.AGENT:
            raise Conflict("Nobody holds the conversation; take it before you say something.")
        handoff.after(Move.TAKE, locked.holder, locked.agent, agent)
        if client_id is not None and await messages.message_by_client_id(
            conn, locked.id, client_id
        ):
            return found
        await messages.store_outgoing(
            conn,
            locked.id,
            author=Author.AGENT,
            text=text,
            trace_id=telemetry.new_trace_id(),
            expiry_seconds=desk.expiry_seconds,
            already_there=locked.channel in PULL_CHANNELS,
            agent=agent,
            client_id=client_id,
        )
        said = await messages.conversation(conn, locked.id)
    telemetry.REPLIES.labels("person", "answer").inc()
    if locked.channel not in PULL_CHANNELS:
        desk.doorbell.delivery(locked.channel, locked.inbox_id)
    return said or found


def _checked_agent(agent: str) -> str:
    agent = agent.strip()
    if not agent or len(agent) > AGENT_LIMIT_CHARACTERS or "\x00" in agent:
        raise InvalidInput("agent is blank or too long; name who acts.", field="agent")
    return agent
