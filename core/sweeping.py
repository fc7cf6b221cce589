"""The sweeper: rings again for what was stored and forgotten, and ends what is overdue."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from core import turns
from core.db import deliveries, processes, requests
from core.db import turns as turn_rows
from core.db.connect import Database
from core.ports import Doorbell
from core.types import ConversationId, InboxId

log = logging.getLogger(__name__)

GRACE_SECONDS = 0.5
"""The doorbell's own head start: only what it should have reached by now is rung for again."""
AGAIN_SECONDS = 5.0
"""A turn that waits in a long queue is not rung for each second."""
BATCH = 500


@dataclass(frozen=True)
class Sweeping:
    """What a sweep needs.

    Attributes:
        doorbell: For what a use case rings by itself.
        ring_turn: Publishes at once and tells whether the broker has it.
        ring_delivery: The same for an inbox.
        ring_query: The same for a request.
    """

    database: Database
    doorbell: Doorbell
    ring_turn: Callable[[ConversationId], Awaitable[bool]]
    ring_delivery: Callable[[str, InboxId], Awaitable[bool]]
    ring_query: Callable[[UUID], Awaitable[bool]]
    attempts: int
    expiry_seconds: float


async def sweep(services: Sweeping) -> None:
    """Look once after turns, deliveries and requests."""
    await _ring_turns(services)
    await _give_up_turns(services)
    await _ring_deliveries(services)
    await _ring_queries(services)


async def _ring_turns(services: Sweeping) -> None:
    async with services.database.transaction() as conn:
        forgotten = await turn_rows.forgotten(
            conn,
            grace_seconds=GRACE_SECONDS,
            again_seconds=AGAIN_SECONDS,
            attempts=services.attempts,
            limit=BATCH,
        )
    rung = []
    for conversation_id, turn_id in forgotten:
        if not await services.ring_turn(conversation_id):
            break  # the broker is away: the next sweep tries again
        rung.append(turn_id)
    if rung:
        async with services.database.transaction() as conn:
            await turn_rows.mark_rung(conn, rung)
        log.info("Turns rung again", extra={"action": "turns_rung", "count": len(rung)})


async def _give_up_turns(services: Sweeping) -> None:
    async with services.database.transaction() as conn:
        overdue = await turn_rows.overdue(conn, attempts=services.attempts, limit=BATCH)
    for turn in overdue:
        await turns.give_up(
            services.database, services.doorbell, turn, expiry_seconds=services.expiry_seconds
        )


async def _ring_deliveries(services: Sweeping) -> None:
    async with services.database.transaction() as conn:
        abandoned = await deliveries.doubt_abandoned(conn)
        await deliveries.expire(conn)
        due = await deliveries.due_inboxes(conn, GRACE_SECONDS)
    if abandoned:
        log.warning(
            "Deliveries were abandoned by their sender",
            extra={"action": "deliveries_abandoned", "count": abandoned},
        )
    for channel, inbox_id in due:
        await services.ring_delivery(channel, inbox_id)


async def _ring_queries(services: Sweeping) -> None:
    async with services.database.transaction() as conn:
        waiting = await requests.unclaimed(conn)
        await requests.forget(conn)
        await processes.forget(conn)
    for request_id in waiting:
        await services.ring_query(request_id)
