"""What the routes of our own channels check alike, before anything reaches the intake."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.routing import APIRoute

from core.errors import InvalidInput
from core.intake import SURROGATES
from core.ports import Receiver

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

NAME_LIMIT = 200
"""Characters of an id or a name that others choose."""


def checked_name(name: str, field: str) -> str:
    """Return an id or a name that the database can hold.

    Raises:
        InvalidInput: It holds a NUL character or a lone surrogate.
    """
    if "\x00" in name or SURROGATES.search(name):
        raise InvalidInput(
            f"{field} holds a NUL character or a lone surrogate; remove it.", field=field
        )
    return name


def counting_route(receiver: Receiver) -> type[APIRoute]:
    """Return a kind of route whose refused requests are counted and logged by the intake."""

    class Counting(APIRoute):
        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()

            async def counted(request: Request) -> Response:
                try:
                    return await handle(request)
                except (InvalidInput, RequestValidationError, HTTPException) as error:
                    receiver.rejected(_reason(error))
                    raise

            return counted

    return Counting


def _reason(error: Exception) -> str:
    """Say why a request was refused, without anything that it contained."""
    match error:
        case HTTPException():
            return f"status {error.status_code}"
        case InvalidInput():
            return f"{error.code}: {error.field}"
        case _:
            return "the body is not as described"
