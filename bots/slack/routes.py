"""The routes on which Slack calls us; every request without its signature gets 401."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from slack_bolt.adapter.starlette.async_handler import to_starlette_response
from slack_bolt.async_app import AsyncBoltRequest
from slack_bolt.response import BoltResponse

from bots.slack import signing
from core.ports import Receiver

BODY_LIMIT_BYTES = 1_000_000
"""Slack's requests have some kilobytes; anybody can post to an open address."""


Dispatch = Callable[[AsyncBoltRequest], Awaitable[BoltResponse]]


def slack_routes(
    signing_secret: str | None,
    dispatch: Dispatch,
    receiver: Receiver,
    clock: Callable[[], float] = time.time,
) -> APIRouter:
    """Return `POST /slack/events`, `/slack/interactions` and `/slack/commands` of a workspace.

    Args:
        signing_secret: What Slack signs with; without it every request is refused.
        dispatch: Takes in a request whose signature is right.
        receiver: Told of what was refused.
        clock: Seconds since 1970.
    """
    router = APIRouter(tags=["channels"])
    entrance = _Entrance(signing_secret, dispatch, receiver, clock)

    @router.post("/slack/events")
    async def events(request: Request) -> Response:
        """Take in one event; 200 says that it is stored, or is nothing for us."""
        return await entrance.admit(request)

    @router.post("/slack/interactions")
    async def interactions(request: Request) -> Response:
        """Take in the press of a button."""
        return await entrance.admit(request)

    @router.post("/slack/commands")
    async def commands(request: Request) -> Response:
        """Take in a slash command; the answer comes as a direct message."""
        return await entrance.admit(request)

    return router


class _Entrance:
    """Checks a request ahead of Bolt, which raises on what is malformed."""

    def __init__(
        self,
        secret: str | None,
        dispatch: Dispatch,
        receiver: Receiver,
        clock: Callable[[], float],
    ) -> None:
        self._secret = secret
        self._dispatch = dispatch
        self._receiver = receiver
        self._clock = clock

    async def admit(self, request: Request) -> Response:
        body = await _body(request)
        if body is None:
            self._receiver.rejected("a body over the limit")
            return _error(413, "too_large", f"The body exceeds {BODY_LIMIT_BYTES} bytes.")
        why = signing.refusal(self._secret, request.headers, body, self._clock())
        if why is not None:
            return self._refuse(why)
        try:
            asked = self._read(request, body)
        except Exception:
            return self._refuse("a body that cannot be read")
        if isinstance(asked, Response):
            return asked
        return to_starlette_response(await self._dispatch(asked))

    def _read(self, request: Request, body: bytes) -> AsyncBoltRequest | Response:
        text = body.decode("utf-8")
        if request.headers.get("content-type", "").startswith("application/json"):
            content: object = json.loads(text)
            if not isinstance(content, Mapping):
                raise ValueError("no JSON object")
            if content.get("type") == "url_verification":  # also before there is an installation
                return JSONResponse({"challenge": content.get("challenge")})
        headers: dict[str, Any] = dict(request.headers)
        return AsyncBoltRequest(body=text, headers=headers)

    def _refuse(self, why: str) -> Response:
        self._receiver.rejected(why)
        return _error(401, "unauthorized", "The request carries no valid signature of Slack's.")


async def _body(request: Request) -> bytes | None:
    """Return the body, or None as soon as it is over the limit."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            return None
    return bytes(body)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status)
