"""FAQ entries: draft, edit, archive, restore, import and export.

Every change is one transaction that holds the row of its knowledge base: it raises the base's
version, stamps the entries it changes with it, keeps their revisions and notifies the workers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import islice

from core.db import faq as rows
from core.db import inboxes
from core.db.connect import Connection, Database
from core.db.faq import Filter, LockedBase, Revision
from core.errors import Conflict, InvalidInput, NotFound
from core.faq_entries import STATUSES, checked, free_id, normalised, same
from core.faq_files import BadRow, Row
from core.faq_warnings import warnings_of
from core.types import FaqEntry

log = logging.getLogger(__name__)

DEFAULT_BASE = "default"
BATCH_ROWS = 200
"""Rows of one transaction of an import; so long a single edit beside it may have to wait."""
REPORTED_ROWS = 1_000
"""Rejected rows that a report names; the rest are only counted."""
PAGE_LIMIT = 500


@dataclass(frozen=True)
class Rejected:
    """A row that was not imported, or one that staff should look at."""

    line: int
    reason: str


@dataclass
class Report:
    """What an import did.

    Attributes:
        name: Of the file.
        rejected: The first rows that were not imported, in the file's order.
        rejected_total: How many were not.
        ignored: Columns or keys that mean nothing to us.
        warned: The first rows that were imported and that staff should look at, with the reason.
        imported: False where a bad row kept a strict import from importing anything.
    """

    name: str
    created: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: list[Rejected] = field(default_factory=list[Rejected])
    rejected_total: int = 0
    ignored: set[str] = field(default_factory=set[str])
    warned: list[Rejected] = field(default_factory=list[Rejected])
    imported: bool = True

    def reject(self, line: int, reason: str) -> None:
        """Note a row that is not imported."""
        self.rejected_total += 1
        if len(self.rejected) < REPORTED_ROWS:
            self.rejected.append(Rejected(line, reason))

    def warn(self, line: int, reason: str) -> None:
        """Note something about a row that is imported."""
        if len(self.warned) < REPORTED_ROWS:
            self.warned.append(Rejected(line, reason))

    def lines(self) -> list[str]:
        """Return the rejected rows as messages, such as `faq.csv line 14: answer is blank.`"""
        return [f"{self.name} line {each.line}: {each.reason}" for each in self.rejected]


async def create(
    database: Database,
    values: Mapping[str, object],
    *,
    author: str,
    base: str = DEFAULT_BASE,
) -> FaqEntry:
    """Make an entry; a draft unless `values` say otherwise.

    Args:
        database: Where it is stored.
        values: By the names of `core.faq_entries.FIELDS`; without an id one is made.
        author: Who makes it.
        base: The knowledge base.

    Raises:
        InvalidInput: Something is wrong with the values.
        Conflict: Another entry has that id. The same entry made twice is returned.
    """
    async with database.transaction() as conn:
        locked = await rows.lock_base(conn, base)
        entry = checked(values, locale=locked.locale)
        if entry.id:
            there = await rows.entry(conn, locked.id, entry.id)
            if there is not None:
                if same(there, entry):
                    return there
                raise Conflict(
                    f"There is already an entry {entry.id}; edit it, or choose another id.",
                    field="id",
                )
        else:
            taken = await rows.all_ids(conn, locked.id)
            entry = replace(entry, id=free_id(entry.question, taken))
        return await _save(conn, locked, entry, "create", author)


async def edit(
    database: Database,
    entry_id: str,
    values: Mapping[str, object],
    *,
    author: str,
    version: int | None = None,
    base: str = DEFAULT_BASE,
) -> FaqEntry:
    """Change what `values` mention of an entry.

    Args:
        database: Where it is stored.
        entry_id: Which one.
        values: By the names of `core.faq_entries.FIELDS`.
        author: Who changes it.
        version: The version that the author saw.
        base: The knowledge base.

    Raises:
        NotFound: There is no such entry.
        Conflict: Somebody changed it since that version.
        InvalidInput: Something is wrong with the values.
    """
    async with database.transaction() as conn:
        locked = await rows.lock_base(conn, base)
        before = await _current(conn, locked, entry_id, version)
        entry = checked(values, like=before)
        if entry.id != entry_id:
            raise InvalidInput(
                "The id of an entry cannot be changed; replies refer to it.", field="id"
            )
        if same(entry, before):
            return before
        return await _save(conn, locked, entry, "edit", author)


async def archive(
    database: Database,
    entry_id: str,
    *,
    author: str,
    version: int | None = None,
    base: str = DEFAULT_BASE,
) -> FaqEntry:
    """Take an entry out of use; its revisions stay, and it can be restored.

    Raises:
        NotFound: There is no such entry.
        Conflict: Somebody changed it since that version.
    """
    async with database.transaction() as conn:
        locked = await rows.lock_base(conn, base)
        before = await _current(conn, locked, entry_id, version)
        if before.status == "archived":
            return before
        return await _save(conn, locked, replace(before, status="archived"), "archive", author)


async def restore(
    database: Database, entry_id: str, version: int, *, author: str, base: str = DEFAULT_BASE
) -> FaqEntry:
    """Bring an entry back to an earlier version of it, as a new version.

    Raises:
        NotFound: There is no such entry or version.
    """
    async with database.transaction() as conn:
        locked = await rows.lock_base(conn, base)
        before = await _current(conn, locked, entry_id, None)
        kept = await rows.revisions(conn, locked.id, entry_id, version=version)
        if not kept:
            raise NotFound(
                f"Entry {entry_id} has no version {version}; it has 1 to {before.version}.",
                field="version",
            )
        if same(kept[0].entry, before):
            return before
        return await _save(conn, locked, kept[0].entry, "restore", author)


async def get(database: Database, entry_id: str, *, base: str = DEFAULT_BASE) -> FaqEntry:
    """Return an entry.

    Raises:
        NotFound: There is no such entry.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        entry = await rows.entry(conn, found.id, entry_id)
    if entry is None:
        raise _no_entry(entry_id)
    return entry


