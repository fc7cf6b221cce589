"""Logs, trace ids and the names of all metrics."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TextIO
from uuid import uuid4

from prometheus_client import Counter, Histogram, disable_created_metrics

from core.masking import mask as mask

disable_created_metrics()  # a second series a counter, which nobody reads

trace_id: ContextVar[str] = ContextVar("trace_id", default="")
"""The trace of what this task works on: from the incoming event to the delivered reply."""

MESSAGES = Counter(
    "deskhand_messages", "Events that came in, by what became of them", ["channel", "outcome"]
)
STAGE_SECONDS = Histogram(
    "deskhand_stage_seconds",
    "Time spent in each stage of a message's way",
    ["stage"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
REPLIES = Counter(
    "deskhand_replies", "Replies committed, by where the words come from", ["tier", "decision"]
)
DELIVERIES = Counter(
    "deskhand_deliveries_finished",
    "Deliveries that ended, by who wrote them and how",
    ["author", "state"],
)
FEEDBACK = Counter("deskhand_feedback", "Verdicts of customers on replies", ["verdict"])
FALLBACKS = Counter(
    "deskhand_reply_fallbacks",
    "Answers that are the approved text, by why the model's words were not used",
    ["reason"],
)
TIER_SECONDS = Histogram(
    "deskhand_reply_seconds",
    "Time it took to word an answer, check included, by where the words come from",
    ["tier"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
SENTENCES = Counter(
    "deskhand_sentences_shown", "Sentences shown to customers before their reply was whole"
)
HANDOFFS = Counter("deskhand_handoffs", "Conversations that were put to wait for a person")
TURNS = Counter("deskhand_turns", "Turns that ended, by state", ["state"])
PUBLISHED = Counter(
    "deskhand_doorbells", "Doorbells rung at the broker; a failed one is made good", ["outcome"]
)


def new_trace_id() -> str:
    """Return a fresh trace id."""
    return uuid4().hex


@contextmanager
def stage(name: str) -> Generator[None]:
    """Time a stage of a message's way into `deskhand_stage_seconds`."""
    begun = time.perf_counter()
    try:
        yield
    finally:
        STAGE_SECONDS.labels(name).observe(time.perf_counter() - begun)


_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


CHATTY = (
    "httpx",
    "httpcore",
    "telegram",
    "slack_bolt",
    "slack_sdk",
    "aiohttp",
    "alembic",
    "sentence_transformers",
    "celery.worker.consumer.connection",
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, trace id, and the extra fields."""

    def __init__(self, role: str) -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, masked."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": mask(record.getMessage()),
        }
        if current := trace_id.get():
            line["trace_id"] = current
        for name, value in vars(record).items():
            if name not in _STANDARD and not name.startswith("_"):
                plain = isinstance(value, int | float | bool) or value is None
                line[name] = value if plain else mask(str(value))
        if record.exc_info:
            line["error"] = mask(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure_logging(role: str, level: str, stream: TextIO = sys.stdout) -> None:
    """Send all logs of this process to a stream, as JSON lines without personal data."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(role))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # These log whole URLs (Telegram's hold the token) or a line per request at INFO.
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    # The pool repeats each failed attempt to connect; `Unavailable` says it once, where it matters.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # On RabbitMQ it warns of each queue that it cannot delay; we never delay at the broker.
    logging.getLogger("celery.worker.consumer.delayed_delivery").setLevel(logging.ERROR)
