"""Phrases that no generated reply of a base may hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from core.db.connect import Connection
from core.types import KnowledgeBaseId


@dataclass(frozen=True)
class BlockedPhrase:
    """A phrase of staff's own list."""

    phrase: str
    author: str
    created_at: datetime


async def add(conn: Connection, base_id: KnowledgeBaseId, phrase: str, author: str) -> bool:
    """Block a phrase; return whether it was not blocked before, in whatever case."""
    cursor = await conn.execute(
        """insert into blocked_phrase (knowledge_base_id, phrase, author)
           values (%(base_id)s, %(phrase)s, %(author)s)
           on conflict (knowledge_base_id, lower(phrase)) do nothing""",
        {"base_id": base_id, "phrase": phrase, "author": author},
    )
    return cursor.rowcount == 1


async def remove(conn: Connection, base_id: KnowledgeBaseId, phrase: str) -> bool:
    """Allow a phrase again; return whether it was blocked."""
    cursor = await conn.execute(
        """delete from blocked_phrase
            where knowledge_base_id = %(base_id)s and lower(phrase) = lower(%(phrase)s)""",
        {"base_id": base_id, "phrase": phrase},
    )
    return cursor.rowcount == 1


async def count(conn: Connection, base_id: KnowledgeBaseId) -> int:
    """Return how many phrases a base blocks."""
    cursor = await conn.execute(
        "select count(*) from blocked_phrase where knowledge_base_id = %(base_id)s",
        {"base_id": base_id},
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def listed(conn: Connection, base_id: KnowledgeBaseId) -> list[BlockedPhrase]:
    """Return the phrases of a base in alphabetical order."""
    async with conn.cursor(row_factory=class_row(BlockedPhrase)) as cursor:
        await cursor.execute(
            """select phrase, author, created_at from blocked_phrase
                where knowledge_base_id = %(base_id)s order by lower(phrase)""",
            {"base_id": base_id},
        )
        return await cursor.fetchall()
