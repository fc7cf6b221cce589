"""What callers see of errors: `{"error": {"code", "message", "field"?}}`, never our insides."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.errors import Conflict, DeskhandError, InvalidInput, LostClaim, NotFound, TransientError

log = logging.getLogger(__name__)

CODES = {400: "invalid", 401: "unauthorized", 413: "too_large", 422: "invalid"}
"""Where the code is not the status' own phrase."""


def refusal(
    status: int,
    message: str,
    *,
    code: str | None = None,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return an error as callers know it."""
    error = {"code": code or _code(status), "message": message}
    if field:
        error["field"] = field
    return JSONResponse({"error": error}, status, headers)


def install(app: FastAPI) -> None:
    """Give an app our error shapes."""
    app.add_exception_handler(DeskhandError, _deskhand_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)


def _code(status: int) -> str:
    try:
        return CODES.get(status) or HTTPStatus(status).phrase.lower().replace(" ", "_")
    except ValueError:
        return "error"


async def _deskhand_error(request: Request, error: Exception) -> JSONResponse:
    match error:
        case NotFound():
            return refusal(404, str(error), code=error.code, field=error.field)
        case Conflict():
            return refusal(409, str(error), code=error.code, field=error.field)
        case InvalidInput():
            return refusal(422, str(error), code=error.code, field=error.field)
        case LostClaim():
            return refusal(409, "Somebody else was first; read it again.", code="conflict")
        case TransientError():
            wait = str(math.ceil(error.retry_after or 1.0))
            return refusal(503, str(error), code="unavailable", headers={"Retry-After": wait})
        case _:
            raise error


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    first: dict[str, Any] = {}
    if isinstance(error, RequestValidationError):
        first = next(iter(error.errors()), {})
    kind = str(first.get("type", ""))
    if kind == "json_invalid":
        return refusal(422, "The body is not valid JSON.", code="invalid")
    if first.get("loc") == ("body",) and "json" not in request.headers.get("content-type", "json"):
        return refusal(
            422, "The body must be JSON, sent as Content-Type: application/json.", code="invalid"
        )
    # ("body", "sender", "id") -> sender.id; what was sent is not repeated, it may be personal.
    field = ".".join(str(part) for part in first.get("loc", ())[1:]) or None
    problem = str(first.get("msg", "The request is not valid")).rstrip(".")
    return refusal(422, f"{field or 'body'}: {problem}.", code="invalid", field=field)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    message = error.detail
    if error.status_code == 404 and message == "Not Found":
        message = f"There is nothing at {request.url.path[:200]}."
    elif error.status_code == 405 and message == "Method Not Allowed":
        message = f"{request.method} is not possible here."
    return refusal(error.status_code, message, headers=error.headers)


class Unexpected:
    """Answers 500 without details to what nobody foresaw, and logs it once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            if begun:
                raise  # the server logs it and cuts the connection: nothing else can be said
            log.exception(
                "Request failed",
                extra={
                    "action": "request_failed",
                    "method": scope["method"],
                    "path": scope["path"],
                },
            )
            await refusal(500, "Something went wrong here; it has been logged.")(
                scope, receive, send
            )
