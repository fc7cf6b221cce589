"""Messages that their writers changed or took back while they wait for an answer."""

from __future__ import annotations

from typing import Any, LiteralString

from psycopg.rows import class_row

from core.db.connect import Connection
from core.db.messages import StoredMessage
from core.types import InboxId

# The conversation's row first, as intake and commit do it: an edit is before a reply or after it.
LOCK: LiteralString = """
    select from conversation
     where id = (select conversation_id from message
                  where inbox_id = %(inbox_id)s and chat = %(chat)s
                    and external_id = %(external_id)s and author = 'customer')
       for update
"""

REPLACE_TEXT: LiteralString = """
    with changed as (
        update message m set text = %(text)s, kind = 'text'
          from turn t
         where m.inbox_id = %(inbox_id)s and m.chat = %(chat)s and m.external_id = %(external_id)s
           and m.author = 'customer' and m.kind <> 'deleted' and m.text <> %(text)s
           and t.id = m.turn_id and t.state = 'open'
        returning m.id, m.conversation_id, m.turn_id
    ), told as (
        update turn t set input_version = t.input_version + 1 from changed
         where t.id = changed.turn_id
    )
    select id, conversation_id, turn_id from changed
"""

# The row stays: a late copy of the event must still find that it was stored.
TAKE_BACK: LiteralString = """
    with changed as (
        update message m set text = '', kind = 'deleted'
          from turn t
         where m.inbox_id = %(inbox_id)s and m.chat = %(chat)s and m.external_id = %(external_id)s
           and m.author = 'customer' and m.kind <> 'deleted'
           and t.id = m.turn_id and t.state = 'open'
        returning m.id, m.conversation_id, m.turn_id
    ), left_over as (
        select count(*) as messages from message m join changed on m.turn_id = changed.turn_id
         where m.id <> changed.id and m.author = 'customer' and m.kind <> 'deleted'
    ), told as (
        update turn t
           set input_version = t.input_version + 1,
               state = case when left_over.messages > 0 then t.state else 'silent' end,
               finished_at = case when left_over.messages > 0 then null else now() end
          from changed, left_over
         where t.id = changed.turn_id
    )
    select id, conversation_id, turn_id from changed
"""


async def replace_text(
    conn: Connection, inbox_id: InboxId, chat: str, external_id: str, text: str
) -> StoredMessage | None:
    """Give a message of an open turn its new words.

    Returns:
        None if there is no such message, it was answered, or it says the same.
    """
    return await _change(conn, REPLACE_TEXT, inbox_id, chat, external_id, {"text": text})


async def take_back(
    conn: Connection, inbox_id: InboxId, chat: str, external_id: str
) -> StoredMessage | None:
    """Remove a message's words from an open turn; a turn without any left is closed.

    Returns:
        None if there is no such message, or it was answered.
    """
    return await _change(conn, TAKE_BACK, inbox_id, chat, external_id, {})


async def _change(
    conn: Connection,
    statement: LiteralString,
    inbox_id: InboxId,
    chat: str,
    external_id: str,
    more: dict[str, Any],
) -> StoredMessage | None:
    params = {"inbox_id": inbox_id, "chat": chat, "external_id": external_id, **more}
    await conn.execute(LOCK, params)
    async with conn.cursor(row_factory=class_row(StoredMessage)) as cursor:
        await cursor.execute(statement, params)
        return await cursor.fetchone()
