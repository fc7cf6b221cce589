"""FAQ entries and their revisions; a base's version orders all changes of its entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from core.db.connect import Connection
from core.errors import NotFound
from core.faq_entries import FIELDS, normalised
from core.types import FaqEntry, KnowledgeBaseId, ReplyStyle

CHANNEL = "deskhand_faq"
"""The notification that a base's entries or intents changed; its payload is the base's id."""

COLUMNS: LiteralString = """id, question, alternates, answer, tags, locale, entity, source_url,
    status, style, valid_from, valid_until, not_for, version, updated_at"""


@dataclass(frozen=True)
class LockedBase:
    """A base whose row this transaction has locked: no other can change its entries meanwhile."""

    id: KnowledgeBaseId
    locale: str
    faq_version: int


@dataclass(frozen=True)
class Revision:
    """How an entry stood after a change.

    Attributes:
        version: The entry's version that the change made.
        action: `create`, `edit`, `archive`, `restore` or `import`.
    """

    version: int
    action: str
    author: str
    entry: FaqEntry
    created_at: datetime


@dataclass(frozen=True)
class Filter:
    """Which entries are wanted; without a status all but the archived ones."""

    status: str | None = None
    locale: str | None = None
    tag: str | None = None
    text: str | None = None


def _entry(row: Mapping[str, Any]) -> FaqEntry:
    changed: dict[str, Any] = {
        "alternates": tuple(row["alternates"]),
        "tags": tuple(row["tags"]),
        "not_for": tuple(row.get("not_for") or ()),  # revisions of before 0002 lack it
        "style": ReplyStyle(row["style"]) if row["style"] else None,
    }
    return FaqEntry(**{**row, **changed})


async def lock_base(conn: Connection, name: str) -> LockedBase:
    """Lock a base against other changes of its entries until the transaction ends.

    Raises:
        NotFound: There is no base of that name.
    """
    # `no key update`: an inbox that is made meanwhile refers to the row and need not wait
    cursor = await conn.execute(
        """select id, locale, faq_version from knowledge_base
            where name = %(name)s for no key update""",
        {"name": name},
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no knowledge base named {name}.", field="base")
    return LockedBase(KnowledgeBaseId(row[0]), row[1], row[2])


RAISE_VERSION: LiteralString = """
    update knowledge_base set faq_version = faq_version + 1 where id = %(base_id)s
    returning faq_version, pg_notify('deskhand_faq', id::text)
"""


async def raise_version(conn: Connection, base_id: KnowledgeBaseId) -> int:
    """Raise the version of a base that this transaction changes, and tell all workers."""
    cursor = await conn.execute(RAISE_VERSION, {"base_id": base_id})
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no knowledge base {base_id}.", field="base")
    return row[0]


async def entry(conn: Connection, base_id: KnowledgeBaseId, entry_id: str) -> FaqEntry | None:
    """Return an entry by its id."""
    found = await entries(conn, base_id, [entry_id])
    return found[0] if found else None


async def entries(conn: Connection, base_id: KnowledgeBaseId, ids: Sequence[str]) -> list[FaqEntry]:
    """Return the entries that exist among some ids."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""select {COLUMNS} from faq_entry
                 where knowledge_base_id = %(base_id)s and id = any(%(ids)s)""",
            {"base_id": base_id, "ids": list(ids)},
        )
        return [_entry(row) for row in await cursor.fetchall()]


# Of several entries with one question the living one is meant, then the oldest.
BY_QUESTION: LiteralString = f"""
    select distinct on (locale, normalised_question) {COLUMNS} from faq_entry
     where knowledge_base_id = %(base_id)s
       and (locale, normalised_question) in
           (select * from unnest(%(locales)s::text[], %(questions)s::text[]))
     order by locale, normalised_question, status = 'archived', created_at, id
"""


async def by_question(
    conn: Connection, base_id: KnowledgeBaseId, keys: Sequence[tuple[str, str]]
) -> list[FaqEntry]:
    """Return the entries that ask given questions, by (locale, normalised question)."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            BY_QUESTION,
            {
                "base_id": base_id,
                "locales": [locale for locale, _ in keys],
                "questions": [question for _, question in keys],
            },
        )
        return [_entry(row) for row in await cursor.fetchall()]


