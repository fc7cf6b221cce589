"""The bearer token of everything under /v1."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.exceptions import HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

SCHEME = HTTPBearer(auto_error=False, description="The API token, printed at the first start.")


def bearer(token: SecretStr) -> Callable[..., Awaitable[None]]:
    """Return a dependency that lets only requests with this token through."""
    expected = token.get_secret_value().encode()

    async def authorize(
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(SCHEME)],
    ) -> None:
        given = credentials.credentials.encode(errors="replace") if credentials else b""
        if not hmac.compare_digest(given, expected):
            raise HTTPException(
                401,
                "The bearer token is wrong."
                if credentials
                else "A bearer token is needed: Authorization: Bearer <token>.",
                headers={"WWW-Authenticate": "Bearer"},
            )

    return authorize
