"""What staff should look at; of each kind a base has one open alert at most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection
from core.types import KnowledgeBaseId


@dataclass(frozen=True)
class Alert:
    """Something about a base that staff should look at.

    Attributes:
        kind: `score_drift`, `abstention` or `not_certified`.
        detail: The figures behind the message.
        cleared_at: None while it is open.
    """

    id: int
    base: str
    kind: str
    message: str
    detail: Mapping[str, Any]
    raised_at: datetime
    cleared_at: datetime | None


# An open one keeps the time at which it was raised and gets the present figures.
RAISE: LiteralString = """
    insert into alert (knowledge_base_id, kind, message, detail)
    values (%(base_id)s, %(kind)s, %(message)s, %(detail)s)
    on conflict (knowledge_base_id, kind) where cleared_at is null
    do update set message = excluded.message, detail = excluded.detail
    returning xmax = 0
"""


async def put(
    conn: Connection,
    base_id: KnowledgeBaseId,
    kind: str,
    message: str,
    detail: Mapping[str, Any],
) -> bool:
    """Raise an alert, or bring the open one up to date; return whether it is new."""
    cursor = await conn.execute(
        RAISE,
        {"base_id": base_id, "kind": kind, "message": message, "detail": Jsonb(dict(detail))},
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def clear(conn: Connection, base_id: KnowledgeBaseId, kind: str) -> bool:
    """Clear the open alert of a kind; return whether there was one."""
    cursor = await conn.execute(
        """update alert set cleared_at = now()
            where knowledge_base_id = %(base_id)s and kind = %(kind)s and cleared_at is null""",
        {"base_id": base_id, "kind": kind},
    )
    return cursor.rowcount == 1


async def clear_by_id(conn: Connection, alert_id: int) -> bool:
    """Clear an open alert; return whether it was open."""
    cursor = await conn.execute(
        "update alert set cleared_at = now() where id = %(id)s and cleared_at is null",
        {"id": alert_id},
    )
    return cursor.rowcount == 1


LISTED: LiteralString = """
    select a.id, b.name as base, a.kind, a.message, a.detail, a.raised_at, a.cleared_at
      from alert a join knowledge_base b on b.id = a.knowledge_base_id
     where %(every)s or a.cleared_at is null
     order by a.raised_at desc, a.id desc limit %(limit)s
"""


async def listed(conn: Connection, *, every: bool, limit: int) -> list[Alert]:
    """Return alerts, the latest first; only the open ones unless all are wanted."""
    async with conn.cursor(row_factory=class_row(Alert)) as cursor:
        await cursor.execute(LISTED, {"every": every, "limit": limit})
        return await cursor.fetchall()


async def open_by_kind(conn: Connection) -> dict[str, int]:
    """Return how many alerts are open, by kind."""
    cursor = await conn.execute(
        "select kind, count(*) from alert where cleared_at is null group by kind"
    )
    return dict(await cursor.fetchall())
