"""Vectors by the hash of their text, so that no text is encoded twice by any worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import LiteralString

from core.db.connect import Connection

PUT: LiteralString = """
    insert into embedding (encoder, text_hash, vector)
    select %(encoder)s, text_hash, vector::vector
      from unnest(%(hashes)s::bytea[], %(vectors)s::text[]) as given (text_hash, vector)
     order by text_hash                  -- two workers lock the rows in one order
    on conflict (encoder, text_hash) do nothing
"""


async def get_many(
    conn: Connection, encoder: str, hashes: Sequence[bytes]
) -> dict[bytes, list[float]]:
    """Return the vectors that are known, by the hash of their text.

    Args:
        conn: The connection.
        encoder: The encoder's name with its revision: other encoders' vectors mean nothing to it.
        hashes: Digests of the texts.
    """
    # real[] in binary form comes as floats at once; the text form would have to be parsed
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            """select text_hash, vector::real[] from embedding
                where encoder = %(encoder)s and text_hash = any(%(hashes)s)""",
            {"encoder": encoder, "hashes": list(hashes)},
        )
        return {bytes(row[0]): row[1] for row in await cursor.fetchall()}


async def put_many(
    conn: Connection, encoder: str, vectors: Mapping[bytes, Sequence[float]]
) -> None:
    """Keep vectors, by the hash of their text; what is there already stays."""
    await conn.execute(
        PUT,
        {
            "encoder": encoder,
            "hashes": list(vectors),
            "vectors": [
                "[" + ",".join(f"{value:.9g}" for value in vector) + "]"
                for vector in vectors.values()
            ],
        },
    )
