"""Bounds on what comes in, before any of it is looked at."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cli.serving.errors import refusal

BODY_LIMIT_BYTES = 1_000_000
BODY_SECONDS = 30.0
DRAIN_LIMIT_BYTES = 32_000_000
DRAIN_SECONDS = 5.0


class BodyLimit:
    """Reads a request's body whole, within a size and a time, and refuses longer ones with 413.

    Args:
        app: What is served.
        limit: Bytes at most.
        larger: Other limits by path, for uploads of files.
    """

    def __init__(
        self,
        app: ASGIApp,
        limit: int = BODY_LIMIT_BYTES,
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], self._limit)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = None if _announced(scope) > limit else await _read(receive, limit)
        except ClientDisconnect:
            return
        except TimeoutError:
            late = refusal(408, "The body came too slowly.", headers={"Connection": "close"})
            await late(scope, receive, send)
            return
        if body is None:
            await _drain(receive)
            long = refusal(
                413,
                f"The body is longer than {limit} bytes.",
                headers={"Connection": "close"},
            )
            await long(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _announced(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:19])
    return 0


async def _read(receive: Receive, limit: int) -> bytes | None:
    """Return the body, or None as soon as it is longer than the limit."""
    chunks: list[bytes] = []
    size = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _drain(receive: Receive) -> None:
    """Take in and forget the rest: most clients read no answer before they have sent all."""
    size = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_LIMIT_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body in one piece and then what else comes."""
    whole: deque[Message] = deque([{"type": "http.request", "body": body, "more_body": False}])

    async def replayed() -> Message:
        return whole.popleft() if whole else await receive()

    return replayed


class SecurityHeaders:
    """Adds the headers that every answer should carry, where the page has not set its own."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        self._app = app
        self._headers = {
            b"x-content-type-options": b"nosniff",
            b"referrer-policy": b"strict-origin-when-cross-origin",
            b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
            b"cross-origin-resource-policy": b"same-origin",
            b"permissions-policy": b"camera=(), geolocation=(), microphone=(), payment=()",
        }
        if https:
            self._headers[b"strict-transport-security"] = b"max-age=31536000"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in self._headers.items() if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_headers)
