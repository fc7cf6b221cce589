"""The bounded queues before the engine's thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from answering.engine.jobs import Job, Monotonic, fail
from core.errors import DeskhandError, Unavailable

J = TypeVar("J", bound=Job)


class Queue(Generic[J]):
    """First come, first served; what nobody waits for any more is left out.

    Args:
        work: Held while the queue changes, and told of what comes in.
        limit: How many may wait; beyond that a caller is refused and comes back later.
        clock: For the jobs' deadlines.
    """

    def __init__(self, work: threading.Condition, limit: int, clock: Monotonic) -> None:
        self._work = work
        self._limit = limit
        self._clock = clock
        self._jobs: deque[J] = deque()

    def put(self, job: J) -> None:
        """Let a job wait; the caller holds `work`.

        Raises:
            Unavailable: Too much waits.
        """
        if len(self._jobs) >= self._limit:
            raise Unavailable("too much waits for the models", retry_after=1.0)
        self._jobs.append(job)
        self._work.notify()

    def take(self, most: int, fits: Callable[[J], bool] = lambda job: True) -> list[J]:
        """Return the jobs that come next: at most so many, up to the first that does not fit.

        The first one always fits: what is too large alone must not wait for ever.
        """
        taken: list[J] = []
        with self._work:
            while self._jobs and len(taken) < most:
                if is_over(self._jobs[0], self._clock):
                    self._jobs.popleft()
                    continue
                if not fits(self._jobs[0]) and taken:
                    break
                taken.append(self._jobs.popleft())
        return taken

    def fail_all(self, error: DeskhandError) -> None:
        """Fail all that wait."""
        with self._work:
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            fail(job.future, error)

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._jobs)


def is_over(job: Job, clock: Monotonic) -> bool:
    """Return whether nobody waits for a job any more, or its time is over, which it is told."""
    if job.future.cancelled():
        return True
    if clock() < job.expires_at:
        return False
    fail(job.future, Unavailable("the time for a reply is over"))
    return True
