"""Every broker carries doorbells, comes back after a crash, and never holds up who rings."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
from kombu import pools

from core.types import ConversationId
from tests.conftest import missing
from tests.services import BROKERS, RabbitMQ, Redis, Server
from workers.app import app, configure
from workers.publisher import Publisher

PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module", params=list(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[Server]:
    kind = BROKERS[request.param]
    if kind in (Redis, RabbitMQ) and not kind.is_installed():  # type: ignore[attr-defined]
        missing(kind.name)
    server = kind()
    server.start()
    configure(server.url, ("slack",))
    yield server
    forget_broker()
    server.stop()


def forget_broker() -> None:
    """Celery keeps queues and connections for a process's life; here the next broker is another."""
    pools.reset()
    app.close()
    vars(app).pop("amqp", None)


class Echo:
    """A worker process of which we read what it was rung for."""

    def __init__(self, url: str) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.echo_worker", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())

    def next(self) -> str:
        return self.lines.get(timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def echo(broker: Server) -> Iterator[Echo]:
    worker = Echo(broker.url)
    yield worker
    worker.stop()


@pytest.fixture
def publisher(broker: Server) -> Iterator[Publisher]:
    ringing = Publisher()
    ringing.start()
    yield ringing
    ringing.stop()


def test_rings_reach_a_worker(broker: Server, echo: Echo, publisher: Publisher):
    conversation = ConversationId(uuid4())
    publisher.turn(conversation)
    publisher.delivery("slack", 7)

    assert {echo.next(), echo.next()} == {f"turn {conversation}", "delivery 7"}


def test_a_ring_after_a_debounce_reaches_a_worker_later_than_one_without(
    broker: Server, echo: Echo, publisher: Publisher
):
    later, at_once = ConversationId(uuid4()), ConversationId(uuid4())
    publisher.turn(later, after_seconds=0.5)
    publisher.turn(at_once)

    assert [echo.next(), echo.next()] == [f"turn {at_once}", f"turn {later}"]


async def test_a_dead_broker_refuses_and_once_back_carries_rings_again(
    broker: Server, echo: Echo, publisher: Publisher
):
    before, lost, after = (ConversationId(uuid4()) for _ in range(3))
    assert await publisher.turn_now(before)
    assert echo.next() == f"turn {before}"

    broker.kill()
    refused = await publisher.turn_now(lost)
    trouble = await publisher.check()
    broker.start()
    while not await publisher.turn_now(after):
        pass

    assert refused is False
    assert trouble is not None
    # A crash may bring a ring back that was heard before, never lose one that was confirmed.
    heard = [echo.next()]
    while heard[-1] == f"turn {before}":
        heard.append(echo.next())
    assert heard[-1] == f"turn {after}"
    assert await publisher.check() is None
