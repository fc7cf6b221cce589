"""Turns: claimed with a lease and a fence, completed once, swept when they were forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from core.db import sentences
from core.db.connect import Connection
from core.types import (
    Author,
    ConversationId,
    Holder,
    Insight,
    MessageId,
    MessageKind,
    Reply,
    Turn,
    TurnId,
    TurnState,
    Utterance,
)

# The lease lies on the conversation: two workers never answer one at once. `fence` rises with each
# claim, so that a worker which lost its lease cannot complete. A turn of which sentences are out
# comes before the one that a later message opened.
CLAIM: LiteralString = """
    with claimed as (
        update conversation c
           set lease_owner = %(owner)s, lease_until = now() + %(lease)s, fence = c.fence + 1
         where c.id = %(conversation_id)s
           and (c.lease_until is null or c.lease_until < now())
           and exists (select from turn t where t.conversation_id = c.id
                          and t.state in ('open', 'showing')
                          and t.due_at <= now() and t.attempts < %(attempts)s
                          and (t.state = 'showing' or not exists (
                               select from turn s where s.conversation_id = c.id
                                  and s.state = 'showing')))
        returning c.id, c.inbox_id, c.epoch, c.holder, c.fence
    )
    update turn t set attempts = t.attempts + 1, rung_at = null
      from claimed c join inbox i on i.id = c.inbox_id
     where t.conversation_id = c.id and t.state in ('open', 'showing')
       and (t.state = 'showing' or not exists (
            select from turn s where s.conversation_id = c.id and s.state = 'showing'))
    returning t.id, c.id as conversation_id, c.inbox_id, i.knowledge_base_id, c.fence, c.epoch,
              c.holder, i.channel, t.input_version, t.attempts, t.trace_id, t.deadline_at,
              extract(epoch from t.deadline_at - now())::float8 as seconds_left
"""


async def claim(
    conn: Connection,
    conversation_id: ConversationId,
    *,
    owner: str,
    lease_seconds: float,
    attempts: int,
) -> Turn | None:
    """Take a conversation's open turn, if it is due and nobody has it."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            CLAIM,
            {
                "conversation_id": conversation_id,
                "owner": owner,
                "lease": timedelta(seconds=lease_seconds),
                "attempts": attempts,
            },
        )
        row = await cursor.fetchone()
    if row is None:
        return None
    values: dict[str, Any] = {**row, "holder": Holder(row["holder"])}
    return Turn(**values)


@dataclass(frozen=True)
class Input:
    """What a turn asks and what was said before it.

    Attributes:
        cited: Entries that the last reply of the bot rested on.
        waiting: Turns that wait for an answer in all, counted up to a small bound.
        dialogue: What was being talked about after the last turn; empty after a clean start.
        shown: Sentences of the reply that are out already, shown by an attempt that failed.
    """

    messages: tuple[str, ...]
    kind: MessageKind
    history: tuple[Utterance, ...]
    cited: tuple[str, ...]
    locale: str | None
    waiting: int
    dialogue: Mapping[str, Any]
    shown: tuple[str, ...]


# The last messages of the conversation's present context, this turn's among them.
LOAD: LiteralString = """
    select m.author, m.kind, m.text, m.citations, m.turn_id = %(turn_id)s and
           m.author = 'customer' as asked
      from message m join conversation c on c.id = m.conversation_id
     where m.conversation_id = %(conversation_id)s and m.position >= c.context_from
     order by m.position desc limit %(limit)s
"""

LOCALE_AND_QUEUE: LiteralString = """
    select coalesce(c.locale, p.locale) as locale, c.dialogue,
           (select count(*) from (select from turn where state in ('open', 'showing')
                                      and due_at <= now() limit 200) waiting) as waiting
      from conversation c join contact p on p.id = c.contact_id
     where c.id = %(conversation_id)s
"""

KIND_ORDER = (MessageKind.PERSON, MessageKind.TEXT, MessageKind.UNREADABLE, MessageKind.START)
"""Of several messages in one turn, the kind that asks most of us counts."""


