"""Asking a worker for what needs a model: a request row, a doorbell, a notification."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from core.db import requests
from core.db.connect import Database
from core.errors import InvalidInput, Unavailable
from core.ports import Doorbell

PATIENCE_SECONDS = 2.0
CHANNEL = "deskhand_request"
"""The notification that an answer is there; its payload is the request's id."""


class DatabaseAsker:
    """Asks through the database; `heard` must be called with each notification of CHANNEL."""

    def __init__(self, database: Database, doorbell: Doorbell) -> None:
        self._database = database
        self._doorbell = doorbell
        self._waiting: dict[UUID, asyncio.Event] = {}

    async def ask(self, kind: str, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """Store the request, ring, and return the worker's answer.

        Raises:
            Unavailable: No worker answered in time.
            InvalidInput: The worker refused the request.
        """
        async with self._database.transaction() as conn:
            request_id = await requests.store(conn, kind, payload, PATIENCE_SECONDS)
        answered = self._waiting[request_id] = asyncio.Event()
        try:
            self._doorbell.query(request_id)
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._await_answer(request_id, answered)
        except TimeoutError:
            raise Unavailable(
                "No worker answered in time; is `deskhand worker` running?", retry_after=2.0
            ) from None
        finally:
            del self._waiting[request_id]

    async def _await_answer(self, request_id: UUID, answered: asyncio.Event) -> Mapping[str, Any]:
        while True:
            await answered.wait()
            answered.clear()
            async with self._database.transaction() as conn:
                found = await requests.fetch(conn, request_id)
            if found is not None:
                answer, error = found
                if answer is None:
                    raise InvalidInput(error or "The worker refused the request.")
                return answer

    def heard(self, payload: str) -> None:
        """Wake whoever waits for an answer; without a payload all look again."""
        events = (
            list(self._waiting.values())
            if not payload
            else [e for key, e in self._waiting.items() if str(key) == payload]
        )
        for event in events:
            event.set()
