"""Deliveries: claimed before they are sent, in order within a conversation, within the limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import class_row, dict_row

from core.db.connect import Connection
from core.types import (
    Author,
    Citation,
    Delivery,
    DeliveryId,
    DeliveryState,
    InboxId,
    Limits,
)

CLAIMED_COLUMNS: LiteralString = """
    d.id, d.inbox_id, d.conversation_id, d.message_id, d.chat, d.author, m.text, c.thread,
    c.private, d.reply_to, m.is_markdown, m.citations, m.suggestions, d.rateable,
    coalesce(m.language, 'en') as language, d.parts_sent, d.attempts, m.trace_id, d.claimed_at
"""

# A row is taken only if nothing earlier of its conversation is still on its way, nobody took the
# conversation over since it was written, the platform did not ask us to wait, and the chat's
# window has room. `skip locked`: two senders never take the same row.
CLAIM_NEXT: LiteralString = (
    """
    with next as (
        select d.id
          from delivery d join conversation c on c.id = d.conversation_id
         where d.inbox_id = %(inbox_id)s and d.state = 'pending' and d.due_at <= now()
           and (d.author = 'agent' or d.epoch = c.epoch)
           and exists (select from inbox i where i.id = d.inbox_id and i.active)
           and not exists (
                select from delivery earlier
                 where earlier.conversation_id = d.conversation_id
                   and earlier.position < d.position
                   and (earlier.state in ('pending', 'sending')
                        or earlier.state = 'uncertain' and earlier.looked_up_at is null))
           and not exists (
                select from pause p
                 where p.inbox_id = d.inbox_id and p.chat in ('', d.chat) and p.until > now())
           and (c.private or %(per_chat)s::int is null
                or %(per_chat)s > (select count(*) from post p
                                    where p.inbox_id = d.inbox_id and p.chat = d.chat
                                      and p.sent_at > now() - %(window)s)
                                + (select count(*) from delivery s
                                    where s.inbox_id = d.inbox_id and s.chat = d.chat
                                      and s.state = 'sending'))
         order by d.due_at, d.position limit 1
           for update of d skip locked
    ), claimed as (
        update delivery d
           set state = 'sending', attempts = d.attempts + 1, lease_owner = %(owner)s,
               lease_until = now() + %(lease)s, claimed_at = clock_timestamp()
          from next where d.id = next.id
        returning d.*
    )
    select """
    + CLAIMED_COLUMNS
    + """
      from claimed d
      join conversation c on c.id = d.conversation_id
      join message m on m.id = d.message_id
"""
)

CLAIM_UNCERTAIN: LiteralString = (
    """
    with next as (
        select id from delivery
         where inbox_id = %(inbox_id)s and state = 'uncertain' and looked_up_at is null
           and due_at <= now() and (lease_until is null or lease_until < now())
         order by due_at limit 1 for update skip locked
    ), claimed as (
        update delivery d set lease_owner = %(owner)s, lease_until = now() + %(lease)s
          from next where d.id = next.id
        returning d.*
    )
    select """
    + CLAIMED_COLUMNS
    + """
      from claimed d
      join conversation c on c.id = d.conversation_id
      join message m on m.id = d.message_id
"""
)


def _delivery(row: Mapping[str, Any]) -> Delivery:
    values: dict[str, Any] = {
        **row,
        "author": Author(row["author"]),
        "citations": tuple(Citation(**citation) for citation in row["citations"]),
        "suggestions": tuple(row["suggestions"]),
    }
    return Delivery(**values)


async def claim_next(
    conn: Connection, inbox_id: InboxId, *, owner: str, lease_seconds: float, limits: Limits
) -> Delivery | None:
    """Mark the next due delivery of an inbox as being sent, and return it.

    Where a chat's posts are limited the claims of an inbox come one after another: two senders
    that count at once would both see room for one more.
    """
    if limits.per_chat is not None:
        await conn.execute(
            "select pg_advisory_xact_lock(hashtextextended('claim:' || %(inbox_id)s, 0))",
            {"inbox_id": inbox_id},
        )
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            CLAIM_NEXT,
            {
                "inbox_id": inbox_id,
                "owner": owner,
                "lease": timedelta(seconds=lease_seconds),
                "per_chat": limits.per_chat,
                "window": timedelta(seconds=limits.window_seconds),
            },
        )
        row = await cursor.fetchone()
    return None if row is None else _delivery(row)


async def claim_uncertain(
    conn: Connection, inbox_id: InboxId, *, owner: str, lease_seconds: float
) -> Delivery | None:
    """Take a delivery of which nobody knows whether it was sent, to look it up."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            CLAIM_UNCERTAIN,
            {"inbox_id": inbox_id, "owner": owner, "lease": timedelta(seconds=lease_seconds)},
        )
        row = await cursor.fetchone()
    return None if row is None else _delivery(row)


