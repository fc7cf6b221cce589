"""Ringing the workers: publishes by task name, on a thread of its own."""

from __future__ import annotations

import asyncio
import heapq
import logging
import threading
import time
from dataclasses import dataclass, field
from uuid import UUID

from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from kombu.exceptions import OperationalError as BrokerError

from core import telemetry
from core.types import ConversationId
from workers.app import (
    ANSWER_QUERY,
    ANSWER_TURN,
    QUERIES,
    SEND_DELIVERIES,
    TURNS,
    app,
    delivery_queue,
)

log = logging.getLogger(__name__)

BROKER_ERRORS = (BrokerError, KombuError, CeleryError, OSError)

LONGEST_QUEUE = 10_000
"""More rings than this wait for the broker only while it is away; the sweeper rings anew."""


@dataclass(order=True)
class _Ring:
    due: float
    order: int
    task: str = field(compare=False)
    argument: str | int = field(compare=False)
    queue: str = field(compare=False)


class Publisher:
    """The `Doorbell` on a broker; ringing returns at once and never raises."""

    def __init__(self) -> None:
        self._rings: list[_Ring] = []
        self._changed = threading.Condition()
        self._order = 0
        self._stopped = False
        self.broker_is_away = False
        """Whether the last publish failed."""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def stop(self) -> None:
        """Publish what is due, drop what is not, and end."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join(timeout=5.0)

    def turn(self, conversation_id: ConversationId, *, after_seconds: float = 0.0) -> None:
        """Ring for what is open in a conversation, when its debounce is over."""
        self._ring(ANSWER_TURN, str(conversation_id), TURNS, after_seconds)

    def delivery(self, channel: str, inbox_id: int) -> None:
        """Ring for the deliveries that are due in an inbox."""
        self._ring(SEND_DELIVERIES, inbox_id, delivery_queue(channel), 0.0)

    def query(self, request_id: UUID) -> None:
        """Ring for a question to the models."""
        self._ring(ANSWER_QUERY, str(request_id), QUERIES, 0.0)

    async def turn_now(self, conversation_id: ConversationId) -> bool:
        """Ring for a conversation and return whether the broker has it."""
        return await asyncio.to_thread(_publish, ANSWER_TURN, str(conversation_id), TURNS)

    async def delivery_now(self, channel: str, inbox_id: int) -> bool:
        """Ring for an inbox and return whether the broker has it."""
        queue = delivery_queue(channel)
        return await asyncio.to_thread(_publish, SEND_DELIVERIES, inbox_id, queue)

    async def query_now(self, request_id: UUID) -> bool:
        """Ring for a request and return whether the broker has it."""
        return await asyncio.to_thread(_publish, ANSWER_QUERY, str(request_id), QUERIES)

    async def check(self) -> str | None:
        """Return what is wrong with the broker, None if it takes messages."""
        return await asyncio.to_thread(_broker_trouble)

    def _ring(self, task: str, argument: str | int, queue: str, after_seconds: float) -> None:
        with self._changed:
            if len(self._rings) >= LONGEST_QUEUE:
                telemetry.PUBLISHED.labels("dropped").inc()
                return
            self._order += 1
            due = time.monotonic() + after_seconds
            heapq.heappush(self._rings, _Ring(due, self._order, task, argument, queue))
            self._changed.notify()

    def _run(self) -> None:
        while (ring := self._next()) is not None:
            with telemetry.stage("publish"):
                published = _publish(ring.task, ring.argument, ring.queue)
            if published == self.broker_is_away:
                self._say(published)
            if not published:
                self._drop_due()

    def _next(self) -> _Ring | None:
        with self._changed:
            while True:
                now = time.monotonic()
                if self._rings and self._rings[0].due <= now:
                    return heapq.heappop(self._rings)
                if self._stopped:
                    return None
                self._changed.wait(self._rings[0].due - now if self._rings else None)

    def _drop_due(self) -> None:
        """Each of them would wait for a broker that is away; the sweeper rings for all."""
        with self._changed:
            now = time.monotonic()
            while self._rings and self._rings[0].due <= now:
                heapq.heappop(self._rings)
                telemetry.PUBLISHED.labels("dropped").inc()

    def _say(self, published: bool) -> None:
        self.broker_is_away = not published
        if published:
            log.info("Broker is back", extra={"action": "broker_back"})
        else:
            log.warning(
                "Broker is away; messages are stored and rung for later",
                extra={"action": "broker_away"},
            )


def _publish(task: str, argument: str | int, queue: str) -> bool:
    try:
        app.send_task(task, args=(argument,), queue=queue)
    except BROKER_ERRORS as error:
        telemetry.PUBLISHED.labels("failed").inc()
        log.debug("Publish failed", extra={"action": "publish_failed", "reason": str(error)})
        return False
    telemetry.PUBLISHED.labels("published").inc()
    return True


def _broker_trouble() -> str | None:
    try:
        with app.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=1)
    except BROKER_ERRORS as error:
        return f"The broker cannot be reached ({type(error).__name__})."
    return None
