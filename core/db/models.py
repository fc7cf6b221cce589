"""Versions of models, the bytes of their files by hash, and which version serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection
from core.types import KnowledgeBaseId, ModelKind

CHANNEL: LiteralString = "deskhand_models"
"""Notified at each promotion."""


@dataclass(frozen=True)
class StoredFile:
    """A file of an artefact."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ModelVersion:
    """A registered artefact; nothing of it ever changes but what was found out about it.

    Attributes:
        base_id: The only base that it was made for; None for all.
        parent: The name of the version that served when it was registered.
        files: By their path within the folder, with `/` between its parts.
        url: The folder of the files that are too large for the database.
        data_sha256: Of what it was trained on; `unknown` where nobody knows.
    """

    id: int
    name: str
    kind: ModelKind
    files: Mapping[str, StoredFile]
    data_sha256: str
    base_id: KnowledgeBaseId | None = None
    parent: str | None = None
    url: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    author: str = ""
    created_at: datetime | None = None

    @property
    def size_bytes(self) -> int:
        """Of all files."""
        return sum(file.size_bytes for file in self.files.values())


@dataclass(frozen=True)
class Promotion:
    """What serves a base since when.

    Attributes:
        base_id: None for all bases that have no promotion of their own.
        version: The version's name; None for what ships with the product.
        is_rollback: It took back the promotion before.
    """

    id: int
    kind: ModelKind
    base_id: KnowledgeBaseId | None
    version: str | None
    why: str
    author: str
    created_at: datetime
    is_rollback: bool = False


VERSION: LiteralString = """
    select v.id, v.name, v.kind, v.files, v.data_sha256, v.knowledge_base_id as base_id,
           p.name as parent, v.url, v.settings, v.metrics, v.author, v.created_at
      from model_version v left join model_version p on p.id = v.parent_id
"""


def _version(row: Mapping[str, Any]) -> ModelVersion:
    files = {name: StoredFile(**file) for name, file in row["files"].items()}
    fields: dict[str, Any] = {**row, "files": files, "kind": ModelKind(row["kind"])}
    return ModelVersion(**fields)


async def version(conn: Connection, name: str) -> ModelVersion | None:
    """Return a version by its name."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(VERSION + " where v.name = %(name)s", {"name": name})
        row = await cursor.fetchone()
        return None if row is None else _version(row)


async def versions(conn: Connection, kind: ModelKind | None = None) -> list[ModelVersion]:
    """Return all versions, or those of a kind, the newest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            VERSION
            + """ where %(kind)s::text is null or v.kind = %(kind)s
                  order by v.created_at desc, v.id desc""",
            {"kind": kind},
        )
        return [_version(row) for row in await cursor.fetchall()]


async def insert(conn: Connection, made: ModelVersion) -> None:
    """Add a version; its blobs are put in the same transaction, so that none is half there.

    Args:
        conn: The connection.
        made: Its `id` and `created_at` are given by the database.

    Raises:
        UniqueViolation: The name is taken.
    """
    await conn.execute(
        """insert into model_version (name, kind, knowledge_base_id, parent_id, files, url,
                                      data_sha256, settings, metrics, author)
           values (%(name)s, %(kind)s, %(base_id)s,
                   (select id from model_version where name = %(parent)s), %(files)s, %(url)s,
                   %(data_sha256)s, %(settings)s, %(metrics)s, %(author)s)""",
        {
            "name": made.name,
            "kind": made.kind,
            "base_id": made.base_id,
            "parent": made.parent,
            "files": Jsonb(
                {
                    name: {"sha256": file.sha256, "size_bytes": file.size_bytes}
                    for name, file in made.files.items()
                }
            ),
            "url": made.url,
            "data_sha256": made.data_sha256,
            "settings": Jsonb(dict(made.settings)),
            "metrics": Jsonb(dict(made.metrics)),
            "author": made.author,
        },
    )


