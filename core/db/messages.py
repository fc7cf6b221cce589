"""Contacts, conversations and their messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, LiteralString

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection
from core.types import (
    Author,
    Citation,
    Conversation,
    ConversationId,
    Decision,
    Holder,
    InboxId,
    Incoming,
    Message,
    MessageId,
    MessageKind,
    TurnId,
)

FIND_DUPLICATE: LiteralString = """
    select id, conversation_id, turn_id from message
     where inbox_id = %(inbox_id)s and event_id = %(event_id)s
    union all
    select id, conversation_id, turn_id from message
     where inbox_id = %(inbox_id)s and chat = %(chat)s and external_id = %(external_id)s
     limit 1
"""


@dataclass(frozen=True)
class StoredMessage:
    """The ids of a message that is in the database."""

    id: MessageId
    conversation_id: ConversationId
    turn_id: TurnId | None


async def find_duplicate(
    conn: Connection, inbox_id: InboxId, incoming: Incoming
) -> StoredMessage | None:
    """Return the message that this event, or another event about the same message, stored."""
    async with conn.cursor(row_factory=class_row(StoredMessage)) as cursor:
        await cursor.execute(
            FIND_DUPLICATE,
            {
                "inbox_id": inbox_id,
                "event_id": incoming.event_id,
                "chat": incoming.chat,
                "external_id": incoming.message_id,
            },
        )
        return await cursor.fetchone()


# Takes the conversation's row lock, which every later step of intake and commit relies on.
ENTER: LiteralString = """
    with person as (
        insert into contact (inbox_id, external_id, name, locale)
        select %(inbox_id)s, %(sender)s, %(sender_name)s, %(sender_locale)s
         where %(addressed)s
            or exists (select from conversation where inbox_id = %(inbox_id)s and key = %(key)s)
        on conflict on constraint contact_external_key do update
           set name = coalesce(nullif(excluded.name, ''), contact.name),
               locale = coalesce(excluded.locale, contact.locale),
               gone_at = null
        returning id
    )
    insert into conversation as c (inbox_id, key, chat, thread, private, contact_id, next_position)
    select %(inbox_id)s, %(key)s, %(chat)s, %(thread)s, %(private)s, person.id, 2 from person
    on conflict on constraint conversation_key do update
       set next_position = c.next_position + 1, contact_id = excluded.contact_id
    returning c.id, c.holder, c.epoch, c.agent, c.next_position - 1 as position, c.contact_id,
              c.last_message_at < now() - %(clean_after)s as stale
"""


@dataclass(frozen=True)
class Entered:
    """A conversation whose row this transaction has locked.

    Attributes:
        position: The place of the new message.
        stale: So long silent that what was said before no longer counts.
    """

    id: ConversationId
    holder: Holder
    epoch: int
    agent: str | None
    position: int
    contact_id: int
    stale: bool


async def enter(
    conn: Connection, inbox_id: InboxId, incoming: Incoming, clean_after_seconds: float
) -> Entered | None:
    """Lock the conversation of an incoming message, made if need be.

    Returns:
        None if the message is not addressed to us and no such conversation exists.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            ENTER,
            {
                "inbox_id": inbox_id,
                "sender": incoming.sender.id,
                "sender_name": incoming.sender.name,
                "sender_locale": incoming.sender.locale,
                "key": incoming.conversation_key,
                "chat": incoming.chat,
                "thread": incoming.thread,
                "private": incoming.private,
                "addressed": incoming.addressed,
                "clean_after": _interval(clean_after_seconds),
            },
        )
        row = await cursor.fetchone()
    if row is None:
        return None
    values: dict[str, Any] = {**row, "holder": Holder(row["holder"])}
    return Entered(**values)


