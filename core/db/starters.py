"""Questions that a customer may begin with."""

from __future__ import annotations

from typing import LiteralString

from core.db.connect import Connection
from core.types import KnowledgeBaseId

# One a subject (the first tag), those tagged `starter` first, then the largest subjects; of each
# the entry that has been there longest, since staff write the commonest questions first.
STARTERS: LiteralString = """
    select question from (
        select distinct on (coalesce(tags[1], id))
               question, 'starter' = any(tags) as chosen, created_at,
               count(*) over (partition by tags[1]) as others
          from faq_entry
         where knowledge_base_id = %(base_id)s and status = 'published'
           and split_part(lower(locale), '-', 1) = %(language)s
           and coalesce(valid_from, now()) <= now() and coalesce(valid_until, now()) >= now()
           and entity is null and length(question) <= %(longest)s
         order by coalesce(tags[1], id), 'starter' = any(tags) desc, created_at, id) subject
     order by chosen desc, others desc, created_at limit %(limit)s
"""


async def starters(
    conn: Connection, base_id: KnowledgeBaseId, language: str, *, limit: int, longest: int = 60
) -> list[str]:
    """Return a few published questions of a base in a language, each of another subject."""
    cursor = await conn.execute(
        STARTERS,
        {"base_id": base_id, "language": language, "limit": limit, "longest": longest},
    )
    return [row[0] for row in await cursor.fetchall()]
