"""The route to which Telegram posts updates."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from telegram import Bot, Update

from bots.telegram import wire
from core.errors import Unavailable
from core.ports import Receiver

log = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 1_000_000
"""Telegram's updates have some kilobytes; anybody can post to an open address."""
PROOF_HEADER = "X-Telegram-Bot-Api-Secret-Token"


TakeIn = Callable[[Update], Awaitable[None]]


def webhook_routes(
    bot: Bot, secret: SecretStr | None, take_in: TakeIn, receiver: Receiver
) -> APIRouter:
    """Return `POST /telegram/webhook` for a bot; every request without its secret gets 403."""
    router = APIRouter()

    @router.post("/telegram/webhook", include_in_schema=True, tags=["channels"])
    async def webhook(request: Request) -> Response:
        """Take in one update; 200 says that it is stored."""
        if not _is_secret(request.headers.get(PROOF_HEADER, ""), secret):
            receiver.rejected("wrong or missing Telegram secret")
            return _error(403, "forbidden", f"{PROOF_HEADER} is wrong or missing.")
        body = await _body(request)
        if body is None:
            receiver.rejected("a body over the limit")
            return _error(413, "too_large", f"The body exceeds {BODY_LIMIT_BYTES} bytes.")
        return await _answer(bot, take_in, receiver, body)

    return router


async def _answer(bot: Bot, take_in: TakeIn, receiver: Receiver, body: bytes) -> Response:
    try:
        update = wire.read_update(body, bot)
    except (ValueError, RecursionError):
        receiver.rejected("a body that is no update")
        return _error(400, "invalid", "The body is not an update of the Bot API.")
    try:
        await take_in(update)
    except Unavailable as error:
        # Telegram obeys Retry-After and keeps the update for 24 hours.
        wait = str(max(1, round(error.retry_after or 1)))
        return _error(503, "unavailable", str(error), {"Retry-After": wait})
    except Exception:  # a defect of ours: Telegram brings the update again
        log.exception(
            "Update could not be taken in",
            extra={"action": "update_failed", "update_id": update.update_id},
        )
        return _error(500, "internal", "The update could not be stored.")
    return Response(status_code=200)


def _is_secret(given: str, secret: SecretStr | None) -> bool:
    """Compare in constant time; without a secret of our own nothing is right."""
    if secret is None:
        return False
    # As bytes: compare_digest refuses text that is not ASCII.
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.get_secret_value().encode())


async def _body(request: Request) -> bytes | None:
    """Return the body, or None as soon as it is over the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            return None
    return bytes(body)


def _error(
    status: int, code: str, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
