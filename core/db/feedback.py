"""What customers think of replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from core.db.connect import Connection
from core.types import ConversationId, InboxId, MessageId, Verdict

FIND_RATED: LiteralString = """
    select m.id from message m
      join conversation c on c.id = m.conversation_id
     where m.inbox_id = %(inbox_id)s and m.author <> 'customer' and c.chat = %(chat)s
       and m.id = coalesce(%(message_id)s, (
             select d.message_id from post p join delivery d on d.id = p.delivery_id
              where p.inbox_id = %(inbox_id)s and p.chat = %(chat)s
                and p.external_id = %(external_id)s))
"""

STORE_FEEDBACK: LiteralString = """
    with person as (
        insert into contact (inbox_id, external_id, name)
        values (%(inbox_id)s, %(sender)s, %(sender_name)s)
        on conflict on constraint contact_external_key do update
           set name = coalesce(nullif(excluded.name, ''), contact.name)
        returning id
    )
    insert into feedback (inbox_id, event_id, message_id, contact_id, verdict)
    select %(inbox_id)s, %(event_id)s, %(message_id)s, person.id, %(verdict)s from person
     where not exists (select from feedback
                        where inbox_id = %(inbox_id)s and event_id = %(event_id)s)
    on conflict on constraint feedback_message_key do update
       set verdict = excluded.verdict, event_id = excluded.event_id, created_at = now()
    returning id
"""


async def rated_message(
    conn: Connection,
    inbox_id: InboxId,
    chat: str,
    *,
    message_id: MessageId | None,
    external_id: str | None,
) -> MessageId | None:
    """Return the message of ours that a verdict is about, by our id or by the platform's."""
    cursor = await conn.execute(
        FIND_RATED,
        {
            "inbox_id": inbox_id,
            "chat": chat,
            "message_id": message_id,
            "external_id": external_id,
        },
    )
    row = await cursor.fetchone()
    return None if row is None else MessageId(row[0])


async def store_feedback(
    conn: Connection,
    inbox_id: InboxId,
    message_id: MessageId,
    *,
    event_id: str,
    sender: str,
    sender_name: str,
    verdict: str,
) -> bool:
    """Store a verdict, the last one of a person standing; False if the event was stored before."""
    cursor = await conn.execute(
        STORE_FEEDBACK,
        {
            "inbox_id": inbox_id,
            "message_id": message_id,
            "event_id": event_id,
            "sender": sender,
            "sender_name": sender_name,
            "verdict": verdict,
        },
    )
    return await cursor.fetchone() is not None


async def verdicts(
    conn: Connection, conversation_id: ConversationId
) -> Mapping[MessageId, Verdict]:
    """Return the verdicts on the replies of a conversation."""
    cursor = await conn.execute(
        """select f.message_id, f.verdict from feedback f join message m on m.id = f.message_id
            where m.conversation_id = %(id)s order by f.created_at""",
        {"id": conversation_id},
    )
    return {MessageId(row[0]): Verdict(row[1]) for row in await cursor.fetchall()}