async def all_ids(conn: Connection, base_id: KnowledgeBaseId) -> set[str]:
    """Return the ids of all entries of a base, archived ones too."""
    cursor = await conn.execute(
        "select id from faq_entry where knowledge_base_id = %(base_id)s", {"base_id": base_id}
    )
    return {row[0] for row in await cursor.fetchall()}


# An entry as it now is, and the revision that keeps it.
SAVE: LiteralString = """
    with saved as (
        insert into faq_entry as e (knowledge_base_id, id, question, normalised_question,
                                    alternates, answer, tags, locale, entity, source_url, status,
                                    style, valid_from, valid_until, not_for,
                                    changed_at_version)
        values (%(base_id)s, %(id)s, %(question)s, %(normalised_question)s, %(alternates)s,
                %(answer)s, %(tags)s, %(locale)s, %(entity)s, %(source_url)s, %(status)s,
                %(style)s, %(valid_from)s, %(valid_until)s, %(not_for)s, %(faq_version)s)
        on conflict (knowledge_base_id, id) do update
           set question = excluded.question, normalised_question = excluded.normalised_question,
               alternates = excluded.alternates, answer = excluded.answer, tags = excluded.tags,
               locale = excluded.locale, entity = excluded.entity,
               source_url = excluded.source_url, status = excluded.status,
               style = excluded.style, valid_from = excluded.valid_from,
               valid_until = excluded.valid_until, not_for = excluded.not_for,
               changed_at_version = excluded.changed_at_version,
               version = e.version + 1, updated_at = clock_timestamp()
        returning knowledge_base_id, id, version, updated_at
    )
    insert into faq_revision (knowledge_base_id, entry_id, version, action, author, entry)
    select knowledge_base_id, id, version, %(action)s, %(author)s, %(snapshot)s from saved
    returning version, (select updated_at from saved)
"""


def _row(
    base_id: KnowledgeBaseId, entry: FaqEntry, faq_version: int, action: str, author: str
) -> dict[str, Any]:
    values = {name: getattr(entry, name) for name in FIELDS}
    return {
        **values,
        "base_id": base_id,
        "alternates": list(entry.alternates),
        "tags": list(entry.tags),
        "not_for": list(entry.not_for),
        "normalised_question": normalised(entry.question),
        "faq_version": faq_version,
        "action": action,
        "author": author,
        "snapshot": Jsonb(_snapshot(entry)),
    }


def _snapshot(entry: FaqEntry) -> dict[str, Any]:
    """Return what an entry says as JSON; `_revision` reads it back."""
    return {
        **{name: getattr(entry, name) for name in FIELDS},
        "alternates": list(entry.alternates),
        "tags": list(entry.tags),
        "not_for": list(entry.not_for),
        "valid_from": entry.valid_from.isoformat() if entry.valid_from else None,
        "valid_until": entry.valid_until.isoformat() if entry.valid_until else None,
    }


async def save(
    conn: Connection,
    base_id: KnowledgeBaseId,
    entry: FaqEntry,
    *,
    faq_version: int,
    action: str,
    author: str,
) -> FaqEntry:
    """Store an entry with its revision; the caller holds the base's lock.

    Args:
        conn: In the transaction that raised the base's version.
        base_id: The base.
        entry: As it shall be.
        faq_version: What `raise_version` returned.
        action: What is done to it.
        author: Who does it.

    Returns:
        The entry with its new version.
    """
    cursor = await conn.execute(SAVE, _row(base_id, entry, faq_version, action, author))
    row = await cursor.fetchone()
    if row is None:
        raise RuntimeError("insert returned nothing")
    return replace(entry, version=row[0], updated_at=row[1])


async def save_many(
    conn: Connection,
    base_id: KnowledgeBaseId,
    entries: Iterable[FaqEntry],
    *,
    faq_version: int,
    action: str,
    author: str,
) -> None:
    """Store many entries with their revisions, in one go over the wire."""
    async with conn.cursor() as cursor:
        await cursor.executemany(
            SAVE, [_row(base_id, each, faq_version, action, author) for each in entries]
        )


