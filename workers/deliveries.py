"""Tasks of the delivery worker."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from core import deliveries
from core.errors import DeskhandError
from core.types import InboxId
from workers.app import SEND_DELIVERIES, task
from workers.process import Loop

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SendingProcess:
    """What the tasks of this process work with."""

    loop: Loop
    sending: deliveries.Sending


_process: list[SendingProcess] = []


def serve(process: SendingProcess) -> None:
    """Let the tasks of this process work with these services."""
    _process[:] = [process]


@task(SEND_DELIVERIES)
def send(inbox_id: int) -> None:
    """Send what is due in an inbox; a doorbell rung twice finds nothing to do."""
    (process,) = _process
    try:
        process.loop.run(deliveries.deliver(process.sending, InboxId(inbox_id)))
    except DeskhandError as error:  # the database is away: the sweeper rings again
        log.warning("Task put off", extra={"action": "task_put_off", "reason": str(error)})
