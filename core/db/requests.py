"""Questions to the models, from processes that have none."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from core.db.connect import Connection


async def store(
    conn: Connection, kind: str, payload: Mapping[str, Any], patience_seconds: float
) -> UUID:
    """Store a request and return its id."""
    cursor = await conn.execute(
        """insert into request (kind, payload, expires_at)
           values (%(kind)s, %(payload)s, now() + %(patience)s) returning id""",
        {
            "kind": kind,
            "payload": Jsonb(dict(payload)),
            "patience": timedelta(seconds=patience_seconds),
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise RuntimeError("insert returned nothing")
    return row[0]


async def claim(conn: Connection, request_id: UUID) -> tuple[str, Mapping[str, Any]] | None:
    """Take a request that nobody took and whose caller still waits."""
    cursor = await conn.execute(
        """update request set claimed_at = now()
            where id = %(id)s and claimed_at is null and expires_at > now()
           returning kind, payload""",
        {"id": request_id},
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


async def answer(
    conn: Connection,
    request_id: UUID,
    answer: Mapping[str, Any] | None,
    error: str | None = None,
) -> None:
    """Store an answer and tell the caller."""
    await conn.execute(
        """update request set answer = %(answer)s, error = %(error)s where id = %(id)s
           returning pg_notify('deskhand_request', id::text)""",
        {
            "id": request_id,
            "answer": None if answer is None else Jsonb(dict(answer)),
            "error": error,
        },
    )


async def fetch(
    conn: Connection, request_id: UUID
) -> tuple[Mapping[str, Any] | None, str | None] | None:
    """Return the answer or the error of a request, None while there is neither."""
    cursor = await conn.execute(
        """select answer, error from request
            where id = %(id)s and (answer is not null or error is not null)""",
        {"id": request_id},
    )
    row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


async def unclaimed(conn: Connection) -> list[UUID]:
    """Return requests that wait while their callers do."""
    cursor = await conn.execute(
        """select id from request
            where claimed_at is null and expires_at > now()
              and created_at < now() - interval '300 milliseconds' limit 100"""
    )
    return [row[0] for row in await cursor.fetchall()]


async def forget(conn: Connection) -> None:
    """Delete requests whose callers are long gone."""
    await conn.execute("delete from request where expires_at < now() - interval '1 minute'")
