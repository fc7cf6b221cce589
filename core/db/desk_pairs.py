"""What agents wrote to customers, and the entries that may have been behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import dict_row

from core.db.connect import Connection
from core.types import KnowledgeBaseId, TurnId


@dataclass(frozen=True)
class Entry:
    """A published entry: the source of a reply."""

    id: str
    question: str
    answer: str


async def labelled(conn: Connection, turn_ids: Sequence[UUID]) -> dict[TurnId, str | None]:
    """Return what entry labels name for turns; None where staff say that no entry answers.

    Staff's word counts before what was inferred from an agent's.
    """
    cursor = await conn.execute(
        """select distinct on (turn_id) turn_id, entry_id from label
            where turn_id = any(%(ids)s) and source in ('staff', 'agent')
              and (entry_id is not null or source = 'staff' and is_correct is not null)
            order by turn_id, source = 'staff' desc""",
        {"ids": list(turn_ids)},
    )
    return {TurnId(row[0]): row[1] for row in await cursor.fetchall()}


async def entries(conn: Connection, base_id: KnowledgeBaseId) -> dict[str, Entry]:
    """Return the published entries of a base by id."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """select id, question, answer from faq_entry
                where knowledge_base_id = %(base_id)s and status = 'published'""",
            {"base_id": base_id},
        )
        return {row["id"]: Entry(**row) for row in await cursor.fetchall()}
