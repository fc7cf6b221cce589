"""What staff choose for a knowledge base as a whole; workers read it with the next turn."""

from __future__ import annotations

from collections.abc import Sequence

from core.db import faq, inboxes
from core.db.connect import Database
from core.errors import InvalidInput
from core.types import KnowledgeBase, ReplyStyle


async def overview(database: Database) -> Sequence[KnowledgeBase]:
    """Return all knowledge bases."""
    async with database.transaction() as conn:
        return await inboxes.bases(conn)


async def set_style(
    database: Database, style: ReplyStyle | None, *, base: str = "default"
) -> KnowledgeBase:
    """Choose how a base's answers are worded; None leaves it to the process's setting.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        await faq.lock_base(conn, base)  # says so if there is none
        await inboxes.set_style(conn, base, style)
        return await inboxes.base_named(conn, base)


async def set_tolerated_error(
    database: Database, tolerated: float, *, base: str = "default"
) -> KnowledgeBase:
    """Choose the share of wrong answers that a base accepts.

    Raises:
        InvalidInput: It is not between 0 and 1.
        NotFound: There is no such base.
    """
    if not 0 < tolerated < 1:
        raise InvalidInput(
            f"tolerated_error {tolerated:g} is no share; write 5% as 0.05.",
            field="tolerated_error",
        )
    async with database.transaction() as conn:
        await faq.lock_base(conn, base)
        await inboxes.set_tolerated_error(conn, base, tolerated)
        return await inboxes.base_named(conn, base)
