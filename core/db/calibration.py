"""What thresholds are fitted on, and when to fit them anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

from psycopg.rows import class_row

from core.db.connect import Connection
from core.types import KnowledgeBaseId


@dataclass(frozen=True)
class LabelRow:
    """A label with what the bot thought then.

    Attributes:
        trace: Of the reply to its turn; None for a label without a turn, or a turn without a reply.
    """

    text: str
    locale: str
    entry_id: str | None
    intent: str | None
    chosen_entry_id: str | None
    confidence: float | None
    is_correct: bool | None
    source: str
    weight: float
    trace: Mapping[str, Any] | None


# Of several words on one turn that of staff counts, else the most believed one.
LABELS: LiteralString = """
    select distinct on (coalesce(l.turn_id::text, l.id::text))
           l.text, l.locale, l.entry_id, l.intent, l.chosen_entry_id, l.confidence, l.is_correct,
           l.source, l.weight, r.trace
      from label l left join reply r on r.turn_id = l.turn_id
     where l.knowledge_base_id = %(base_id)s
     order by coalesce(l.turn_id::text, l.id::text), l.source in ('staff', 'file') desc,
              l.weight desc, l.id desc
"""


async def labels(conn: Connection, base_id: KnowledgeBaseId) -> list[LabelRow]:
    """Return the labels of a base, one for each turn."""
    async with conn.cursor(row_factory=class_row(LabelRow)) as cursor:
        await cursor.execute(LABELS, {"base_id": base_id})
        return await cursor.fetchall()


# A version is registered at each fit, promoted or not: what is not better is not fitted for ever.
DUE: LiteralString = """
    select b.name
      from knowledge_base b
      left join lateral (select max(v.created_at) as at from model_version v
                          where v.kind = 'calibration' and v.knowledge_base_id = b.id) fitted
             on true
      join lateral (select count(*) as n from label l
                     where l.knowledge_base_id = b.id
                       and l.created_at > coalesce(fitted.at, '-infinity')) fresh on true
     where fresh.n >= %(many)s
        or (fresh.n > 0 and coalesce(fitted.at, '-infinity') < now() - %(every)s)
     order by b.id
"""


async def due(conn: Connection, *, many: int, every_seconds: float) -> list[str]:
    """Return the names of bases with so many new labels, or any and no fit for so long."""
    cursor = await conn.execute(DUE, {"many": many, "every": timedelta(seconds=every_seconds)})
    return [row[0] for row in await cursor.fetchall()]


@dataclass(frozen=True)
class Watched:
    """A base whose thresholds serve.

    Attributes:
        thresholds: The stored file's bytes.
    """

    base_id: KnowledgeBaseId
    base: str
    version: str
    thresholds: bytes


# The latest promotion counts: of the base itself, else of all bases.
WATCHED: LiteralString = """
    select b.id as base_id, b.name as base, v.name as version, m.content as thresholds
      from knowledge_base b
      join lateral (select p.model_version_id from model_promotion p
                     where p.kind = 'calibration'
                       and (p.knowledge_base_id = b.id or p.knowledge_base_id is null)
                     order by p.knowledge_base_id is null, p.id desc limit 1) latest on true
      join model_version v on v.id = latest.model_version_id
      join model_blob m on m.sha256 = v.files -> 'thresholds.json' ->> 'sha256'
     order by b.id
"""


async def watched(conn: Connection) -> list[Watched]:
    """Return the bases whose thresholds were promoted, with these."""
    async with conn.cursor(row_factory=class_row(Watched)) as cursor:
        await cursor.execute(WATCHED)
        return await cursor.fetchall()


# What a bot was asked in words and looked up: without passages nothing was there to be sure of.
SEEN: LiteralString = """
    select (r.trace -> 'passages' -> 0 ->> 'confidence')::float8
      from reply r join turn t on t.id = r.turn_id join inbox i on i.id = t.inbox_id
     where i.knowledge_base_id = %(base_id)s and r.created_at > now() - %(window)s
       and r.decision <> 'small_talk' and jsonb_array_length(r.trace -> 'passages') > 0
     order by r.created_at desc limit %(limit)s
"""


async def confidences(
    conn: Connection, base_id: KnowledgeBaseId, *, window_seconds: float, limit: int
) -> list[float]:
    """Return how sure the bot was of its best entry in its latest replies, newest first."""
    cursor = await conn.execute(
        SEEN,
        {"base_id": base_id, "window": timedelta(seconds=window_seconds), "limit": limit},
    )
    return [row[0] for row in await cursor.fetchall()]


@dataclass(frozen=True)
class Abstained:
    """How many replies there were to questions, and how many of them gave no answer."""

    replies: int
    abstained: int


ABSTAINED: LiteralString = """
    select count(*) as replies,
           count(*) filter (where r.decision in ('hand_off', 'refuse')) as abstained
      from reply r join turn t on t.id = r.turn_id join inbox i on i.id = t.inbox_id
     where i.knowledge_base_id = %(base_id)s and r.decision <> 'small_talk'
       and r.created_at > now() - %(from)s and r.created_at <= now() - %(to)s
"""


async def abstained(
    conn: Connection, base_id: KnowledgeBaseId, *, from_seconds: float, to_seconds: float
) -> Abstained:
    """Count replies between two points in the past, as seconds ago."""
    async with conn.cursor(row_factory=class_row(Abstained)) as cursor:
        await cursor.execute(
            ABSTAINED,
            {
                "base_id": base_id,
                "from": timedelta(seconds=from_seconds),
                "to": timedelta(seconds=to_seconds),
            },
        )
        row = await cursor.fetchone()
    assert row is not None
    return row
