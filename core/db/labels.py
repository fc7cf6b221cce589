"""Labels: what the right choice for a message would have been, and the turns to give them to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection
from core.types import Author, ConversationId, Decision, KnowledgeBaseId, TurnId, Verdict

HISTORY_MESSAGES = 6
"""How much of what was said before goes with a label: enough for "and for the blue one?"."""


@dataclass(frozen=True)
class Label:
    """What the right choice for a message would have been.

    Attributes:
        entry_id: The entry that answers; see `means_none` and `only_refutes` where it is None.
        intent: None where nobody said.
        chosen_entry_id: The bot's best candidate then.
        confidence: The chance that the bot gave it, in [0, 1].
        is_correct: Whether that candidate answers; None where nobody said.
        source: `staff`, `file`, `feedback` or `agent`.
        weight: How much it counts, in (0, 1].
        history: What was said before, oldest first, as {"author", "text"}.
    """

    text: str
    entry_id: str | None = None
    intent: str | None = None
    locale: str = "en"
    chosen_entry_id: str | None = None
    confidence: float | None = None
    is_correct: bool | None = None
    source: str = "staff"
    weight: float = 1.0
    author: str = ""
    history: Sequence[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])
    turn_id: TurnId | None = None

    @property
    def only_refutes(self) -> bool:
        """It says that the bot's candidate was wrong, and not what would have been right."""
        return (
            self.entry_id is None
            and self.is_correct is False
            and self.chosen_entry_id is not None
            and self.source in ("feedback", "file")
        )

    @property
    def means_none(self) -> bool:
        """It says that no entry answers, rather than nothing about entries."""
        if self.entry_id is not None or self.only_refutes:
            return False
        return self.intent is None or self.is_correct is not None


COLUMNS: LiteralString = """text, entry_id, intent, locale, chosen_entry_id, confidence,
    is_correct, source, weight, author, history, turn_id"""

# A word on a turn replaces the earlier one of the same source; the first one of a file stands.
PUT: LiteralString = """
    insert into label as l (knowledge_base_id, text, entry_id, intent, locale, chosen_entry_id,
                            confidence, is_correct, source, weight, author, history, turn_id)
    values (%(base_id)s, %(text)s, %(entry_id)s, %(intent)s, %(locale)s, %(chosen_entry_id)s,
            %(confidence)s, %(is_correct)s, %(source)s, %(weight)s, %(author)s, %(history)s,
            %(turn_id)s)
    on conflict (turn_id, source) where turn_id is not null do update
       set entry_id = excluded.entry_id, intent = excluded.intent, text = excluded.text,
           chosen_entry_id = excluded.chosen_entry_id, confidence = excluded.confidence,
           is_correct = excluded.is_correct, weight = excluded.weight, author = excluded.author,
           history = excluded.history, created_at = now()
     where (l.entry_id, l.intent, l.is_correct, l.weight, l.author, l.text)
           is distinct from (excluded.entry_id, excluded.intent, excluded.is_correct,
                             excluded.weight, excluded.author, excluded.text)
"""


async def put(conn: Connection, base_id: KnowledgeBaseId, labels: Sequence[Label]) -> int:
    """Store labels; return how many are new or say something else than before."""
    if not labels:
        return 0
    async with conn.cursor() as cursor:
        await cursor.executemany(
            PUT,
            [
                {
                    **{name: getattr(label, name) for name in _PLAIN},
                    "base_id": base_id,
                    "history": Jsonb([dict(said) for said in label.history]),
                }
                for label in labels
            ],
        )
        return cursor.rowcount


_PLAIN = (
    "text", "entry_id", "intent", "locale", "chosen_entry_id", "confidence", "is_correct",
    "source", "weight", "author", "turn_id",
)  # fmt: skip


async def of_turn(conn: Connection, turn_id: TurnId, source: str) -> Label | None:
    """Return the label of a turn by a source."""
    async with conn.cursor(row_factory=class_row(Label)) as cursor:
        await cursor.execute(
            f"select {COLUMNS} from label where turn_id = %(turn_id)s and source = %(source)s",
            {"turn_id": turn_id, "source": source},
        )
        return await cursor.fetchone()


async def drop_weak(conn: Connection, turn_id: TurnId) -> None:
    """Remove what was only inferred about a turn: staff have now said how it is."""
    await conn.execute(
        "delete from label where turn_id = %(id)s and source in ('feedback', 'agent')",
        {"id": turn_id},
    )