async def history(
    database: Database, entry_id: str, *, base: str = DEFAULT_BASE
) -> Sequence[Revision]:
    """Return the revisions of an entry, the latest first.

    Raises:
        NotFound: There is no such entry.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        revisions = await rows.revisions(conn, found.id, entry_id)
    if not revisions:
        raise _no_entry(entry_id)
    return revisions


async def listed(
    database: Database,
    wanted: Filter | None = None,
    *,
    limit: int = 50,
    offset: int = 0,
    base: str = DEFAULT_BASE,
) -> tuple[Sequence[FaqEntry], int]:
    """Return entries, the newest first, and how many there are in all.

    Raises:
        InvalidInput: The status is none, or the page is out of bounds.
    """
    wanted = _checked_filter(wanted)
    if not 1 <= limit <= PAGE_LIMIT or not 0 <= offset < 2**31:
        raise InvalidInput(f"limit must be 1 to {PAGE_LIMIT}, offset 0 or more.", field="limit")
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        return await rows.page(conn, found.id, wanted, limit=limit, offset=offset)


async def exported(
    database: Database, wanted: Filter | None = None, *, base: str = DEFAULT_BASE
) -> Sequence[FaqEntry]:
    """Return all entries for an export, the archived ones only where they are asked for."""
    wanted = _checked_filter(wanted)
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        return await rows.everything(conn, found.id, wanted)


def _checked_filter(wanted: Filter | None) -> Filter:
    wanted = wanted or Filter()
    if wanted.status not in (None, "all", *STATUSES):
        raise InvalidInput(
            f"status {wanted.status} is none of {', '.join(STATUSES)}, all.", field="status"
        )
    for name in ("locale", "tag", "text"):
        if "\x00" in (getattr(wanted, name) or ""):
            raise InvalidInput(f"{name} holds a NUL character; remove it.", field=name)
    return wanted


async def _current(
    conn: Connection, locked: LockedBase, entry_id: str, version: int | None
) -> FaqEntry:
    entry = await rows.entry(conn, locked.id, entry_id)
    if entry is None:
        raise _no_entry(entry_id)
    if version is not None and version != entry.version:
        raise Conflict(
            f"Entry {entry_id} is at version {entry.version}, not {version}: somebody changed it. "
            "Read it again and repeat the change.",
            field="version",
        )
    return entry


async def _save(
    conn: Connection, locked: LockedBase, entry: FaqEntry, action: str, author: str
) -> FaqEntry:
    version = await rows.raise_version(conn, locked.id)
    saved = await rows.save(
        conn, locked.id, entry, faq_version=version, action=action, author=author
    )
    log.info(
        "FAQ entry changed",
        extra={"action": f"faq_{action}", "entry_id": saved.id, "version": saved.version},
    )
    return saved


def _no_entry(entry_id: str) -> NotFound:
    return NotFound(f"There is no entry {entry_id}.", field="id")


Rows = Callable[[], Iterable[Row | BadRow]]
"""A file that can be read from its start more than once."""


async def import_rows(
    database: Database,
    read: Rows,
    *,
    author: str,
    name: str = "file",
    base: str = DEFAULT_BASE,
    strict: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Import the rows of a file; publishes them unless their status says otherwise.

    A row with an id replaces what it mentions of that entry; without one it is matched by locale
    and normalised question, and else makes a new entry. The file is read twice: a broken one is
    refused before anything is stored.

    Args:
        database: Where entries are stored.
        read: Yields the rows; called twice.
        author: Who imports.
        name: Of the file, for messages.
        base: The knowledge base.
        strict: Import nothing, in one transaction, if any row is bad.
        progress: Told of (rows done, rows in all).

    Raises:
        InvalidInput: The file as a whole cannot be read.
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        locale = (await inboxes.base_named(conn, base)).locale
    total, findings = await _look_through(read, name, locale)
    if strict and findings.rejected_total:
        findings.imported = False
        return findings
    done = 0

    def told(rows_done: int) -> None:
        nonlocal done
        done += rows_done
        if progress is not None:
            progress(done, total)

    report = await _import_all(database, read, _Import(base, name, author, strict), told)
    log.info(
        "FAQ imported",
        extra={
            "action": "faq_imported",
            "entries_created": report.created,
            "updated": report.updated,
            "unchanged": report.unchanged,
            "rejected": report.rejected_total,
        },
    )
    return report


@dataclass(frozen=True)
class _Import:
    base: str
    name: str
    author: str
    strict: bool


@asynccontextmanager
async def _reading(read: Rows) -> AsyncGenerator[Callable[[], Awaitable[list[Row | BadRow]]]]:
    """Lend what returns the next rows of a file, none at its end; it is parsed beside the loop."""
    remaining = iter(read())

    async def batch() -> list[Row | BadRow]:
        return await asyncio.to_thread(lambda: list(islice(remaining, BATCH_ROWS)))

    try:
        yield batch
    finally:
        if isinstance(remaining, Generator):
            remaining.close()  # closes the file


async def _look_through(read: Rows, name: str, locale: str) -> tuple[int, Report]:
    """Count the rows of a file and find what is wrong with them."""
    findings, total = Report(name), 0
    async with _reading(read) as next_batch:
        while batch := await next_batch():
            total += len(batch)
            await asyncio.to_thread(_all_described, batch, locale, findings)
    return total, findings


def _all_described(
    batch: Sequence[Row | BadRow], locale: str, report: Report
) -> list[tuple[Row, FaqEntry]]:
    """Return the rows that describe an entry, each with it; the others are noted."""
    return [
        (row, entry)
        for row in batch
        if (entry := _described(row, locale, report)) is not None and isinstance(row, Row)
    ]


def _described(row: Row | BadRow, locale: str, report: Report) -> FaqEntry | None:
    """Return the entry that a row describes by itself; None, with the reason noted, for none."""
    if isinstance(row, BadRow):
        report.reject(row.line, row.reason)
        return None
    report.ignored.update(row.unknown)
    try:
        return checked(_published(row.values), locale=locale)
    except InvalidInput as error:
        report.reject(row.line, str(error))
        return None


def _published(values: Mapping[str, object]) -> Mapping[str, object]:
    """Let a row that names no status be published."""
    return {**values, "status": values.get("status") or "published"}


async def _import_all(
    database: Database,
    read: Rows,
    wanted: _Import,
    progress: Callable[[int], None],
) -> Report:
    report, lines = Report(wanted.name), dict[str, int]()
    async with _reading(read) as next_batch, AsyncExitStack() as whole:
        strict = None
        if wanted.strict:
            strict = await whole.enter_async_context(database.transaction())
        while batch := await next_batch():
            if strict is not None:
                await _import_batch(strict, batch, wanted, report, lines)
            else:
                async with database.transaction() as conn:
                    await _import_batch(conn, batch, wanted, report, lines)
            progress(len(batch))
        if strict is not None and report.rejected_total:
            await strict.rollback()
            return replace(report, created=0, updated=0, unchanged=0, imported=False)
    return report


async def _import_batch(
    conn: Connection,
    batch: Sequence[Row | BadRow],
    wanted: _Import,
    report: Report,
    lines: dict[str, int],
) -> None:
    """Import some rows; `lines` remembers which line of the file an entry came from."""
    locked = await rows.lock_base(conn, wanted.base)
    described = await asyncio.to_thread(_all_described, batch, locked.locale, report)
    known = await _Known.load(conn, locked, [entry for _, entry in described])
    changed = list[FaqEntry]()
    for row, entry in described:
        before = known.match(entry)
        try:
            entry = known.merged(row, entry, before)
        except InvalidInput as error:  # wrong only beside what the entry already says
            report.reject(row.line, str(error))
            continue
        if entry.id in lines:
            report.reject(
                row.line, f"line {lines[entry.id]} already holds this entry ({entry.id})."
            )
            continue
        lines[entry.id] = row.line
        known.add(entry)
        if before is not None and same(before, entry):
            report.unchanged += 1
            continue
        changed.append(entry)
        for reason in warnings_of(entry):
            report.warn(row.line, reason)
        report.updated += before is not None
        report.created += before is None
    if changed:
        version = await rows.raise_version(conn, locked.id)
        await rows.save_many(
            conn, locked.id, changed, faq_version=version, action="import", author=wanted.author
        )


@dataclass
class _Known:
    """The entries that the rows of a batch may mean."""

    by_id: dict[str, FaqEntry]
    by_question: dict[tuple[str, str], FaqEntry]
    taken: set[str]

    @classmethod
    async def load(
        cls, conn: Connection, locked: LockedBase, described: Iterable[FaqEntry]
    ) -> _Known:
        ids = [entry.id for entry in described if entry.id]
        questions = [_key(entry) for entry in described if not entry.id]
        by_id = {entry.id: entry for entry in await rows.entries(conn, locked.id, ids)}
        by_question = {
            _key(entry): entry for entry in await rows.by_question(conn, locked.id, questions)
        }
        return cls(by_id, by_question, await rows.all_ids(conn, locked.id) if questions else set())

    def match(self, entry: FaqEntry) -> FaqEntry | None:
        return self.by_id.get(entry.id) if entry.id else self.by_question.get(_key(entry))

    def merged(self, row: Row, entry: FaqEntry, before: FaqEntry | None) -> FaqEntry:
        if before is not None:
            return checked({**_published(row.values), "id": before.id}, like=before)
        return entry if entry.id else replace(entry, id=free_id(entry.question, self.taken))

    def add(self, entry: FaqEntry) -> None:
        self.taken.add(entry.id)
        self.by_question.setdefault(_key(entry), entry)


def _key(entry: FaqEntry) -> tuple[str, str]:
    return entry.locale, normalised(entry.question)