async def note(
    conn: Connection, name: str, *, settings: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Add what a frozen evaluation found out about a version."""
    await conn.execute(
        """update model_version set settings = settings || %(settings)s,
                                    metrics = metrics || %(metrics)s
            where name = %(name)s""",
        {"name": name, "settings": Jsonb(dict(settings)), "metrics": Jsonb(dict(metrics))},
    )


async def missing_blobs(conn: Connection, hashes: Sequence[str]) -> set[str]:
    """Return which of these hashes have no bytes yet."""
    cursor = await conn.execute(
        "select sha256 from model_blob where sha256 = any(%(hashes)s)", {"hashes": list(hashes)}
    )
    return set(hashes) - {row[0] for row in await cursor.fetchall()}


async def put_blob(conn: Connection, sha256: str, content: bytes) -> None:
    """Keep the bytes of a file under their hash."""
    await conn.execute(
        """insert into model_blob (sha256, content, size_bytes)
           values (%(sha256)s, %(content)b, %(size)s) on conflict (sha256) do nothing""",
        {"sha256": sha256, "content": content, "size": len(content)},
    )


async def blob(conn: Connection, sha256: str) -> bytes | None:
    """Return the bytes with a hash."""
    async with conn.cursor(binary=True) as cursor:
        await cursor.execute(
            "select content from model_blob where sha256 = %(sha256)s", {"sha256": sha256}
        )
        row = await cursor.fetchone()
        return None if row is None else bytes(row[0])


ROLLBACK: LiteralString = "rollback: "
"""How the reason of a rollback begins; `add_promotion` alone writes it."""

PROMOTION: LiteralString = """
    p.id, p.kind, p.knowledge_base_id as base_id, v.name as version, p.why, p.author,
    p.created_at, starts_with(p.why, 'rollback: ') as is_rollback
    from model_promotion p left join model_version v on v.id = p.model_version_id
"""


def _promotion(row: Mapping[str, Any]) -> Promotion:
    fields: dict[str, Any] = {**row, "kind": ModelKind(row["kind"])}
    return Promotion(**fields)


async def serving(conn: Connection) -> list[Promotion]:
    """Return the latest promotion of each kind and base; what has none is what ships."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""select distinct on (p.kind, p.knowledge_base_id) {PROMOTION}
                 order by p.kind, p.knowledge_base_id, p.id desc"""
        )
        return [_promotion(row) for row in await cursor.fetchall()]


async def promotions(
    conn: Connection, kind: ModelKind, base_id: KnowledgeBaseId | None
) -> list[Promotion]:
    """Return what was promoted for a kind and base, the oldest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""select {PROMOTION}
                 where p.kind = %(kind)s and p.knowledge_base_id is not distinct from %(base_id)s
                 order by p.id""",
            {"kind": kind, "base_id": base_id},
        )
        return [_promotion(row) for row in await cursor.fetchall()]


async def lock(conn: Connection) -> None:
    """Let nobody else promote until the end of this transaction."""
    await conn.execute(
        "select pg_advisory_xact_lock(hashtextextended('deskhand_model_promotion', 0))"
    )


async def add_promotion(
    conn: Connection,
    kind: ModelKind,
    base_id: KnowledgeBaseId | None,
    name: str | None,
    *,
    why: str,
    author: str,
    is_rollback: bool = False,
) -> None:
    """Let a version serve (None: what ships), and tell all workers when this commits."""
    reason = why.removeprefix(ROLLBACK)
    await conn.execute(
        """insert into model_promotion (kind, knowledge_base_id, model_version_id, why, author)
           values (%(kind)s, %(base_id)s,
                   (select id from model_version where name = %(name)s), %(why)s, %(author)s)""",
        {
            "kind": kind,
            "base_id": base_id,
            "name": name,
            "why": ROLLBACK + reason if is_rollback else reason,
            "author": author,
        },
    )
    await conn.execute(
        "select pg_notify(%(channel)s, %(kind)s)", {"channel": CHANNEL, "kind": str(kind)}
    )