# The message, its turn (opened, or made later by one more message) and the conversation's state.
STORE_INCOMING: LiteralString = """
    with turned as (
        insert into turn as t (conversation_id, inbox_id, due_at, deadline_at, trace_id)
        select %(conversation_id)s, %(inbox_id)s, now() + %(debounce)s, now() + %(deadline)s,
               %(trace_id)s
         where %(opens_turn)s
        on conflict (conversation_id) where state = 'open' do update
           set due_at = least(excluded.due_at, t.opened_at + %(longest_debounce)s),
               input_version = t.input_version + 1
        returning t.id
    ), moved as (
        update conversation
           set last_message_at = now(), holder = %(holder)s, epoch = %(epoch)s,
               agent = case when %(holder)s = 'agent' then agent end,
               context_from = case when %(stale)s then %(position)s else context_from end,
               dialogue = case when %(stale)s then '{}'::jsonb else dialogue end
         where id = %(conversation_id)s
    )
    insert into message (conversation_id, inbox_id, position, author, kind, text, event_id,
                         external_id, chat, contact_id, turn_id, trace_id)
    values (%(conversation_id)s, %(inbox_id)s, %(position)s, 'customer', %(kind)s, %(text)s,
            %(event_id)s, %(external_id)s, %(chat)s, %(contact_id)s, (select id from turned),
            %(trace_id)s)
    on conflict do nothing
    returning id, conversation_id, turn_id
"""


async def store_incoming(
    conn: Connection,
    inbox_id: InboxId,
    incoming: Incoming,
    entered: Entered,
    *,
    holder: Holder,
    epoch: int,
    opens_turn: bool,
    debounce_seconds: float,
    longest_debounce_seconds: float,
    deadline_seconds: float,
    trace_id: str,
) -> StoredMessage | None:
    """Store a customer's message and open or extend its turn.

    Returns:
        None if another transaction stored this event or message first: roll back.
    """
    async with conn.cursor(row_factory=class_row(StoredMessage)) as cursor:
        await cursor.execute(
            STORE_INCOMING,
            {
                "conversation_id": entered.id,
                "inbox_id": inbox_id,
                "debounce": _interval(debounce_seconds),
                "longest_debounce": _interval(longest_debounce_seconds),
                "deadline": _interval(deadline_seconds),
                "trace_id": trace_id,
                "opens_turn": opens_turn,
                "holder": holder,
                "epoch": epoch,
                "stale": entered.stale,
                "position": entered.position,
                "kind": incoming.kind,
                "text": incoming.text,
                "event_id": incoming.event_id,
                "external_id": incoming.message_id,
                "chat": incoming.chat,
                "contact_id": entered.contact_id,
            },
        )
        return await cursor.fetchone()


SELECT_CONVERSATION: LiteralString = """
    select c.id, c.inbox_id, i.channel, c.key, c.chat, c.thread, p.name as contact_name, c.holder,
           c.epoch, c.agent, c.created_at, c.last_message_at, c.waiting_since, c.hand_off_reason,
           exists (select from turn t where t.conversation_id = c.id
                      and t.state in ('open', 'showing')) as working
      from conversation c
      join inbox i on i.id = c.inbox_id
      join contact p on p.id = c.contact_id
"""


def _conversation(row: Mapping[str, Any]) -> Conversation:
    values: dict[str, Any] = {**row, "holder": Holder(row["holder"])}
    return Conversation(**values)


async def conversation(conn: Connection, conversation_id: ConversationId) -> Conversation | None:
    """Return a conversation by its id."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SELECT_CONVERSATION + " where c.id = %(id)s", {"id": conversation_id})
        row = await cursor.fetchone()
    return None if row is None else _conversation(row)


async def conversation_by_key(conn: Connection, inbox: str, key: str) -> Conversation | None:
    """Return a conversation by its inbox's name and its key within it."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            SELECT_CONVERSATION + " where i.name = %(inbox)s and c.key = %(key)s",
            {"inbox": inbox, "key": key},
        )
        row = await cursor.fetchone()
    return None if row is None else _conversation(row)