async def load(
    conn: Connection, turn_id: TurnId, conversation_id: ConversationId, *, limit: int = 30
) -> Input:
    """Return what a turn asks, with the history that it stands in."""
    params = {"turn_id": turn_id, "conversation_id": conversation_id, "limit": limit}
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(LOAD, params)
        rows = list(reversed(await cursor.fetchall()))
        await cursor.execute(LOCALE_AND_QUEUE, params)
        state = await cursor.fetchone()
        shown = await sentences.of_turn(conn, turn_id)
    asked = [row for row in rows if row["asked"]]
    last = max((number for number, row in enumerate(rows) if row["asked"]), default=len(rows))
    # What the customer said after a shown sentence is the next turn's.
    before = [
        row
        for number, row in enumerate(rows)
        if not row["asked"] and (number < last or row["author"] != Author.CUSTOMER)
    ]
    kinds = {MessageKind(row["kind"]) for row in asked}
    replies = [row for row in before if row["author"] == Author.BOT and row["citations"]]
    return Input(
        messages=tuple(row["text"] for row in asked if row["text"]),
        kind=next((kind for kind in KIND_ORDER if kind in kinds), MessageKind.TEXT),
        history=tuple(Utterance(Author(row["author"]), row["text"]) for row in before),
        cited=tuple(c["entry_id"] for c in replies[-1]["citations"]) if replies else (),
        locale=state["locale"] if state else None,
        waiting=state["waiting"] if state else 0,
        dialogue=state["dialogue"] if state else {},
        shown=shown,
    )


@dataclass(frozen=True)
class TurnNow:
    """A turn as it stands, read under its conversation's lock."""

    state: TurnState
    input_version: int
    attempts: int


async def now(conn: Connection, turn_id: TurnId) -> TurnNow | None:
    """Return the present state of a turn."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            "select state, input_version, attempts from turn where id = %(id)s", {"id": turn_id}
        )
        row = await cursor.fetchone()
    if row is None:
        return None
    values: dict[str, Any] = {**row, "state": TurnState(row["state"])}
    return TurnNow(**values)


async def next_due(conn: Connection, turn_id: TurnId) -> float | None:
    """Return in how many seconds another turn of the same conversation is due, if there is one."""
    cursor = await conn.execute(
        """select extract(epoch from greatest(o.due_at - now(), interval '0'))::float8
             from turn t join turn o on o.conversation_id = t.conversation_id
            where t.id = %(id)s and o.id <> t.id and o.state = 'open'""",
        {"id": turn_id},
    )
    row = await cursor.fetchone()
    return None if row is None else float(row[0])


CLOSE: LiteralString = """
    with freed as (
        update conversation set lease_owner = null, lease_until = null
         where id = %(conversation_id)s
    )
    update turn set state = %(state)s, finished_at = now(), error = %(error)s
     where id = %(turn_id)s and state in ('open', 'showing')
"""


async def close(
    conn: Connection,
    turn_id: TurnId,
    conversation_id: ConversationId,
    state: TurnState,
    error: str | None = None,
) -> bool:
    """End a turn and free its conversation; False if it was not open any more."""
    cursor = await conn.execute(
        CLOSE,
        {
            "turn_id": turn_id,
            "conversation_id": conversation_id,
            "state": state,
            "error": error,
        },
    )
    return cursor.rowcount == 1


RECORD_REPLY: LiteralString = """
    with told as (
        update conversation c set dialogue = %(dialogue)s
          from turn t where t.id = %(turn_id)s and c.id = t.conversation_id
    ), seen as (
        update turn set insight = %(insight)s where id = %(turn_id)s
    )
    insert into reply (turn_id, message_id, decision, tier, confidence, language, trace)
    values (%(turn_id)s, %(message_id)s, %(decision)s, %(tier)s, %(confidence)s, %(language)s,
            %(trace)s)
