"""Deliveries: one message on its way to a chat; claimed, sent, looked up when in doubt."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from core import telemetry
from core.db import deliveries as rows
from core.db import inboxes
from core.db.connect import Database
from core.errors import PermanentError, TransientError, UncertainError
from core.ports import Channel, Doorbell
from core.retrying import backoff
from core.types import Delivery, DeliveryState, InboxId

log = logging.getLogger(__name__)

LONGEST_PAUSE_SECONDS = 5.0
"""Between tries while a platform is away: sending resumes within seconds of the outage's end."""


@dataclass(frozen=True)
class Sending:
    """What sending needs: the channels of this process by inbox, and its name for the leases."""

    database: Database
    channels: Mapping[InboxId, Channel]
    owner: str
    lease_seconds: float


async def deliver(services: Sending, inbox_id: InboxId) -> None:
    """Send what is due in an inbox, until nothing is."""
    channel = services.channels.get(inbox_id)
    if channel is None:
        log.error(
            "Inbox has no channel here: its tokens are missing",
            extra={"action": "channel_missing", "inbox_id": inbox_id},
        )
        return
    while await _deliver_one(services, channel, inbox_id):
        pass


async def _deliver_one(services: Sending, channel: Channel, inbox_id: InboxId) -> bool:
    async with services.database.transaction() as conn:
        delivery = await rows.claim_uncertain(
            conn, inbox_id, owner=services.owner, lease_seconds=services.lease_seconds
        )
        doubtful = delivery is not None
        if delivery is None:
            delivery = await rows.claim_next(
                conn,
                inbox_id,
                owner=services.owner,
                lease_seconds=services.lease_seconds,
                limits=channel.limits,
            )
    if delivery is None:
        return False
    token = telemetry.trace_id.set(delivery.trace_id)
    try:
        if doubtful:
            await _look_up(services, channel, delivery)
        else:
            await _send(services, channel, delivery)
    finally:
        telemetry.trace_id.reset(token)
    return True


async def _send(services: Sending, channel: Channel, delivery: Delivery) -> None:
    total = channel.parts(delivery)
    for part in range(delivery.parts_sent, total):
        begun = time.perf_counter()
        try:
            external_id = await channel.send(delivery, part)
        except TransientError as error:
            await _postpone(services, delivery, error)
            return
        except PermanentError as error:
            await _fail(services, delivery, error)
            return
        except Exception as error:  # anything else may have happened after the post: doubt it
            await _doubt(services, delivery, error)
            return
        telemetry.STAGE_SECONDS.labels("send").observe(time.perf_counter() - begun)
        if not await _record(services, delivery, part, external_id, total):
            return


async def _record(
    services: Sending, delivery: Delivery, part: int, external_id: str, total: int
) -> bool:
    """Record a post; tell whether the next part may follow."""
    last = part + 1 >= total
    async with services.database.transaction() as conn:
        wanted = await rows.record_post(conn, delivery, part, external_id, last=last)
        if not last and not wanted:
            await rows.end(conn, delivery.id, DeliveryState.DROPPED, "taken over between its parts")
    if last:
        _ended(delivery, DeliveryState.SENT)
    return wanted and not last


async def _postpone(services: Sending, delivery: Delivery, error: TransientError) -> None:
    pause = error.retry_after or min(LONGEST_PAUSE_SECONDS, backoff(delivery.attempts))
    async with services.database.transaction() as conn:
        await rows.postpone(conn, delivery.id, pause, str(error))
        if error.retry_after:
            chat = "" if error.whole_inbox else delivery.chat
            await rows.pause_chat(conn, delivery.inbox_id, chat, error.retry_after)
    log.warning(
        "Delivery postponed",
        extra={
            "action": "delivery_postponed",
            "delivery_id": delivery.id,
            "seconds": pause,
            "reason": str(error),
        },
    )


async def _fail(services: Sending, delivery: Delivery, error: PermanentError) -> None:
    async with services.database.transaction() as conn:
        if error.moved_to:
            await rows.move_chat(conn, delivery.inbox_id, delivery.chat, error.moved_to)
            await rows.postpone(conn, delivery.id, 0.0, str(error))
        elif error.inbox_gone:
            await rows.postpone(conn, delivery.id, 0.0, str(error))
            await inboxes.switch_off(conn, delivery.inbox_id, str(error))
        else:
            await rows.end(conn, delivery.id, DeliveryState.FAILED, str(error))
            if error.contact_gone:
                await rows.contact_gone(conn, delivery.conversation_id)
    if error.moved_to is None:
        state = DeliveryState.HELD if error.inbox_gone else DeliveryState.FAILED
        _ended(delivery, state, str(error))


async def _doubt(services: Sending, delivery: Delivery, error: Exception) -> None:
    """Nobody knows whether the post stands: it is looked up next, never just sent again."""
    unexpected = not isinstance(error, UncertainError)
    log.warning(
        "Delivery is uncertain",
        exc_info=error if unexpected else None,
        extra={
            "action": "delivery_uncertain",
            "delivery_id": delivery.id,
            "reason": type(error).__name__ if unexpected else str(error),
        },
    )
    async with services.database.transaction() as conn:
        await rows.doubt(conn, delivery.id, telemetry.mask(str(error))[:500])


async def _look_up(services: Sending, channel: Channel, delivery: Delivery) -> None:
    part = delivery.parts_sent
    total = channel.parts(delivery)
    try:
        external_id = await channel.find_sent(delivery, part)
    except TransientError as error:
        pause = error.retry_after or min(LONGEST_PAUSE_SECONDS, backoff(delivery.attempts))
        async with services.database.transaction() as conn:
            await rows.postpone_lookup(conn, delivery.id, pause)
        return
    except (UncertainError, PermanentError) as error:
        async with services.database.transaction() as conn:
            await rows.doubt(conn, delivery.id, str(error), looked_up=True)
        _ended(delivery, DeliveryState.UNCERTAIN, str(error))
        return
    if external_id is None:
        async with services.database.transaction() as conn:
            await rows.postpone(conn, delivery.id, 0.0, "looked up: it does not stand there")
        return
    if await _record(services, delivery, part, external_id, total):
        async with services.database.transaction() as conn:
            await rows.postpone(conn, delivery.id, 0.0, "looked up: the next part is due")


def _ended(delivery: Delivery, state: DeliveryState, reason: str = "") -> None:
    telemetry.DELIVERIES.labels(delivery.author, state).inc()
    log.log(
        logging.INFO if state is DeliveryState.SENT else logging.ERROR,
        "Delivery ended",
        extra={
            "action": f"delivery_{state}",
            "delivery_id": delivery.id,
            "conversation_id": delivery.conversation_id,
            "reason": reason,
        },
    )


async def resend(database: Database, doorbell: Doorbell, delivery_id: UUID) -> bool:
    """Send a failed or uncertain delivery again, because staff say so."""
    async with database.transaction() as conn:
        inbox_id = await rows.resend(conn, delivery_id)
        found = [i for i in await inboxes.inboxes(conn) if i.id == inbox_id]
    for inbox in found:
        doorbell.delivery(inbox.channel, inbox.id)
    return bool(found)