async def conversations(
    conn: Connection, *, holder: Holder | None, channel: str | None, limit: int, offset: int
) -> list[Conversation]:
    """Return conversations, those who wait longest first, then the latest."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            SELECT_CONVERSATION
            + """
             where (%(holder)s::text is null or c.holder = %(holder)s)
               and (%(channel)s::text is null or i.channel = %(channel)s)
             order by case when c.holder = 'waiting' then c.waiting_since end nulls last,
                      c.last_message_at desc
             limit %(limit)s offset %(offset)s""",
            {"holder": holder, "channel": channel, "limit": limit, "offset": offset},
        )
        return [_conversation(row) for row in await cursor.fetchall()]


MESSAGE_COLUMNS: LiteralString = """id, conversation_id, position, author, text, created_at, kind,
    is_markdown, decision, citations, suggestions, agent, turn_id"""


def message_from_row(row: Mapping[str, Any]) -> Message:
    """Return a row of `message` as our type."""
    values: dict[str, Any] = {
        **row,
        "author": Author(row["author"]),
        "kind": MessageKind(row["kind"]),
        "decision": Decision(row["decision"]) if row["decision"] else None,
        "citations": tuple(Citation(**citation) for citation in row["citations"]),
        "suggestions": tuple(row["suggestions"]),
    }
    return Message(**values)


async def messages(
    conn: Connection,
    conversation_id: ConversationId,
    *,
    after_position: int = 0,
    limit: int = 1000,
) -> list[Message]:
    """Return the messages of a conversation after a position, oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""select {MESSAGE_COLUMNS} from message
                 where conversation_id = %(id)s and position > %(after)s
                 order by position limit %(limit)s""",
            {"id": conversation_id, "after": after_position, "limit": limit},
        )
        return [message_from_row(row) for row in await cursor.fetchall()]


async def message_by_client_id(
    conn: Connection, conversation_id: ConversationId, client_id: str
) -> MessageId | None:
    """Return the message that was said under a caller's own id."""
    cursor = await conn.execute(
        "select id from message where conversation_id = %(id)s and client_id = %(client_id)s",
        {"id": conversation_id, "client_id": client_id},
    )
    row = await cursor.fetchone()
    return None if row is None else MessageId(row[0])


@dataclass(frozen=True)
class Locked:
    """A conversation whose row this transaction has locked, for a change of its state."""

    id: ConversationId
    inbox_id: InboxId
    channel: str
    chat: str
    holder: Holder
    epoch: int
    agent: str | None
    locale: str | None
    lease_owner: str | None
    fence: int


LOCK: LiteralString = """
    select c.id, c.inbox_id, i.channel, c.chat, c.holder, c.epoch, c.agent,
           coalesce(c.locale, p.locale) as locale, c.lease_owner, c.fence
      from conversation c
      join inbox i on i.id = c.inbox_id
      join contact p on p.id = c.contact_id
     where c.id = %(id)s
       for update of c
"""


async def lock(conn: Connection, conversation_id: ConversationId) -> Locked | None:
    """Lock a conversation's row until the transaction ends."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(LOCK, {"id": conversation_id})
        row = await cursor.fetchone()
    if row is None:
        return None
    values: dict[str, Any] = {**row, "holder": Holder(row["holder"])}
    return Locked(**values)


SET_HOLDER: LiteralString = """
    update conversation
       set holder = %(holder)s, epoch = %(epoch)s, agent = %(agent)s,
           waiting_since = case when %(holder)s = 'waiting'
                                then coalesce(waiting_since, now()) end,
           hand_off_reason = case when %(holder)s = 'waiting' then %(reason)s end,
           context_from = case when %(starts_clean)s then next_position else context_from end,
           dialogue = case when %(starts_clean)s then '{}'::jsonb else dialogue end
     where id = %(id)s