"""


async def record_reply(
    conn: Connection, turn_id: TurnId, message_id: MessageId | None, reply: Reply
) -> None:
    """Store a reply's decision, its trace, and what is now talked about.

    The primary key refuses a second reply of a turn.
    """
    await conn.execute(
        RECORD_REPLY,
        {
            "turn_id": turn_id,
            "message_id": message_id,
            "decision": reply.choice.decision,
            "tier": reply.tier,
            "confidence": reply.confidence,
            "language": reply.language,
            "trace": Jsonb(trace_to_json(reply)),
            "dialogue": Jsonb(dict(reply.dialogue)),
            "insight": Jsonb(insight_to_json(reply.insight)),
        },
    )


def insight_to_json(insight: Insight) -> Mapping[str, Any]:
    """Return topics and sentiment as they are stored with the turn; empty where none are known."""
    stored: dict[str, Any] = {}
    if insight.topics:
        stored["topics"] = [
            {"name": t.name, "probability": round(t.probability, 4)} for t in insight.topics
        ]
    if (felt := insight.sentiment) is not None:
        stored["sentiment"] = {
            "name": felt.name,
            "probability": round(felt.probability, 4),
            "uncertainty": round(felt.uncertainty, 4),
        }
    return stored


def trace_to_json(reply: Reply) -> Mapping[str, Any]:
    """Return a reply's trace as it is stored; passages by id and version, not by text."""
    trace = reply.trace
    return {
        "why": reply.choice.why,
        "query": trace.query,
        "intents": [
            {"name": i.name, "probability": round(i.probability, 4)} for i in trace.intents
        ],
        "passages": [
            {
                "entry_id": p.entry.id,
                "version": p.entry.version,
                "score": round(p.score, 4),
                "confidence": round(p.confidence, 4),
                "dense": round(p.dense, 4),
                "lexical": round(p.lexical, 4),
            }
            for p in trace.passages
        ],
        "reason": trace.reason,
        "checks": list(trace.checks),
        "models": dict(trace.models),
        "thresholds": dict(trace.thresholds),
        "dialogue": dict(trace.dialogue),
        "signals": {name: round(value, 4) for name, value in trace.signals.items()},
        "milliseconds": {name: round(ms, 2) for name, ms in trace.milliseconds.items()},
    }


RELEASE: LiteralString = """
    with freed as (
        update conversation set lease_owner = null, lease_until = null
         where id = %(conversation_id)s and lease_owner = %(owner)s and fence = %(fence)s
        returning id
    )
    update turn set due_at = greatest(due_at, now() + %(pause)s), error = %(error)s,
                    attempts = case when %(blameless)s then attempts - 1 else attempts end
     where id = %(turn_id)s and state in ('open', 'showing') and exists (select from freed)
    returning extract(epoch from greatest(due_at - now(), interval '0'))::float8
"""


async def release(
    conn: Connection,
    turn: Turn,
    *,
    owner: str,
    pause_seconds: float = 0.0,
    error: str | None = None,
    blameless: bool = False,
) -> float | None:
    """Give a turn back for another try.

    Args:
        conn: In a transaction.
        turn: As it was claimed.
        owner: Who claimed it.
        pause_seconds: Until it may be tried again.
        error: Why it failed, for staff.
        blameless: The attempt does not count: the customer said more meanwhile.

    Returns:
        Seconds until it is due, None if it was lost to somebody else.
    """
    cursor = await conn.execute(
        RELEASE,
        {
            "turn_id": turn.id,
            "conversation_id": turn.conversation_id,
            "owner": owner,
            "fence": turn.fence,
            "pause": timedelta(seconds=pause_seconds),
            "error": error,
            "blameless": blameless,
        },
    )
    row = await cursor.fetchone()
    return None if row is None else float(row[0])


async def extend_leases(conn: Connection, owner: str, lease_seconds: float) -> None:
    """Keep all conversations that a process has in hand."""
    await conn.execute(
        """update conversation set lease_until = now() + %(lease)s
            where id = any(select id from conversation
                            where lease_owner = %(owner)s order by id for update skip locked)""",
        {"owner": owner, "lease": timedelta(seconds=lease_seconds)},
    )


FORGOTTEN: LiteralString = """
    select t.conversation_id, t.id
      from turn t join conversation c on c.id = t.conversation_id
     where t.state in ('open', 'showing') and t.due_at < now() - %(grace)s
       and t.attempts < %(attempts)s
       and (c.lease_until is null or c.lease_until < now())
       and (t.rung_at is null or t.rung_at < now() - %(again)s)
     order by t.due_at limit %(limit)s
"""


