"""/healthz: can this process store messages? /readyz: would they be answered, and by what?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from core.db import inboxes, processes
from core.db.connect import Database
from core.db.processes import Process
from core.errors import Unavailable
from core.types import Inbox

ROLES = ("worker", "sender", "scheduler")
"""The processes without which messages are stored but not answered."""

CHECK_SECONDS = 2.0

Check = Callable[[], Awaitable[str | None]]
"""Returns what is wrong with a part, None if it is well."""


def routes(database: Database, checks: Mapping[str, Check]) -> list[Route]:
    """Return /healthz and /readyz.

    Args:
        database: The database.
        checks: Further parts by name, such as the broker.
    """

    async def healthz(request: Request) -> JSONResponse:
        trouble = await _checked(lambda: _database_trouble(database))
        if trouble:
            return JSONResponse(
                {"ok": False, "trouble": trouble}, 503, headers={"Retry-After": "1"}
            )
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> JSONResponse:
        parts, accounts, models = await _state(database, checks)
        ready = all(trouble is None for trouble in parts.values())
        return JSONResponse(
            {
                "ready": ready,
                "parts": {name: _shown(trouble) for name, trouble in parts.items()},
                "inboxes": {
                    inbox.name: {"channel": inbox.channel, **_shown(_inbox_trouble(inbox))}
                    for inbox in accounts
                },
                # What cannot be used while the last good model, or the approved text, serves on.
                "models": {name: _shown(trouble) for name, trouble in models.items()},
            },
            200 if ready else 503,
            headers=None if ready else {"Retry-After": "1"},
        )

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


async def _state(
    database: Database, checks: Mapping[str, Check]
) -> tuple[dict[str, str | None], Sequence[Inbox], Mapping[str, str]]:
    names = list(checks)
    found = await asyncio.gather(*(_checked(checks[name]) for name in names))
    others = dict(zip(names, found, strict=True))
    try:
        async with database.transaction() as conn:
            alive = await processes.alive(conn)
            accounts = await inboxes.inboxes(conn)
    except Unavailable as error:
        unknown = dict.fromkeys(ROLES, "unknown while the database is away")
        return {"database": str(error), **others, **unknown}, (), {}
    roles = {role: _role_trouble(role, alive) for role in ROLES}
    models = {
        name: str(trouble)
        for process in alive
        for name, trouble in process.detail.get("model_troubles", {}).items()
    }
    return {"database": None, **others, **roles}, accounts, models


def _role_trouble(role: str, alive: Sequence[Process]) -> str | None:
    of_role = [process for process in alive if process.role == role]
    if not of_role:
        return f"no {role} is ready: it is still starting, or none runs (`deskhand {role}`)"
    if not any(process.ready for process in of_role):
        return f"the {role} is not ready yet"
    return None


def _inbox_trouble(inbox: Inbox) -> str | None:
    return inbox.trouble or (None if inbox.active else "switched off")


def _shown(trouble: str | None) -> dict[str, Any]:
    return {"ok": trouble is None} | ({"trouble": trouble} if trouble else {})


async def _database_trouble(database: Database) -> str | None:
    try:
        async with database.transaction() as conn:
            await conn.execute("select 1")
    except Unavailable as error:
        return str(error)
    return None


async def _checked(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return "gives no answer"
