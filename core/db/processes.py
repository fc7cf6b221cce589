"""Which processes live, and the figures that only the database knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection


@dataclass(frozen=True)
class Process:
    """A process as its last heartbeat described it."""

    name: str
    role: str
    ready: bool
    detail: Mapping[str, Any]
    seconds_since_seen: float


async def beat(
    conn: Connection, name: str, role: str, *, ready: bool, detail: Mapping[str, Any]
) -> None:
    """Say that a process lives."""
    await conn.execute(
        """insert into process (name, role, ready, detail)
           values (%(name)s, %(role)s, %(ready)s, %(detail)s)
           on conflict (name) do update
              set ready = excluded.ready, detail = excluded.detail, seen_at = now()""",
        {"name": name, "role": role, "ready": ready, "detail": Jsonb(dict(detail))},
    )


async def leave(conn: Connection, name: str) -> None:
    """Say that a process ends."""
    await conn.execute("delete from process where name = %(name)s", {"name": name})


async def alive(conn: Connection, within_seconds: float = 10.0) -> list[Process]:
    """Return the processes that were seen lately."""
    async with conn.cursor(row_factory=class_row(Process)) as cursor:
        await cursor.execute(
            """select name, role, ready, detail,
                      extract(epoch from now() - seen_at)::float8 as seconds_since_seen
                 from process
                where seen_at > now() - make_interval(secs => %(within)s) order by role, name""",
            {"within": within_seconds},
        )
        return await cursor.fetchall()


async def forget(conn: Connection) -> None:
    """Delete processes that have not been seen for an hour."""
    await conn.execute("delete from process where seen_at < now() - interval '1 hour'")


FIGURES: LiteralString = """
    select (select count(*) from turn where state in ('open', 'showing')) as turns_open,
           (select coalesce(extract(epoch from now() - min(opened_at)), 0)::float8
              from turn where state in ('open', 'showing')) as oldest_waiting_turn_seconds,
           (select count(*) from conversation where holder = 'waiting') as waiting_for_a_person
"""

# Finished deliveries are counted over a day only: the count must not grow with the past.
DELIVERY_STATES: LiteralString = """
    select state, count(*) from delivery
     where state in ('pending', 'held', 'sending', 'uncertain', 'failed') group by state
    union all
    select state, count(*) from delivery
     where state in ('sent', 'dropped', 'expired') and finished_at > now() - interval '1 day'
     group by state
"""


async def figures(conn: Connection) -> tuple[Mapping[str, float], Mapping[str, int]]:
    """Return the gauges of the queue, and the deliveries by state."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(FIGURES)
        queue = await cursor.fetchone() or {}
    states = await conn.execute(DELIVERY_STATES)
    return queue, {row[0]: row[1] for row in await states.fetchall()}
