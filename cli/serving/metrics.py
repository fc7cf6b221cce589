"""/metrics: the counters of the processes on this machine, and the gauges that the database knows.

Counters live in each process. Where PROMETHEUS_MULTIPROC_DIR is set (`deskhand up` sets it), all
processes of the machine write them there and the gateway shows them together.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.alerts import AlertKind
from core.db import alerts, processes
from core.db.connect import Database
from core.errors import Unavailable
from core.types import DeliveryState

NONE_OPEN: Mapping[str, int] = {}


class Gauges(Collector):
    """What the database knows at this moment."""

    def __init__(
        self,
        queue: Mapping[str, float],
        deliveries: Mapping[str, int],
        alerts: Mapping[str, int] = NONE_OPEN,
    ) -> None:
        self._queue = queue
        self._deliveries = deliveries
        self._alerts = alerts

    def collect(self) -> Iterable[Metric]:
        """Return the gauges."""
        yield GaugeMetricFamily(
            "deskhand_turns_open",
            "Turns that wait for an answer or are being answered",
            self._queue.get("turns_open", 0),
        )
        yield GaugeMetricFamily(
            "deskhand_oldest_waiting_turn_seconds",
            "Age of the oldest open turn",
            self._queue.get("oldest_waiting_turn_seconds", 0),
        )
        yield GaugeMetricFamily(
            "deskhand_conversations_waiting",
            "Conversations that wait for a person",
            self._queue.get("waiting_for_a_person", 0),
        )
        states = GaugeMetricFamily(
            "deskhand_deliveries",
            "Deliveries by state; finished ones of the last day",
            labels=["state"],
        )
        for state in DeliveryState:
            states.add_metric([state], self._deliveries.get(state, 0))
        yield states
        alerts = GaugeMetricFamily(
            "deskhand_alerts_open", "Alerts that nobody has cleared", labels=["kind"]
        )
        for kind in AlertKind:
            alerts.add_metric([kind], self._alerts.get(kind, 0))
        yield alerts


def route(database: Database) -> Route:
    """Return /metrics."""

    async def metrics(request: Request) -> Response:
        shown = [_counters()]
        try:
            async with database.transaction() as conn:
                queue, deliveries = await processes.figures(conn)
                opened = await alerts.open_by_kind(conn)
        except Unavailable:
            up = 0
        else:
            up = 1
            shown.append(_registry_of(Gauges(queue, deliveries, opened)))
        shown.append(_registry_of(_DatabaseUp(up)))
        text = b"".join(generate_latest(registry) for registry in shown)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return Route("/metrics", metrics)


class _DatabaseUp(Collector):
    def __init__(self, up: int) -> None:
        self._up = up

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "deskhand_database_up", "Whether the gateway reaches its database", self._up
        )


def _registry_of(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def _counters() -> CollectorRegistry:
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return registry
    return REGISTRY
