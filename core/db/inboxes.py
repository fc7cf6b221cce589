"""Knowledge bases, inboxes and contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, LiteralString

from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection
from core.errors import NotFound
from core.types import Inbox, InboxId, KnowledgeBase, KnowledgeBaseId, ReplyStyle

# Staff's list comes with the base, so that a change of it holds from the next turn on.
BASE_COLUMNS: LiteralString = """id, name, locale, style, tolerated_error, texts,
    array(select phrase from blocked_phrase b where b.knowledge_base_id = knowledge_base.id
           order by lower(phrase)) as blocked"""


def base_from_row(row: Mapping[str, Any]) -> KnowledgeBase:
    """Return a row of `knowledge_base` as our type."""
    return KnowledgeBase(
        id=KnowledgeBaseId(row["id"]),
        name=row["name"],
        locale=row["locale"],
        style=ReplyStyle(row["style"]) if row["style"] else None,
        tolerated_error=row["tolerated_error"],
        texts=row["texts"],
        blocked=tuple(row["blocked"]),
    )


async def base_named(conn: Connection, name: str) -> KnowledgeBase:
    """Return the knowledge base of that name.

    Raises:
        NotFound: There is none.
    """
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"select {BASE_COLUMNS} from knowledge_base where name = %(name)s", {"name": name}
        )
        row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no knowledge base named {name}.", field="base")
    return base_from_row(row)


async def bases(conn: Connection) -> list[KnowledgeBase]:
    """Return all knowledge bases."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(f"select {BASE_COLUMNS} from knowledge_base order by id")
        return [base_from_row(row) for row in await cursor.fetchall()]


async def base_of(conn: Connection, base_id: KnowledgeBaseId) -> KnowledgeBase:
    """Return a knowledge base by its id."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"select {BASE_COLUMNS} from knowledge_base where id = %(id)s", {"id": base_id}
        )
        row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no knowledge base {base_id}.", field="base")
    return base_from_row(row)


async def set_style(conn: Connection, base: str, style: ReplyStyle | None) -> None:
    """Choose how a base's answers are worded; None leaves it to the process."""
    await conn.execute(
        "update knowledge_base set style = %(style)s where name = %(base)s",
        {"style": style, "base": base},
    )


async def set_tolerated_error(conn: Connection, base: str, tolerated: float) -> None:
    """Choose the share of wrong answers that a base accepts."""
    await conn.execute(
        "update knowledge_base set tolerated_error = %(tolerated)s where name = %(base)s",
        {"tolerated": tolerated, "base": base},
    )


SET_TEXT: LiteralString = """
    update knowledge_base
       set texts = jsonb_set(texts, array[%(locale)s],
                             coalesce(texts -> %(locale)s, '{}') || %(change)s)
     where name = %(base)s
"""

UNSET_TEXT: LiteralString = """
    update knowledge_base set texts = texts #- array[%(locale)s, %(key)s] where name = %(base)s
"""


async def set_text(conn: Connection, base: str, locale: str, key: str, text: str | None) -> None:
    """Change a system text of a base; None brings the product's own back."""
    await conn.execute(
        SET_TEXT if text is not None else UNSET_TEXT,
        {"base": base, "locale": locale, "key": key, "change": Jsonb({key: text})},
    )


ENSURE_INBOX: LiteralString = """
    insert into inbox (name, channel, knowledge_base_id)
    select %(name)s, %(channel)s, id from knowledge_base where name = %(base)s
    on conflict on constraint inbox_name_key do update set channel = excluded.channel
    returning id, name, channel, knowledge_base_id, active, trouble
"""


async def ensure_inbox(conn: Connection, name: str, channel: str, base: str = "default") -> Inbox:
    """Return the inbox of that name, made if it is not there."""
    async with conn.cursor(row_factory=class_row(Inbox)) as cursor:
        await cursor.execute(ENSURE_INBOX, {"name": name, "channel": channel, "base": base})
        inbox = await cursor.fetchone()
    if inbox is None:
        raise NotFound(f"There is no knowledge base named {base}.", field="base")
    return inbox


async def inboxes(conn: Connection) -> list[Inbox]:
    """Return all inboxes."""
    async with conn.cursor(row_factory=class_row(Inbox)) as cursor:
        await cursor.execute(
            "select id, name, channel, knowledge_base_id, active, trouble from inbox order by id"
        )
        return await cursor.fetchall()


async def set_trouble(conn: Connection, inbox_id: InboxId, trouble: str | None) -> None:
    """Say what is wrong with an inbox, or that it is well again."""
    await conn.execute(
        """update inbox set trouble = %(trouble)s
            where id = %(id)s and trouble is distinct from %(trouble)s""",
        {"id": inbox_id, "trouble": trouble},
    )


async def switch_off(conn: Connection, inbox_id: InboxId, trouble: str) -> None:
    """Take an inbox out of service and hold what was to be sent through it."""
    await conn.execute(
        "update inbox set active = false, trouble = %(trouble)s where id = %(id)s",
        {"id": inbox_id, "trouble": trouble},
    )
    await conn.execute(
        "update delivery set state = 'held' where inbox_id = %(id)s and state = 'pending'",
        {"id": inbox_id},
    )


async def switch_on(conn: Connection, inbox_id: InboxId) -> None:
    """Put an inbox into service and release what was held."""
    await conn.execute(
        "update inbox set active = true, trouble = null where id = %(id)s", {"id": inbox_id}
    )
    await conn.execute(
        "update delivery set state = 'pending', due_at = now() "
        "where inbox_id = %(id)s and state = 'held'",
        {"id": inbox_id},
    )
