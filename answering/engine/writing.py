"""The lane of replies: what the engine's thread does for the reply model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from answering.engine.jobs import Generation, Monotonic, as_ours, fail, resolve
from answering.engine.waiting import Queue, is_over
from answering.generators.protocol import ContinuousGenerator, Generated
from answering.generators.protocol import Generator as ReplyModel
from core.errors import DeskhandError

log = logging.getLogger(__name__)

GENERATE_BATCH = 16
"""Replies written at once: the cost of a token falls steeply up to here (ENGINE.md section 7)."""
EXPECTED_REPLY_SECONDS = 3.0
"""How long a generation is taken to last until one was measured, and again after a silence."""
FORGET_SECONDS = 60.0


class Pace:
    """How long a reply takes to write now, by those that were written lately.

    Args:
        clock: Of the engine.
    """

    def __init__(self, clock: Monotonic) -> None:
        self._clock = clock
        self._seconds = EXPECTED_REPLY_SECONDS
        self._measured_at = -FORGET_SECONDS

    def note(self, seconds: float) -> None:
        """Take in how long one took."""
        self._seconds = 0.8 * self._seconds + 0.2 * seconds
        self._measured_at = self._clock()

    def seconds(self, waiting: int) -> float:
        """Return how long one takes that comes behind so many."""
        fresh = self._clock() - self._measured_at < FORGET_SECONDS
        each = self._seconds if fresh else min(self._seconds, EXPECTED_REPLY_SECONDS)
        return each * (1 + waiting / GENERATE_BATCH)


class Writing:
    """Replies that wait and that are being written; used by the engine's thread alone.

    Args:
        queue: What waits.
        pace: Is told how long each took.
        clock: Of the engine.
        stepping: Marks the time inside the model, for the watchdog.
    """

    def __init__(
        self,
        queue: Queue[Generation],
        pace: Pace,
        clock: Monotonic,
        stepping: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._queue = queue
        self._pace = pace
        self._clock = clock
        self._stepping = stepping
        self._in_hand: list[Generation] = []
        self._next_id = 0
        self.running: dict[int, Generation] = {}

    def turn(self, generator: ReplyModel | ContinuousGenerator) -> None:
        """Run one step, or one batch on a generator that cannot be stepped."""
        if isinstance(generator, ContinuousGenerator):
            self._step(generator)
        elif jobs := self._take(GENERATE_BATCH):
            self._write(generator, jobs)
        self._in_hand = []

    def fail_all(self, error: DeskhandError) -> None:
        """Fail all that wait or run; any thread may call this."""
        self._queue.fail_all(error)
        for job in [*self._in_hand, *self.running.values()]:
            fail(job.future, error)

    def _take(self, room: int) -> list[Generation]:
        self._in_hand = self._queue.take(room)
        now = self._clock()
        for job in self._in_hand:
            job.begun_at = now
        return self._in_hand

    def _write(self, generator: ReplyModel, jobs: Sequence[Generation]) -> None:
        try:
            with self._stepping():
                written = generator.generate(
                    [job.prompt for job in jobs], max(job.new_tokens for job in jobs)
                )
        except Exception as error:
            for job in jobs:
                fail(job.future, as_ours(error))
            return
        for job, result in zip(jobs, written, strict=True):
            self._finish(job, result)

    def _step(self, generator: ContinuousGenerator) -> None:
        """Take in what waits, run one step, hand out what ended, drop what nobody wants."""
        for job in self._take(GENERATE_BATCH - len(self.running)):
            self._next_id += 1
            try:
                with self._stepping():
                    generator.start(self._next_id, job.prompt, job.new_tokens, job.hears)
            except Exception as error:
                fail(job.future, as_ours(error))
            else:
                self.running[self._next_id] = job
        for request_id, job in list(self.running.items()):
            if is_over(job, self._clock):
                generator.drop(request_id)
                del self.running[request_id]
        if not self.running:
            return
        try:
            with self._stepping():
                ended = generator.step()
        except Exception as error:
            log.exception("A step of generation failed", extra={"action": "generation_failed"})
            self._abandon(generator, as_ours(error))
            return
        for request_id, result in ended.items():
            if (job := self.running.pop(request_id, None)) is not None:
                self._finish(job, result)

    def _abandon(self, generator: ContinuousGenerator, error: DeskhandError) -> None:
        for request_id, job in self.running.items():
            generator.drop(request_id)
            fail(job.future, error)
        self.running.clear()

    def _finish(self, job: Generation, result: Generated) -> None:
        self._pace.note(self._clock() - job.begun_at)
        if (tell := job.hears) is not None and result.error is None:
            tell(result.text)
        resolve(job.future, result)
