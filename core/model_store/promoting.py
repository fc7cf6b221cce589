"""Which version serves, and how that changes: every change is a new row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.db import inboxes, models
from core.db.connect import Connection, Database
from core.db.models import ModelVersion, Promotion
from core.errors import Conflict, InvalidInput, NotFound
from core.types import KnowledgeBaseId, ModelKind

log = logging.getLogger(__name__)

SHIPPED = "shipped"
"""How commands call what comes with the product."""
NOT_COMPARED = ""
FOR_ALL = frozenset({ModelKind.ENCODER, ModelKind.VERIFIER})
"""One of these serves a whole worker, and so all of its bases."""


def effective(
    rows: Sequence[Promotion], kind: ModelKind, base_id: KnowledgeBaseId | None
) -> str | None:
    """Return what serves a base: its own version, else the one for all, else what ships (None)."""
    latest = {(row.kind, row.base_id): row.version for row in rows}
    return latest.get((kind, base_id)) or latest.get((kind, None))


async def find(database: Database, name: str) -> ModelVersion:
    """Return a version by its name.

    Raises:
        NotFound: There is none.
    """
    async with database.transaction() as conn:
        return await _found(conn, name)


async def _found(conn: Connection, name: str) -> ModelVersion:
    found = await models.version(conn, name)
    if found is None:
        raise NotFound(
            f"There is no model version {name}; `deskhand models list` shows all.", field="name"
        )
    return found


async def versions(database: Database, kind: ModelKind | None = None) -> list[ModelVersion]:
    """Return all versions, the newest first."""
    async with database.transaction() as conn:
        return await models.versions(conn, kind)


async def note(
    database: Database, name: str, *, settings: Mapping[str, Any], metrics: Mapping[str, Any]
) -> None:
    """Add what was found out about a version later, such as its frozen evaluation."""
    async with database.transaction() as conn:
        await models.note(conn, name, settings=settings, metrics=metrics)


async def serving(
    database: Database, kind: ModelKind, base_id: KnowledgeBaseId | None = None
) -> ModelVersion | None:
    """Return the version that serves a base (None: all that have no own), None for what ships."""
    async with database.transaction() as conn:
        name = effective(await models.serving(conn), kind, base_id)
        return None if name is None else await _found(conn, name)


async def history(
    database: Database, kind: ModelKind, base_id: KnowledgeBaseId | None = None
) -> list[Promotion]:
    """Return the promotions of a kind and base, the oldest first."""
    async with database.transaction() as conn:
        return await models.promotions(conn, kind, base_id)


async def promote(
    database: Database,
    name: str,
    *,
    base: str | None = None,
    why: str,
    author: str = "",
    instead_of: str | None = NOT_COMPARED,
) -> ModelVersion:
    """Let a version serve; whether it is good enough was decided before.

    Args:
        database: The truth; workers are told when this commits.
        name: The version.
        base: The knowledge base; the version's own base, or all bases, when not given.
        why: The reason, for the record.
        author: Who decided.
        instead_of: The version that it was compared with (None: what ships): refused if another
            one serves by now. Not compared when not given.

    Raises:
        NotFound: There is no such version or base.
        InvalidInput: It was made for another base, or its kind is for all bases.
        Conflict: Something else was promoted meanwhile.
    """
    async with database.transaction() as conn:
        await models.lock(conn)
        version = await _found(conn, name)
        base_id = await target(conn, version, base)
        rows = await models.serving(conn)
        now = effective(rows, version.kind, base_id)
        if instead_of != NOT_COMPARED and instead_of != now:
            raise Conflict(
                f"{now or 'What ships'} was promoted meanwhile; compare with it and try again."
            )
        if {(row.kind, row.base_id): row.version for row in rows}.get(
            (version.kind, base_id)
        ) != name:
            await models.add_promotion(conn, version.kind, base_id, name, why=why, author=author)
    log.info("Model promoted", extra={"action": "model_promoted", "model": name})
    return version


async def target(
    conn: Connection, version: ModelVersion, base: str | None
) -> KnowledgeBaseId | None:
    """Return the base for which a version would be promoted, None for all.

    Raises:
        InvalidInput: It was made for another base, or its kind is for all bases.
        NotFound: There is no such base.
    """
    if version.kind is ModelKind.VERIFIER:
        raise InvalidInput(
            "Workers check with the verifier that ships and follow no other; measure this one with "
            "`deskhand eval verifier --weights`.",
            field="name",
        )
    if base is None:
        return version.base_id
    if version.kind in FOR_ALL:
        raise InvalidInput(
            f"A version of the kind {version.kind} serves all bases; leave --base out.",
            field="base",
        )
    base_id = (await inboxes.base_named(conn, base)).id
    if version.base_id not in (None, base_id):
        raise InvalidInput(f"{version.name} was made for another base than {base}.", field="base")
    return base_id


async def rollback(
    database: Database, kind: ModelKind, *, base: str | None = None, why: str, author: str = ""
) -> tuple[str | None, str | None]:
    """Let the version before serve again; return (what served, what serves), None is what ships.

    A second rollback goes one further back.

    Raises:
        InvalidInput: Nothing was promoted, or all of it is taken back.
    """
    async with database.transaction() as conn:
        await models.lock(conn)
        base_id = (await inboxes.base_named(conn, base)).id if base else None
        standing = _standing(await models.promotions(conn, kind, base_id))
        if len(standing) == 1:
            whose = f"the base {base}" if base else "all bases"
            raise InvalidInput(
                f"There is no promotion of the kind {kind} for {whose} to take back."
            )
        now, before = standing[-1], standing[-2]
        await models.add_promotion(
            conn, kind, base_id, before, why=why, author=author, is_rollback=True
        )
    log.info("Model rolled back", extra={"action": "model_rolled_back", "model": now})
    return now, before


def _standing(past: Sequence[Promotion]) -> list[str | None]:
    """Return what served one after the other, without what was taken back; first what ships."""
    stack: list[str | None] = [None]
    for promotion in past:
        if promotion.is_rollback and len(stack) > 1:
            stack.pop()
        else:
            stack.append(promotion.version)
    return stack


@dataclass(frozen=True)
class Overview:
    """All versions and what serves, with the names of the bases."""

    versions: Sequence[ModelVersion]
    serving: Sequence[Promotion]
    bases: Mapping[KnowledgeBaseId, str]


async def overview(database: Database) -> Overview:
    """Return all versions, the latest promotion of each kind and base, and the bases' names."""
    async with database.transaction() as conn:
        return Overview(
            await models.versions(conn),
            await models.serving(conn),
            {base.id: base.name for base in await inboxes.bases(conn)},
        )