async def forgotten(
    conn: Connection, *, grace_seconds: float, again_seconds: float, attempts: int, limit: int
) -> list[tuple[ConversationId, TurnId]]:
    """Return due turns that nobody has and that were not rung for lately."""
    cursor = await conn.execute(
        FORGOTTEN,
        {
            "grace": timedelta(seconds=grace_seconds),
            "again": timedelta(seconds=again_seconds),
            "attempts": attempts,
            "limit": limit,
        },
    )
    return [(ConversationId(row[0]), TurnId(row[1])) for row in await cursor.fetchall()]


async def mark_rung(conn: Connection, turn_ids: Sequence[TurnId]) -> None:
    """Note that turns were rung for just now."""
    await conn.execute(
        """update turn set rung_at = now()
            where id = any(%(ids)s) and state in ('open', 'showing')""",
        {"ids": list(turn_ids)},
    )


@dataclass(frozen=True)
class Overdue:
    """A turn that can no longer be answered in time."""

    id: TurnId
    conversation_id: ConversationId
    past_deadline: bool


OVERDUE: LiteralString = """
    select t.id, t.conversation_id, t.deadline_at < now() as past_deadline
      from turn t join conversation c on c.id = t.conversation_id
     where t.state in ('open', 'showing')
       and (t.deadline_at < now()
            or (t.attempts >= %(attempts)s and (c.lease_until is null or c.lease_until < now())))
       -- in order: what is being shown ends first, by its own earlier deadline
       and (t.state = 'showing' or not exists (
            select from turn s where s.conversation_id = c.id and s.state = 'showing'))
     order by t.deadline_at limit %(limit)s
"""


async def overdue(conn: Connection, *, attempts: int, limit: int) -> list[Overdue]:
    """Return open turns whose deadline has passed or whose attempts are spent."""
    async with conn.cursor(row_factory=class_row(Overdue)) as cursor:
        await cursor.execute(OVERDUE, {"attempts": attempts, "limit": limit})
        return await cursor.fetchall()


@dataclass(frozen=True)
class FailedTurn:
    """A dead letter: what was asked, why it failed, and when."""

    id: TurnId
    conversation_id: ConversationId
    inbox: str
    key: str
    text: str
    error: str
    attempts: int
    opened_at: datetime
    finished_at: datetime


FAILED: LiteralString = """
    select t.id, t.conversation_id, i.name as inbox, c.key, coalesce(t.error, '') as error,
           t.attempts, t.opened_at, t.finished_at,
           coalesce((select string_agg(m.text, E'\\n' order by m.position) from message m
                      where m.turn_id = t.id and m.author = 'customer'), '') as text
      from turn t
      join conversation c on c.id = t.conversation_id
      join inbox i on i.id = t.inbox_id
     where t.state = 'failed'
     order by t.finished_at desc limit %(limit)s
"""


async def failed(conn: Connection, limit: int) -> list[FailedTurn]:
    """Return the dead letters, the latest first."""
    async with conn.cursor(row_factory=class_row(FailedTurn)) as cursor:
        await cursor.execute(FAILED, {"limit": limit})
        return await cursor.fetchall()


# Only where no newer turn is open: the replayed question would be answered out of order.
REPLAY: LiteralString = """
    update turn t
       set state = 'open', attempts = 0, error = null, finished_at = null, rung_at = null,
           due_at = now(), deadline_at = now() + %(deadline)s,
           input_version = t.input_version + 1
     where t.id = %(id)s and t.state = 'failed'
       and not exists (select from turn o
                        where o.conversation_id = t.conversation_id
                          and o.state in ('open', 'showing'))
    returning t.conversation_id
"""


async def replay(conn: Connection, turn_id: UUID, deadline_seconds: float) -> ConversationId | None:
    """Open a dead letter again; None if it is none, or a newer turn is open."""
    cursor = await conn.execute(
        REPLAY, {"id": turn_id, "deadline": timedelta(seconds=deadline_seconds)}
    )
    row = await cursor.fetchone()
    return None if row is None else ConversationId(row[0])


async def silence(conn: Connection, conversation_id: ConversationId, why: str) -> None:
    """Close whatever is open in a conversation without words, and void its lease."""
    await conn.execute(
        """with freed as (update conversation set lease_owner = null, lease_until = null
                           where id = %(id)s)
           update turn set state = 'silent', finished_at = now(), error = %(why)s
            where conversation_id = %(id)s and state in ('open', 'showing')""",
        {"id": conversation_id, "why": why},
    )