async def load(
    conn: Connection, base_id: KnowledgeBaseId, sources: Sequence[str] | None = None
) -> list[Label]:
    """Return the labels of a base, the oldest first; all of them, or those of some sources."""
    async with conn.cursor(row_factory=class_row(Label)) as cursor:
        await cursor.execute(
            f"""select {COLUMNS} from label
                 where knowledge_base_id = %(base_id)s
                   and (%(sources)s::text[] is null or source = any(%(sources)s))
                 order by created_at, id""",
            {"base_id": base_id, "sources": None if sources is None else list(sources)},
        )
        return await cursor.fetchall()


@dataclass(frozen=True)
class Candidate:
    """An entry that the bot considered, and the chance that it gave it."""

    entry_id: str
    confidence: float


@dataclass(frozen=True)
class Asked:
    """What a customer asked in a turn and what the bot made of it.

    Attributes:
        confidence: Of the reply, in [0, 1]; 0 where there was none.
        cited: The entries that its answer rested on; none where it gave no answer.
        candidates: Best first.
        intents: Name and probability, likeliest first.
        answer_from: From which chance on it would have answered, if the trace tells.
    """

    turn_id: TurnId
    base_id: KnowledgeBaseId
    text: str
    locale: str
    history: Sequence[Mapping[str, str]]
    decision: Decision | None
    confidence: float
    cited: Sequence[str]
    candidates: Sequence[Candidate]
    intents: Sequence[tuple[str, float]]
    answer_from: float | None
    at: datetime

    @property
    def chosen(self) -> Candidate | None:
        """The entry that the bot answered by, or its best candidate where it gave no answer."""
        if self.cited:
            return Candidate(self.cited[0], self.confidence)
        return self.candidates[0] if self.candidates else None


ASKED: LiteralString = """
    select t.id as turn_id, i.knowledge_base_id as base_id, said.text, t.opened_at as at,
           coalesce(r.language, c.locale, b.locale) as locale, r.decision, r.confidence,
           r.trace,
           coalesce(m.citations, '[]') as citations, coalesce(before.history, '[]') as history
      from turn t
      join conversation c on c.id = t.conversation_id
      join inbox i on i.id = t.inbox_id
      join knowledge_base b on b.id = i.knowledge_base_id
      join lateral (
            select string_agg(text, E'\\n' order by position) as text, min(position) as position
              from message where turn_id = t.id and author = 'customer' and kind = 'text'
           ) said on said.text is not null
      left join reply r on r.turn_id = t.id
      left join message m on m.id = r.message_id
      left join lateral (
            select jsonb_agg(jsonb_build_object('author', earlier.author, 'text', earlier.text)
                             order by earlier.position) as history
              from (select author, text, position from message e
                     where e.conversation_id = c.id and e.position < said.position
                       and e.created_at > t.opened_at - interval '1 day'
                     order by e.position desc limit %(history)s) earlier
           ) before on true
"""

ASKED_IN_TURNS: LiteralString = ASKED + " where t.id = any(%(turn_ids)s)"

# The window is laid on `reply_recent` first, so that old turns cost nothing; what was asked is read
# afterwards, for planners take the laterals of `ASKED` for cheap and run them on all turns.
UNLABELLED: LiteralString = """
    select r.turn_id
      from (select turn_id, created_at from reply order by created_at desc limit %(window)s) r
      join turn t on t.id = r.turn_id
      join inbox i on i.id = t.inbox_id
     where i.knowledge_base_id = %(base_id)s
       and not exists (select from label l where l.turn_id = r.turn_id and l.source = 'staff')
     order by r.created_at desc limit %(limit)s
"""


