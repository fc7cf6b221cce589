"""Keeping a worker's indexes as the database has them: an edit is live within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from core.db import faq, inboxes, intents
from core.db.connect import Database
from core.errors import DeskhandError
from core.types import FaqEntry, KnowledgeBase, KnowledgeBaseId
from core.vectors import DatabaseVectors, Told, tell_nobody

log = logging.getLogger(__name__)

CHANNEL = "deskhand_faq"
RETRY_SECONDS = 1.0


class VectorCache(Protocol):
    """Vectors by the hash of their text, shared by all workers."""

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return the vectors that are known."""
        ...

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep vectors."""
        ...


class Refreshable(Protocol):
    """What holds indexes in memory."""

    async def refresh(
        self,
        base: KnowledgeBase,
        changes: Sequence[FaqEntry],
        *,
        removed: Sequence[str],
        intents: Sequence[tuple[str, str]] | None,
        vectors: VectorCache,
    ) -> None:
        """Take in what changed."""
        ...


class Indexer:
    """Brings changed entries and intents into this process's indexes.

    Args:
        database: The truth.
        indexes: What holds them in memory.
        encoder: The encoder's name; vectors of another mean nothing to it.
        told: Hears how many vectors are there of how many that are wanted.
    """

    def __init__(
        self, database: Database, indexes: Refreshable, encoder: str, told: Told = tell_nobody
    ) -> None:
        self._database = database
        self._indexes = indexes
        self._vectors = DatabaseVectors(database, encoder, told)
        self._versions: dict[KnowledgeBaseId, int] = {}
        self._changed = asyncio.Event()
        self._lock = asyncio.Lock()

    def serve(self, indexes: Refreshable) -> None:
        """Go on with something that shares the indexes of what was given before."""
        self._indexes = indexes

    async def refresh(self) -> None:
        """Take in whatever changed in any base since the last time."""
        async with self._lock:
            await self._refresh()

    async def _refresh(self) -> None:
        async with self._database.transaction() as conn:
            bases = await inboxes.bases(conn)
        for base in bases:
            await self._refresh_base(base)

    async def _refresh_base(self, base: KnowledgeBase) -> None:
        known = self._versions.get(base.id)
        async with self._database.transaction() as conn:
            version, entries = await faq.changed_since(conn, base.id, known or 0)
            if version == known:
                return
            examples = (
                await intents.load(conn, base.id)
                if known is None
                else await intents.changed_since(conn, base.id, known)
            )
        await self._indexes.refresh(
            base,
            [entry for entry in entries if entry.status == "published"],
            removed=[entry.id for entry in entries if entry.status != "published"],
            intents=None if examples is None else [(e.text, e.label) for e in examples],
            vectors=self._vectors,
        )
        self._versions[base.id] = version
        log.info(
            "Index refreshed",
            extra={
                "action": "index_refreshed",
                "base": base.name,
                "entries": len(entries),
                "version": version,
            },
        )

    async def follow(self) -> None:
        """Refresh at each change, for ever."""
        listening = asyncio.create_task(
            self._database.listen([CHANNEL], self._heard, ready=asyncio.Event())
        )
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                await self._refresh_or_retry()
        finally:
            listening.cancel()

    def _heard(self, channel: str, payload: str) -> None:
        self._changed.set()

    async def _refresh_or_retry(self) -> None:
        try:
            await self.refresh()
        except DeskhandError as error:
            log.warning(
                "Refresh put off", extra={"action": "refresh_put_off", "reason": str(error)}
            )
            await asyncio.sleep(RETRY_SECONDS)
            self._changed.set()
        except Exception:
            log.exception("Refresh failed", extra={"action": "refresh_failed"})
            await asyncio.sleep(RETRY_SECONDS)
            self._changed.set()
