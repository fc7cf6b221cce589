"""/v1/faq: entries for programs; the same use cases as the desk and the command line."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile

from core import faq
from core.db.connect import Database
from core.db.inboxes import base_named
from core.errors import InvalidInput
from core.faq import Filter, Report, Revision
from core.faq_entries import FIELDS
from core.faq_files import Format, Source, format_for
from core.ports import Asker
from core.types import FaqEntry
from desk.checking import Authorize, Base, EntryId, Storable, Words

AUTHOR = "api"
"""Who made a revision that came with the API token."""

SEARCH_LIMIT = 50


class EntryFields(BaseModel):
    """What an entry says; `core.faq_entries.checked` checks it and names what is wrong."""

    # `allow`: an entry may be sent back as it was read, and other names are refused by our check
    model_config = ConfigDict(extra="allow")

    alternates: list[str] | None = Field(
        default=None, description="Other ways to ask it.", examples=[["refund?"]]
    )
    tags: list[str] | None = None
    not_for: list[str] | None = Field(
        default=None,
        description="Questions that look like this one and are not answered by it.",
        examples=[["Can I refund a friend's order?"]],
    )
    locale: str | None = Field(default=None, examples=["en", "pt-BR", "zh-Hant"])
    entity: str | None = Field(default=None, description="The product that it is about.")
    source_url: str | None = Field(default=None, examples=["https://shop.example/help/refunds"])
    status: str | None = Field(default=None, examples=["published"])
    style: str | None = Field(
        default=None, description="How it is worded, where not as its base says."
    )
    valid_from: str | None = Field(default=None, examples=["2025-01-01"])
    valid_until: str | None = Field(
        default=None, description="A day includes its end.", examples=["2025-12-31"]
    )


class EntryIn(EntryFields):
    """A new entry; a draft unless its status is `published`."""

    id: str | None = Field(default=None, description="Made from the question when not given.")
    question: str = Field(examples=["How do refunds work?"])
    answer: str = Field(
        description="CommonMark limited to bold, italic, lists, links, code and images.",
        examples=["Within **5 days** of your parcel's return."],
    )


class EntryChange(EntryFields):
    """What shall change; what is not mentioned stays."""

    question: str | None = None
    answer: str | None = None
    version: int | None = Field(
        default=None, description="The version that was read; 409 if it is no longer current."
    )


class EntryOut(BaseModel):
    """An entry."""

    id: str
    question: str
    answer: str
    alternates: list[str]
    tags: list[str]
    not_for: list[str]
    locale: str
    entity: str | None
    source_url: str | None
    status: str
    style: str | None
    valid_from: str | None
    valid_until: str | None
    version: int
    updated_at: str | None


class EntriesOut(BaseModel):
    """A page of entries, the newest first; `total` counts all pages."""

    entries: list[EntryOut]
    total: int


class RevisionOut(BaseModel):
    """How an entry stood after a change."""

    version: int
    action: str
    author: str
    created_at: str
    entry: EntryOut


class RevisionsOut(BaseModel):
    """Revisions, the latest first."""

    revisions: list[RevisionOut]


class RestoreIn(BaseModel):
    """Which revision shall stand again."""

    version: int = Field(ge=1, le=2**31 - 1)


class RejectedOut(BaseModel):
    """A row that was not imported."""

    line: int
    reason: str


class ReportOut(BaseModel):
    """What an import did."""

    created: int
    updated: int
    unchanged: int
    rejected: list[RejectedOut]
    rejected_total: int
    ignored: list[str] = Field(description="Columns that mean nothing here.")
    warned: list[RejectedOut] = Field(description="Rows to look at; they were imported.")
    imported: bool


class PassageOut(BaseModel):
    """An entry that was found."""

    entry_id: str
    question: str
    answer: str
    locale: str
    score: float
    confidence: float = Field(description="The chance in [0, 1] that it answers.")


class PassagesOut(BaseModel):
    """Found entries, the best first."""

    passages: list[PassageOut]


def entry_out(entry: FaqEntry) -> EntryOut:
    """Return an entry as the API shows it."""
    return EntryOut.model_validate(
        {
            **{name: getattr(entry, name) for name in FIELDS},
            "alternates": list(entry.alternates),
            "tags": list(entry.tags),
            "not_for": list(entry.not_for),
            "valid_from": entry.valid_from.isoformat() if entry.valid_from else None,
            "valid_until": entry.valid_until.isoformat() if entry.valid_until else None,
            "version": entry.version,
            "updated_at": entry.updated_at.isoformat() if entry.updated_at else None,
        }
    )


def report_out(report: Report) -> ReportOut:
    """Return a report as the API shows it."""
    return ReportOut(
        created=report.created,
        updated=report.updated,
        unchanged=report.unchanged,
        rejected=[RejectedOut(**asdict(each)) for each in report.rejected],
        rejected_total=report.rejected_total,
        ignored=sorted(report.ignored),
        warned=[RejectedOut(**asdict(each)) for each in report.warned],
        imported=report.imported,
    )


def _revision_out(revision: Revision) -> RevisionOut:
    return RevisionOut(
        version=revision.version,
        action=revision.action,
        author=revision.author,
        created_at=revision.created_at.isoformat(),
        entry=entry_out(revision.entry),
    )


def routes(
    database: Database, asker: Asker, formats: Mapping[str, Format], authorize: Authorize
) -> APIRouter:
    """Return the routes under /v1/faq.

    Args:
        database: Where entries are stored.
        asker: Asks a worker for what needs a model.
        formats: Of files, by the ending of their names.
        authorize: Raises 401 for a wrong or missing token.
    """
    router = APIRouter(prefix="/v1/faq", tags=["FAQ"], dependencies=[Depends(authorize)])
    _add_files(router, database, formats)
    _add_search(router, database, asker)
    _add_entries(router, database)
    _add_history(router, database)
    return router


def _add_entries(router: APIRouter, database: Database) -> None:
    @router.get("", summary="List entries")
    async def listed(
        base: Base = faq.DEFAULT_BASE,
        status: Words = None,
        locale: Words = None,
        tag: Words = None,
        text: Words = None,
        limit: Annotated[int, Query(ge=1, le=faq.PAGE_LIMIT)] = 50,
        offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
    ) -> EntriesOut:
        """Return entries, the newest first; archived ones only with `status=archived` or `all`."""
        entries, total = await faq.listed(
            database,
            Filter(status=status, locale=locale, tag=tag, text=text),
            limit=limit,
            offset=offset,
            base=base,
        )
        return EntriesOut(entries=[entry_out(entry) for entry in entries], total=total)

    @router.post("", status_code=201, summary="Create an entry")
    async def create(entry: EntryIn, base: Base = faq.DEFAULT_BASE) -> EntryOut:
        """Create an entry; the same one sent again is returned, another under its id is a 409."""
        said = entry.model_dump(exclude_unset=True)
        return entry_out(await faq.create(database, said, author=AUTHOR, base=base))

    @router.get("/{entry_id}", summary="Read an entry")
    async def read(entry_id: EntryId, base: Base = faq.DEFAULT_BASE) -> EntryOut:
        """Return an entry, an archived one too."""
        return entry_out(await faq.get(database, entry_id, base=base))

    @router.patch("/{entry_id}", summary="Change an entry")
    async def edit(
        entry_id: EntryId, change: EntryChange, base: Base = faq.DEFAULT_BASE
    ) -> EntryOut:
        """Change what is mentioned; live on all workers within a second."""
        said = change.model_dump(exclude_unset=True)
        return entry_out(
            await faq.edit(
                database, entry_id, said, author=AUTHOR, version=change.version, base=base
            )
        )

    @router.delete("/{entry_id}", summary="Archive an entry")
    async def archive(
        entry_id: EntryId,
        version: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
        base: Base = faq.DEFAULT_BASE,
    ) -> EntryOut:
        """Take an entry out of use; it can be restored."""
        return entry_out(
            await faq.archive(database, entry_id, author=AUTHOR, version=version, base=base)
        )


def _add_history(router: APIRouter, database: Database) -> None:
    @router.get("/{entry_id}/revisions", summary="List an entry's revisions")
    async def revisions(entry_id: EntryId, base: Base = faq.DEFAULT_BASE) -> RevisionsOut:
        """Return how an entry stood after each change, the latest first."""
        found = await faq.history(database, entry_id, base=base)
        return RevisionsOut(revisions=[_revision_out(each) for each in found])

    @router.post("/{entry_id}/restore", summary="Restore a revision")
    async def restore(
        entry_id: EntryId, wanted: RestoreIn, base: Base = faq.DEFAULT_BASE
    ) -> EntryOut:
        """Bring an entry back to an earlier version of it, as a new version."""
        return entry_out(
            await faq.restore(database, entry_id, wanted.version, author=AUTHOR, base=base)
        )


def _add_search(router: APIRouter, database: Database, asker: Asker) -> None:
    @router.get("/search", summary="Search as the bot does")
    async def search(
        q: Annotated[Storable, Query(min_length=1, max_length=2_000)],
        base: Base = faq.DEFAULT_BASE,
        limit: Annotated[int, Query(ge=1, le=SEARCH_LIMIT)] = 10,
    ) -> PassagesOut:
        """Return the entries that a worker would answer a question from; 503 without a worker."""
        if not q.strip():
            raise InvalidInput("q is blank; say what to search for.", field="q")
        async with database.transaction() as conn:
            found = await base_named(conn, base)
        answer = await asker.ask("search", {"base_id": found.id, "text": q, "limit": limit})
        return PassagesOut.model_validate(answer)


def _add_files(router: APIRouter, database: Database, formats: Mapping[str, Format]) -> None:
    @router.get("/export", summary="Export entries", response_class=StreamingResponse)
    async def export(
        wanted: Annotated[str, Query(alias="format", max_length=20)] = "jsonl",
        base: Base = faq.DEFAULT_BASE,
        status: Words = None,
        locale: Words = None,
        tag: Words = None,
    ) -> StreamingResponse:
        """Return a file that the import takes back without loss."""
        chosen = format_for(wanted, formats)
        entries = await faq.exported(
            database, Filter(status=status, locale=locale, tag=tag), base=base
        )
        ending = next(name for name, each in formats.items() if each is chosen)
        return StreamingResponse(
            chosen.write(entries),
            media_type=chosen.media_type,
            headers={"Content-Disposition": f'attachment; filename="faq.{ending}"'},
        )

    @router.post(
        "/import",
        summary="Import a file",
        response_model=ReportOut,
        openapi_extra={"requestBody": _import_body(formats)},
    )
    async def import_file(
        request: Request,
        wanted: Annotated[str | None, Query(alias="format", max_length=20)] = None,
        strict: bool = False,
        base: Base = faq.DEFAULT_BASE,
    ) -> Any:
        """Import a file, sent as it is or as a form's field `file`.

        A bad row is reported with its line and the rest is imported; with `strict` a bad row
        keeps all out, and the answer is 422 with the report beside the error.
        """
        data, name = await _received(request)
        chosen = format_for(wanted or _format_of(request, name, formats), formats)
        source = Source(name or "file", lambda: io.BytesIO(data))
        report = await faq.import_rows(
            database,
            lambda: chosen.read(source),
            author=AUTHOR,
            name=source.name,
            base=base,
            strict=strict,
        )
        return report_out(report) if report.imported else _refused(report)


def _refused(report: Report) -> JSONResponse:
    first, *_ = report.lines()
    more = f" And {report.rejected_total - 1} more." if report.rejected_total > 1 else ""
    return JSONResponse(
        {
            "error": {"code": "invalid", "message": f"{first}{more} Nothing was imported."},
            "report": report_out(report).model_dump(),
        },
        422,
    )


async def _received(request: Request) -> tuple[bytes, str]:
    """Return a file that was sent, and its name if it has one."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body(), ""
    async with request.form(max_files=1, max_fields=10) as form:
        file = form.get("file") or next(iter(form.values()), None)
        if not isinstance(file, UploadFile):
            raise InvalidInput("The form holds no file; send it in the field file.", field="file")
        return await file.read(), (file.filename or "")[:200]


def _format_of(request: Request, name: str, formats: Mapping[str, Format]) -> str:
    """Return the format that a file's name or its media type tells."""
    if name:
        return name
    sent = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    for ending, each in formats.items():
        if sent and sent == each.media_type.partition(";")[0]:
            return ending
    raise InvalidInput(
        f"format is not given; add ?format= with one of {', '.join(sorted(formats))}.",
        field="format",
    )


def _import_body(formats: Mapping[str, Format]) -> dict[str, Any]:
    content: dict[str, Any] = {
        each.media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
        for each in formats.values()
    }
    properties = {"file": {"type": "string", "format": "binary"}}
    content["multipart/form-data"] = {"schema": {"type": "object", "properties": properties}}
    return cast("dict[str, Any]", {"required": True, "content": content})