RECORD_POST: LiteralString = """
    with posted as (
        insert into post (delivery_id, part, inbox_id, chat, external_id)
        values (%(id)s, %(part)s, %(inbox_id)s, %(chat)s, %(external_id)s)
        on conflict do nothing
    )
    update delivery
       set parts_sent = greatest(parts_sent, %(part)s + 1),
           state = case when %(last)s then 'sent' else 'sending' end,
           finished_at = case when %(last)s then now() end,
           error = null, looked_up_at = null,
           lease_until = case when %(last)s then null else lease_until end,
           lease_owner = case when %(last)s then null else lease_owner end
     where id = %(id)s and state in ('sending', 'uncertain')
    returning author = 'agent'
           or epoch = (select c.epoch from conversation c where c.id = conversation_id)
"""


async def record_post(
    conn: Connection, delivery: Delivery, part: int, external_id: str, *, last: bool
) -> bool:
    """Record that a part stands on the platform; the last one ends the delivery.

    Returns:
        Whether the next part is still wanted: nobody took the conversation over meanwhile.
    """
    cursor = await conn.execute(
        RECORD_POST,
        {
            "id": delivery.id,
            "part": part,
            "inbox_id": delivery.inbox_id,
            "chat": delivery.chat,
            "external_id": external_id,
            "last": last,
        },
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


# What a person overtook meanwhile is not put back: it would never be claimed, and hold up the rest.
POSTPONE: LiteralString = """
    update delivery d
       set state = case when wanted then 'pending' else 'dropped' end,
           finished_at = case when not wanted then now() end,
           due_at = now() + %(pause)s, error = %(error)s,
           lease_until = null, lease_owner = null, looked_up_at = null
      from (select x.id, x.author = 'agent' or x.epoch = c.epoch as wanted
              from delivery x join conversation c on c.id = x.conversation_id
             where x.id = %(id)s) judged
     where d.id = judged.id and d.state in ('sending', 'uncertain')
"""


async def postpone(conn: Connection, delivery_id: DeliveryId, pause: float, error: str) -> None:
    """Put back a delivery that was surely not sent."""
    await conn.execute(
        POSTPONE, {"id": delivery_id, "pause": timedelta(seconds=pause), "error": error}
    )


async def postpone_lookup(conn: Connection, delivery_id: DeliveryId, pause: float) -> None:
    """Look an uncertain delivery up later."""
    await conn.execute(
        """update delivery set due_at = now() + %(pause)s, lease_until = null, lease_owner = null
            where id = %(id)s and state = 'uncertain'""",
        {"id": delivery_id, "pause": timedelta(seconds=pause)},
    )


async def end(
    conn: Connection, delivery_id: DeliveryId, state: DeliveryState, error: str | None = None
) -> None:
    """End a delivery that will not be sent."""
    await conn.execute(
        """update delivery set state = %(state)s, error = %(error)s, finished_at = now(),
                  lease_until = null, lease_owner = null
            where id = %(id)s and state in ('pending', 'held', 'sending', 'uncertain')""",
        {"id": delivery_id, "state": state, "error": error},
    )


async def doubt(
    conn: Connection, delivery_id: DeliveryId, error: str, *, looked_up: bool = False
) -> None:
    """Mark a delivery as perhaps sent; once looked up in vain it stays so, for staff."""
    await conn.execute(
        """update delivery set state = 'uncertain', error = %(error)s, lease_until = null,
                  lease_owner = null, due_at = now(),
                  looked_up_at = case when %(looked_up)s then now() end
            where id = %(id)s and state in ('sending', 'uncertain')""",
        {"id": delivery_id, "error": error, "looked_up": looked_up},
    )


async def pause_chat(conn: Connection, inbox_id: InboxId, chat: str, seconds: float) -> None:
    """Send nothing to a chat (or with '' through the whole inbox) for a while."""
    await conn.execute(
        """insert into pause (inbox_id, chat, until)
           values (%(inbox_id)s, %(chat)s, now() + %(pause)s)
           on conflict (inbox_id, chat) do update
              set until = greatest(pause.until, excluded.until)""",
        {"inbox_id": inbox_id, "chat": chat, "pause": timedelta(seconds=seconds)},
    )


async def move_chat(conn: Connection, inbox_id: InboxId, old: str, new: str) -> None:
    """Follow a chat whose platform gave it a new id, with all that is bound for it."""
    params = {"inbox_id": inbox_id, "old": old, "new": new}
    await conn.execute(
        """update conversation c
              set chat = %(new)s,
                  key = case when c.thread is null then %(new)s
                             else %(new)s || '#' || c.thread end
            where c.inbox_id = %(inbox_id)s and c.chat = %(old)s
              and not exists (select from conversation o
                               where o.inbox_id = c.inbox_id
                                 and o.key = case when c.thread is null then %(new)s
                                                  else %(new)s || '#' || c.thread end)""",
        params,
    )
    await conn.execute(
        """update delivery set chat = %(new)s
            where inbox_id = %(inbox_id)s and chat = %(old)s
              and state in ('pending', 'held', 'sending', 'uncertain')""",
        params,
    )


async def contact_gone(conn: Connection, conversation_id: UUID) -> None:
    """Note that a customer cannot be reached any more."""
    await conn.execute(
        """update contact set gone_at = now()
            where id = (select contact_id from conversation where id = %(id)s)""",
        {"id": conversation_id},
    )


async def drop_bots(conn: Connection, conversation_id: UUID) -> None:
    """Drop what the bot still wanted to say: a person has the conversation."""
    await conn.execute(
        """update delivery set state = 'dropped', finished_at = now()
            where conversation_id = %(id)s and author = 'bot' and state in ('pending', 'held')""",
        {"id": conversation_id},
    )


async def carry_epoch(conn: Connection, conversation_id: UUID, epoch: int) -> None:
    """Let what is on its way pass a change of holder that the bot itself made."""
    await conn.execute(
        """update delivery set epoch = %(epoch)s
            where conversation_id = %(id)s
              and state in ('pending', 'held', 'sending', 'uncertain')""",
        {"id": conversation_id, "epoch": epoch},
    )


async def extend_leases(conn: Connection, owner: str, lease_seconds: float) -> None:
    """Keep all deliveries that a process is sending."""
    await conn.execute(
        """update delivery set lease_until = now() + %(lease)s
            where lease_owner = %(owner)s and state = 'sending'""",
        {"owner": owner, "lease": timedelta(seconds=lease_seconds)},
    )


async def doubt_abandoned(conn: Connection) -> int:
    """Mark as uncertain what a sender was sending when it died; return how many."""
    cursor = await conn.execute(
        """update delivery
              set state = 'uncertain', lease_until = null, lease_owner = null, due_at = now(),
                  error = 'the sender ended while it was sending'
            where state = 'sending' and lease_until < now()"""
    )
    return cursor.rowcount


async def expire(conn: Connection) -> int:
    """End what is too old to be sent; return how many."""
    cursor = await conn.execute(
        """update delivery set state = 'expired', finished_at = now()
            where state in ('pending', 'held') and expires_at < now()"""
    )
    return cursor.rowcount


DUE_INBOXES: LiteralString = """
    select distinct i.channel, i.id
      from delivery d join inbox i on i.id = d.inbox_id
     where i.active and d.due_at <= now() - %(grace)s
       and (d.state = 'pending' or d.state = 'uncertain' and d.looked_up_at is null)
"""


async def due_inboxes(conn: Connection, grace_seconds: float) -> list[tuple[str, InboxId]]:
    """Return the channel and id of inboxes in which something waits to be sent or looked up."""
    cursor = await conn.execute(DUE_INBOXES, {"grace": timedelta(seconds=grace_seconds)})
    return [(row[0], InboxId(row[1])) for row in await cursor.fetchall()]


@dataclass(frozen=True)
class TroubledDelivery:
    """A delivery that staff should look at."""

    id: DeliveryId
    conversation_id: UUID
    inbox: str
    state: str
    error: str
    attempts: int
    created_at: datetime


async def troubled(conn: Connection, limit: int) -> list[TroubledDelivery]:
    """Return deliveries that are held, uncertain or failed, the latest first."""
    async with conn.cursor(row_factory=class_row(TroubledDelivery)) as cursor:
        await cursor.execute(
            """select d.id, d.conversation_id, i.name as inbox, d.state,
                      coalesce(d.error, '') as error, d.attempts, d.created_at
                 from delivery d join inbox i on i.id = d.inbox_id
                where d.state in ('held', 'uncertain', 'failed')
                order by d.created_at desc limit %(limit)s""",
            {"limit": limit},
        )
        return await cursor.fetchall()


async def resend(conn: Connection, delivery_id: UUID) -> InboxId | None:
    """Send a failed or uncertain delivery again, because staff say so."""
    cursor = await conn.execute(
        """update delivery d set state = 'pending', due_at = now(), attempts = 0, error = null,
                  finished_at = null, looked_up_at = null, expires_at = now() + interval '1 day',
                  epoch = (select c.epoch from conversation c where c.id = d.conversation_id)
            where id = %(id)s and state in ('failed', 'uncertain', 'held', 'expired')
           returning inbox_id""",
        {"id": delivery_id},
    )
    row = await cursor.fetchone()
    return None if row is None else InboxId(row[0])
