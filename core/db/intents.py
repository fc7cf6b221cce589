"""Examples of what customers want, from which workers fit a base's intent classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from core.db.connect import Connection
from core.types import KnowledgeBaseId


@dataclass(frozen=True)
class Example:
    """A message and what it wants; the label `out_of_scope` is nothing that we serve."""

    text: str
    label: str
    locale: str = "en"


async def replace(
    conn: Connection, base_id: KnowledgeBaseId, examples: Sequence[Example], *, faq_version: int
) -> None:
    """Replace all examples of a base; the caller holds its lock and raised its version.

    Args:
        conn: In the transaction that called `core.db.faq.raise_version`.
        base_id: The base.
        examples: All that shall stand, each (label, text) once.
        faq_version: What `raise_version` returned.
    """
    await conn.execute(
        "delete from intent_example where knowledge_base_id = %(base_id)s", {"base_id": base_id}
    )
    await conn.execute(
        """insert into intent_example (knowledge_base_id, label, text, locale)
           select %(base_id)s, given.*
             from unnest(%(labels)s::text[], %(texts)s::text[], %(locales)s::text[]) as given""",
        {
            "base_id": base_id,
            "labels": [example.label for example in examples],
            "texts": [example.text for example in examples],
            "locales": [example.locale for example in examples],
        },
    )
    await conn.execute(
        """update knowledge_base set intents_changed_at_version = %(faq_version)s
            where id = %(base_id)s""",
        {"base_id": base_id, "faq_version": faq_version},
    )


async def load(conn: Connection, base_id: KnowledgeBaseId) -> list[Example]:
    """Return all examples of a base."""
    async with conn.cursor(row_factory=class_row(Example)) as cursor:
        await cursor.execute(
            """select text, label, locale from intent_example
                where knowledge_base_id = %(base_id)s order by label, text""",
            {"base_id": base_id},
        )
        return await cursor.fetchall()


async def changed_since(
    conn: Connection, base_id: KnowledgeBaseId, version: int
) -> list[Example] | None:
    """Return all examples of a base if they changed after a version of it, None if not."""
    cursor = await conn.execute(
        """select intents_changed_at_version > %(version)s from knowledge_base
            where id = %(base_id)s""",
        {"base_id": base_id, "version": version},
    )
    row = await cursor.fetchone()
    return await load(conn, base_id) if row is not None and row[0] else None
