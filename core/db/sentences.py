"""Sentences shown while their reply is still being written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

from psycopg.rows import class_row

from core.db.connect import Connection
from core.types import ConversationId, TurnId

# The state tells intake that this turn takes in no more: the next message opens the next turn.
ADD: LiteralString = """
    with showing as (
        update turn set state = 'showing' where id = %(turn_id)s and state in ('open', 'showing')
    )
    insert into sentence (turn_id, position, conversation_id, epoch, text)
    select %(turn_id)s, coalesce(max(position), 0) + 1, %(conversation_id)s, %(epoch)s, %(text)s
      from sentence where turn_id = %(turn_id)s
    returning pg_notify('deskhand_conversation', conversation_id::text)
"""


@dataclass(frozen=True)
class Sentence:
    """One shown sentence; `position` counts from 1 within its turn."""

    turn_id: TurnId
    position: int
    text: str


async def add(
    conn: Connection, turn_id: TurnId, conversation_id: ConversationId, epoch: int, text: str
) -> None:
    """Show one more sentence of a turn; the caller holds the conversation's lock."""
    await conn.execute(
        ADD,
        {"turn_id": turn_id, "conversation_id": conversation_id, "epoch": epoch, "text": text},
    )


async def of_turn(conn: Connection, turn_id: TurnId) -> tuple[str, ...]:
    """Return what was shown of a turn's reply, in order."""
    cursor = await conn.execute(
        "select text from sentence where turn_id = %(turn_id)s order by position",
        {"turn_id": turn_id},
    )
    return tuple(row[0] for row in await cursor.fetchall())


async def of_conversation(conn: Connection, conversation_id: ConversationId) -> list[Sentence]:
    """Return what is shown in a conversation and not yet a message; of one turn at most."""
    async with conn.cursor(row_factory=class_row(Sentence)) as cursor:
        await cursor.execute(
            """select turn_id, position, text from sentence
                where conversation_id = %(id)s order by created_at, position""",
            {"id": conversation_id},
        )
        return await cursor.fetchall()


async def forget(conn: Connection, turn_id: TurnId) -> None:
    """Drop what was shown of a turn: it stands in a message now."""
    await conn.execute("delete from sentence where turn_id = %(id)s", {"id": turn_id})
