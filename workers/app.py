"""The Celery application: queues, routes and the settings that ENGINE's measurements ask for.

A task is a doorbell: the database holds the truth, so tasks are acknowledged early, never retried
by Celery, and carry an id. Loading this module loads no task and no model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from celery import Celery
from kombu.entity import Queue

TURNS = "turns"
QUERIES = "queries"

ANSWER_TURN = "turns.answer"
ANSWER_QUERY = "queries.answer"
SEND_DELIVERIES = "deliveries.send"

KEY_PREFIX = "deskhand:"

app = Celery("deskhand")

P = ParamSpec("P")


def task(name: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a function as the task of that name; Celery's own decorator has no types."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        app.task(name=name, ignore_result=True)(function)
        return function

    return register


def delivery_queue(channel: str) -> str:
    """Return the queue of a channel's deliveries."""
    return f"deliveries.{channel}"


def configure(broker_url: str, channels: tuple[str, ...]) -> None:
    """Point the application at a broker.

    Args:
        broker_url: RabbitMQ, Redis or Valkey.
        channels: Names of the channels that have a delivery queue.
    """
    on_rabbitmq = broker_url.startswith("amqp")
    arguments = {"x-queue-type": "quorum"} if on_rabbitmq else {}
    names = (TURNS, QUERIES, *(delivery_queue(channel) for channel in channels))
    app.conf.update(
        broker_url=broker_url,
        task_queues=[Queue(name, routing_key=name, queue_arguments=arguments) for name in names],
        task_default_queue=TURNS,
        task_create_missing_queues=False,
        task_default_queue_type="quorum" if on_rabbitmq else "classic",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        accept_content=["json"],
        broker_transport_options=_rabbitmq_options() if on_rabbitmq else _redis_options(),
        # A broker that is away or hangs costs a publish milliseconds, not seconds: the sweeper
        # makes good what it missed.
        broker_connection_timeout=1.0,
        task_publish_retry_policy={
            "max_retries": 0,
            "interval_start": 0,
            "interval_step": 0,
            "interval_max": 0,
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_proc_alive_timeout=60,
    )


def _rabbitmq_options() -> dict[str, object]:
    return {"confirm_publish": True}


def _redis_options() -> dict[str, object]:
    return {
        "global_keyprefix": KEY_PREFIX,
        "socket_timeout": 5.0,
        "socket_connect_timeout": 0.5,
        # What a killed worker had prefetched comes back after this; the sweeper is sooner.
        "visibility_timeout": 60,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 10,
    }