async def asked(conn: Connection, turn_ids: Sequence[UUID]) -> list[Asked]:
    """Return what was asked in turns; those without a text are left out."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            ASKED_IN_TURNS, {"turn_ids": list(turn_ids), "history": HISTORY_MESSAGES}
        )
        return [_asked(row) for row in await cursor.fetchall()]


async def unlabelled(conn: Connection, base_id: KnowledgeBaseId, limit: int) -> list[Asked]:
    """Return the latest answered turns on which staff have not said anything, latest first."""
    cursor = await conn.execute(
        UNLABELLED, {"base_id": base_id, "limit": limit, "window": 4 * limit}
    )
    found = await asked(conn, [row[0] for row in await cursor.fetchall()])
    return sorted(found, key=lambda each: each.at, reverse=True)


def _asked(row: Mapping[str, Any]) -> Asked:
    trace: Mapping[str, Any] = row["trace"] or {}
    decision = Decision(row["decision"]) if row["decision"] else None
    answered = decision is Decision.ANSWER
    return Asked(
        turn_id=TurnId(row["turn_id"]),
        base_id=KnowledgeBaseId(row["base_id"]),
        text=row["text"],
        locale=row["locale"],
        history=row["history"],
        decision=decision,
        confidence=row["confidence"] or 0.0,
        cited=[c["entry_id"] for c in row["citations"]] if answered else [],
        candidates=[Candidate(p["entry_id"], p["confidence"]) for p in trace.get("passages", [])],
        intents=[(i["name"], i["probability"]) for i in trace.get("intents", [])],
        answer_from=trace.get("thresholds", {}).get("answer_from"),
        at=row["at"],
    )


@dataclass(frozen=True)
class Rated:
    """The last verdict on an answer."""

    turn_id: TurnId
    verdict: Verdict


RATED: LiteralString = """
    select m.turn_id, (array_agg(f.verdict order by f.created_at desc))[1] as verdict
      from feedback f
      join message m on m.id = f.message_id
      join reply r on r.turn_id = m.turn_id and r.message_id = m.id
     where r.decision = 'answer' and f.created_at > now() - %(window)s
     group by m.turn_id
"""


async def rated(conn: Connection, window: timedelta) -> list[Rated]:
    """Return the answers that customers rated lately."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(RATED, {"window": window})
        return [
            Rated(TurnId(row["turn_id"]), Verdict(row["verdict"]))
            for row in await cursor.fetchall()
        ]


@dataclass(frozen=True)
class Said:
    """One message of a conversation, with the turn that it belongs to."""

    conversation_id: ConversationId
    author: Author
    text: str
    turn_id: TurnId | None
    decision: Decision | None
    at: datetime


# Conversations in which something can be learned: an agent spoke, or there are three messages, so
# that the customer may have gone on after an answer. `conversation_recent` serves the window.
LATELY: LiteralString = """
    select c.id from conversation c
     where c.last_message_at > now() - %(window)s
       and (c.next_position > 3 or exists (select from message m where m.conversation_id = c.id
                                              and m.author = 'agent'))
     order by c.last_message_at desc limit %(limit)s
"""

SAID: LiteralString = """
    select conversation_id, author, text, turn_id, decision, created_at as at
      from message
     where conversation_id = any(%(ids)s) and created_at > now() - %(window)s
       and kind = 'text'
     order by conversation_id, position
"""


async def lately(conn: Connection, window: timedelta, limit: int) -> list[ConversationId]:
    """Return the latest conversations from which something can be learned."""
    cursor = await conn.execute(LATELY, {"window": window, "limit": limit})
    return [ConversationId(row[0]) for row in await cursor.fetchall()]


async def said(
    conn: Connection, conversations: Sequence[ConversationId], window: timedelta
) -> list[Said]:
    """Return what was said in some conversations, in order."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SAID, {"ids": list(conversations), "window": window})
        return [_said(row) for row in await cursor.fetchall()]


def _said(row: Mapping[str, Any]) -> Said:
    decision = Decision(row["decision"]) if row["decision"] else None
    changed: dict[str, Any] = {"author": Author(row["author"]), "decision": decision}
    return Said(**{**row, **changed})


async def settled(conn: Connection, turn_ids: Sequence[UUID]) -> set[TurnId]:
    """Return the turns on which staff have said how it is."""
    cursor = await conn.execute(
        "select turn_id from label where source = 'staff' and turn_id = any(%(ids)s)",
        {"ids": list(turn_ids)},
    )
    return {TurnId(row[0]) for row in await cursor.fetchall()}


async def answers(conn: Connection, base_id: KnowledgeBaseId) -> list[tuple[str, str]]:
    """Return (id, answer) of the published entries of a base."""
    cursor = await conn.execute(
        """select id, answer from faq_entry
            where knowledge_base_id = %(base_id)s and status = 'published' order by id""",
        {"base_id": base_id},
    )
    return [(row[0], row[1]) for row in await cursor.fetchall()]


async def questions(
    conn: Connection, base_id: KnowledgeBaseId, ids: Sequence[str]
) -> dict[str, str]:
    """Return the questions of the entries that exist among some ids."""
    cursor = await conn.execute(
        """select id, question from faq_entry
            where knowledge_base_id = %(base_id)s and id = any(%(ids)s)""",
        {"base_id": base_id, "ids": list(ids)},
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}
