"""A worker that prints what it was rung for: `python -m tests.contract.echo_worker BROKER_URL`."""

from __future__ import annotations

import sys

from workers.app import ANSWER_TURN, SEND_DELIVERIES, TURNS, configure, delivery_queue, task
from workers.process import new_name, serve_queues


@task(ANSWER_TURN)
def turn(conversation_id: str) -> None:
    print(f"turn {conversation_id}\n", end="", flush=True)  # one write: two threads print


@task(SEND_DELIVERIES)
def delivery(inbox_id: int) -> None:
    print(f"delivery {inbox_id}\n", end="", flush=True)


if __name__ == "__main__":
    configure(sys.argv[1], ("slack",))
    sys.exit(serve_queues(new_name("echo"), [TURNS, delivery_queue("slack")], 2))
