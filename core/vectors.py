"""Vectors of texts in the database, so that no text is encoded twice by anybody."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from core.db import embeddings
from core.db.connect import Database

Told = Callable[[int, int], None]
"""Called with how many vectors are there and how many are wanted."""


def tell_nobody(_there: int, _wanted: int) -> None:
    """Most callers show no progress."""


def digest(role: str, text: str) -> bytes:
    """Return the hash under which a text's vector is kept.

    Args:
        role: `query` for what customers say, `passage` for what is searched: some encoders make
            different vectors of the two.
        text: As it is encoded.
    """
    return hashlib.sha256(f"{role}: {text}".encode()).digest()


class DatabaseVectors:
    """Vectors by the hash of their text, in the table `embedding`.

    Args:
        database: Holds them.
        encoder: The encoder's name; vectors of another mean nothing to it.
        told: Hears of each step: whoever asks for vectors and puts what was missing makes progress.
    """

    def __init__(self, database: Database, encoder: str, told: Told = tell_nobody) -> None:
        self._database = database
        self._encoder = encoder
        self._told = told
        self._there = self._wanted = 0

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return the vectors that are known."""
        async with self._database.transaction() as conn:
            known = await embeddings.get_many(conn, self._encoder, hashes)
        self._wanted += len(hashes)
        self._count(len(known))
        return known

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep vectors."""
        async with self._database.transaction() as conn:
            await embeddings.put_many(conn, self._encoder, vectors)
        self._count(len(vectors))

    def _count(self, more: int) -> None:
        self._there += more
        self._told(min(self._there, self._wanted), self._wanted)