MATCHING: LiteralString = """
      from faq_entry
     where knowledge_base_id = %(base_id)s
       and (case when %(status)s::text is null then status <> 'archived'
                 else %(status)s in (status, 'all') end)
       and (%(locale)s::text is null or locale = %(locale)s)
       and (%(tag)s::text is null or %(tag)s = any(tags))
       and (%(pattern)s::text is null
            or concat_ws(E'\\n', id, question, answer, entity, array_to_string(alternates, E'\\n'))
               ilike %(pattern)s)
"""


def _conditions(base_id: KnowledgeBaseId, wanted: Filter) -> dict[str, Any]:
    pattern = None
    if wanted.text:
        literal = wanted.text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        pattern = f"%{literal}%"
    return {
        "base_id": base_id,
        "status": wanted.status,
        "locale": wanted.locale,
        "tag": wanted.tag,
        "pattern": pattern,
    }


async def page(
    conn: Connection, base_id: KnowledgeBaseId, wanted: Filter, *, limit: int, offset: int
) -> tuple[list[FaqEntry], int]:
    """Return entries, the newest first, and how many there are in all.

    The order does not change with an edit, so that nobody who turns pages misses an entry.
    """
    conditions = _conditions(base_id, wanted)
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"""select {COLUMNS} {MATCHING}
                 order by created_at desc, id limit %(limit)s offset %(offset)s""",
            {**conditions, "limit": limit, "offset": offset},
        )
        found = [_entry(row) for row in await cursor.fetchall()]
    count = await conn.execute(f"select count(*) {MATCHING}", conditions)
    total = await count.fetchone()
    return found, total[0] if total else 0


async def everything(conn: Connection, base_id: KnowledgeBaseId, wanted: Filter) -> list[FaqEntry]:
    """Return all entries of a base for an export, in the order in which they were made."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            f"select {COLUMNS} {MATCHING} order by created_at, id", _conditions(base_id, wanted)
        )
        return [_entry(row) for row in await cursor.fetchall()]


async def changed_since(
    conn: Connection, base_id: KnowledgeBaseId, version: int
) -> tuple[int, list[FaqEntry]]:
    """Return a base's version and the entries that changed after an older one.

    Drafts and archived entries are among them, so that readers drop what was published. Nothing
    is ever missed: a change holds the base's row from the raise of its version to its commit, so
    that versions commit in order, and the version is read before the entries: a change that
    commits in between is returned now and once more.

    Args:
        conn: The connection.
        base_id: The base.
        version: What the reader knows; 0 for nothing.
    """
    cursor = await conn.execute(
        "select faq_version from knowledge_base where id = %(base_id)s", {"base_id": base_id}
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"There is no knowledge base {base_id}.", field="base")
    async with conn.cursor(row_factory=dict_row) as entries_cursor:
        await entries_cursor.execute(
            f"""select {COLUMNS} from faq_entry
                 where knowledge_base_id = %(base_id)s and changed_at_version > %(version)s
                 order by changed_at_version, id""",  # by the index faq_entry_changed
            {"base_id": base_id, "version": version},
        )
        return row[0], [_entry(each) for each in await entries_cursor.fetchall()]


async def revisions(
    conn: Connection, base_id: KnowledgeBaseId, entry_id: str, *, version: int | None = None
) -> list[Revision]:
    """Return the revisions of an entry, or one of them, the latest first."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            """select version, action, author, entry, created_at from faq_revision
                where knowledge_base_id = %(base_id)s and entry_id = %(entry_id)s
                  and (%(version)s::integer is null or version = %(version)s)
                order by version desc""",
            {"base_id": base_id, "entry_id": entry_id, "version": version},
        )
        return [_revision(row) for row in await cursor.fetchall()]


def _revision(row: Mapping[str, Any]) -> Revision:
    kept: dict[str, Any] = row["entry"]
    moments = {
        name: datetime.fromisoformat(kept[name]) if kept[name] else None
        for name in ("valid_from", "valid_until")
    }
    entry = _entry({**kept, **moments, "version": row["version"], "updated_at": row["created_at"]})
    return Revision(row["version"], row["action"], row["author"], entry, row["created_at"])