"""


async def set_holder(
    conn: Connection,
    conversation_id: ConversationId,
    holder: Holder,
    epoch: int,
    *,
    agent: str | None = None,
    reason: str | None = None,
    starts_clean: bool = False,
) -> None:
    """Give a conversation to another holder; the caller holds its lock."""
    await conn.execute(
        SET_HOLDER,
        {
            "id": conversation_id,
            "holder": holder,
            "epoch": epoch,
            "agent": agent,
            "reason": reason,
            "starts_clean": starts_clean,
        },
    )


async def record_handoff(
    conn: Connection, conversation_id: ConversationId, turn_id: TurnId | None, reason: str
) -> None:
    """Record that a conversation waits for a person."""
    await conn.execute(
        """insert into handoff (conversation_id, turn_id, reason)
           values (%(conversation_id)s, %(turn_id)s, %(reason)s)""",
        {"conversation_id": conversation_id, "turn_id": turn_id, "reason": reason},
    )


async def record_taken(conn: Connection, conversation_id: ConversationId, agent: str) -> None:
    """Record who answered the open hand-offs of a conversation."""
    await conn.execute(
        """update handoff set agent = %(agent)s, taken_at = now()
            where conversation_id = %(id)s and taken_at is null""",
        {"id": conversation_id, "agent": agent},
    )


# A message of ours and its delivery. Channels whose readers fetch from this database (web chat,
# HTTP API) are served by the commit itself: `already_there`.
STORE_OUTGOING: LiteralString = """
    with place as (
        update conversation
           set next_position = next_position + 1, last_message_at = now(),
               locale = coalesce(%(language)s, locale)
         where id = %(conversation_id)s
        returning id, inbox_id, chat, next_position - 1 as position, epoch
    ), said as (
        insert into message (conversation_id, inbox_id, position, author, text, is_markdown, agent,
                             client_id, turn_id, decision, language, citations, suggestions,
                             trace_id)
        select id, inbox_id, position, %(author)s, %(text)s, %(is_markdown)s, %(agent)s,
               %(client_id)s, %(turn_id)s, %(decision)s, %(language)s, %(citations)s,
               %(suggestions)s, %(trace_id)s
          from place
        returning id, position
    )
    insert into delivery (conversation_id, inbox_id, message_id, position, epoch, author, chat,
                          state, reply_to, rateable, expires_at, finished_at)
    select place.id, place.inbox_id, said.id, place.position, place.epoch, %(author)s, place.chat,
           case when %(already_there)s then 'sent' else 'pending' end,
           (select m.external_id from message m
             where m.turn_id = %(turn_id)s and m.author = 'customer'
             order by m.position desc limit 1),
           %(rateable)s, now() + %(expiry)s, case when %(already_there)s then now() end
      from place, said
    returning message_id, pg_notify('deskhand_conversation', conversation_id::text)
"""


async def store_outgoing(
    conn: Connection,
    conversation_id: ConversationId,
    *,
    author: Author,
    text: str,
    trace_id: str,
    expiry_seconds: float,
    already_there: bool,
    is_markdown: bool = False,
    agent: str | None = None,
    client_id: str | None = None,
    turn_id: TurnId | None = None,
    decision: Decision | None = None,
    language: str | None = None,
    citations: Sequence[Citation] = (),
    suggestions: Sequence[str] = (),
    rateable: bool = False,
) -> MessageId:
    """Store a message of ours with its delivery; the caller holds the conversation's lock."""
    cursor = await conn.execute(
        STORE_OUTGOING,
        {
            "conversation_id": conversation_id,
            "author": author,
            "text": text,
            "is_markdown": is_markdown,
            "agent": agent,
            "client_id": client_id,
            "turn_id": turn_id,
            "decision": decision,
            "language": language,
            "citations": Jsonb(
                [{"entry_id": c.entry_id, "question": c.question, "url": c.url} for c in citations]
            ),
            "suggestions": Jsonb(list(suggestions)),
            "trace_id": trace_id,
            "already_there": already_there,
            "rateable": rateable,
            "expiry": _interval(expiry_seconds),
        },
    )
    row = await cursor.fetchone()
    if row is None:
        raise RuntimeError(f"conversation {conversation_id} vanished under its lock")
    return MessageId(row[0])


async def notify(conn: Connection, conversation_id: ConversationId) -> None:
    """Tell whoever follows a conversation to read it again."""
    await conn.execute(
        "select pg_notify('deskhand_conversation', %(id)s)", {"id": str(conversation_id)}
    )


async def recent_count(
    conn: Connection, inbox_id: InboxId, sender: str, since_seconds: float
) -> int:
    """Return how many messages a sender wrote in the last seconds."""
    cursor = await conn.execute(
        """select count(*) from message m join contact p on p.id = m.contact_id
            where p.inbox_id = %(inbox_id)s and p.external_id = %(sender)s
              and m.created_at > now() - %(since)s""",
        {"inbox_id": inbox_id, "sender": sender, "since": _interval(since_seconds)},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


def _interval(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
