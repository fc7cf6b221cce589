"""One engine per process: a single thread that alone touches models and batches what waits."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np

from answering.generators.protocol import ContinuousGenerator, Generated
from answering.generators.protocol import Generator as ReplyModel
from answering.prompting import Prompt, cut, estimate_tokens
from core.errors import DeskhandError, PermanentError, Unavailable
from retrieval.encoders.protocol import Encoder, Vectors

log = logging.getLogger(__name__)

T = TypeVar("T")

TEXT_TOKENS = 480
"""A longer text is cut before it is queued: the encoder reads 512 tokens."""
ENCODE_BATCH_TOKENS = 4_096
"""Tokens of one encoder pass, padding included: longer passes gain nothing and delay others."""
GENERATE_BATCH = 16
"""Replies written at once: the cost of a token falls steeply up to here (ENGINE.md section 7)."""
SLICE = 16
"""Passages between which a waiting query is served."""
QUEUE_LIMIT = 512
"""Requests that may wait; beyond that a caller is refused and comes back later."""
STALL_SECONDS = 120.0
"""A single step of a model that takes this long will never end."""
EXPECTED_REPLY_SECONDS = 3.0
"""How long a generation is taken to last until one was measured, and again after a silence."""
FORGET_SECONDS = 60.0


class Monotonic(Protocol):
    """A clock that only goes forward, in seconds."""

    def __call__(self) -> float:
        """Return the time."""
        ...


@dataclass
class _Encoding:
    texts: list[str]
    expires_at: float
    future: Future[Vectors] = field(default_factory=Future[Vectors])

    @property
    def tokens(self) -> int:
        return len(self.texts) * max(estimate_tokens(text) for text in self.texts)


@dataclass
class _Generation:
    prompt: Prompt
    new_tokens: int
    expires_at: float
    begun_at: float = 0.0
    future: Future[Generated] = field(default_factory=Future[Generated])


class Engine:
    """Batches what is in flight, without waiting for more: a single request goes at once.

    Queries to the encoder come first, then a slice of passages, then one step of generation, so
    that a long reply or a large import never delays the understanding of a new message.

    Args:
        encoder: Turns texts into vectors.
        generator: Writes replies; None where only approved answers are given.
        on_stall: Called once if a model hangs or the thread dies, after all callers were failed;
            the process should end, since nobody can stop the thread.
        queue_limit: Requests that may wait.
        stall_seconds: How long one step may take.
    """

    def __init__(
        self,
        encoder: Encoder,
        generator: ReplyModel | ContinuousGenerator | None = None,
        *,
        on_stall: Callable[[], None] = lambda: None,
        queue_limit: int = QUEUE_LIMIT,
        stall_seconds: float = STALL_SECONDS,
        clock: Monotonic = time.monotonic,
    ) -> None:
        self.encoder = encoder
        self.generator = generator
        self._on_stall = on_stall
        self._queue_limit = queue_limit
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._work = threading.Condition()
        self._queries: deque[_Encoding] = deque()
        self._passages: deque[_Encoding] = deque()
        self._generations: deque[_Generation] = deque()
        self._running: dict[int, _Generation] = {}
        self._in_hand: list[_Encoding | _Generation] = []
        self._next_id = 0
        self._busy_since: float | None = None
        self._closing = threading.Event()
        self._is_dead = False
        self._reply_seconds = EXPECTED_REPLY_SECONDS
        self._measured_at = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._watchdog = threading.Thread(target=self._watch, name="engine-watchdog", daemon=True)

    def start(self) -> Engine:
        """Start the thread; return the engine."""
        self._thread.start()
        self._watchdog.start()
        return self

    def close(self) -> None:
        """Stop the thread after its current step; whoever still waits is failed."""
        self._closing.set()
        with self._work:
            self._work.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=self._stall_seconds)
        if self._watchdog.is_alive():
            self._watchdog.join(timeout=5)
        self._fail_all(Unavailable("the engine is stopping"))

    async def encode(self, texts: Sequence[str], *, seconds: float = 30.0) -> Vectors:
        """Return unit vectors of what customers say, shape (texts, hidden).

        Raises:
            Unavailable: Too much waits, the time is over or the engine is stopping.
            PermanentError: The encoder cannot read one of these texts.
        """
        return await self._encode(texts, seconds, self._queries)

    async def encode_passages(self, texts: Sequence[str], *, seconds: float = 3600.0) -> Vectors:
        """Return unit vectors of what is searched, shape (texts, hidden).

        Encoded in slices behind the queries, so that a large import delays no customer.
        """
        slices = [texts[i : i + SLICE] for i in range(0, len(texts), SLICE)]
        parts = [await self._encode(part, seconds, self._passages) for part in slices]
        return np.concatenate(parts) if parts else np.zeros((0, self.encoder.dimensions), "f4")

    async def encode_examples(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of many texts as customers say them, a slice at a time."""
        slices = [texts[i : i + SLICE] for i in range(0, len(texts), SLICE)]
        parts = [await self.encode(part, seconds=3600.0) for part in slices]
        return np.concatenate(parts) if parts else np.zeros((0, self.encoder.dimensions), "f4")

    async def _encode(
        self, texts: Sequence[str], seconds: float, queue: deque[_Encoding]
    ) -> Vectors:
        if not texts:
            return np.zeros((0, self.encoder.dimensions), np.float32)
        job = _Encoding([cut(text, TEXT_TOKENS) for text in texts], self._clock() + seconds)
        self._submit(job, queue)
        return await asyncio.wrap_future(job.future)

    async def generate(self, prompt: Prompt, seconds: float, new_tokens: int) -> Generated:
        """Return what the model writes; a caller who leaves frees its place.

        Raises:
            Unavailable: There is no model, too much waits, or the time is over.
        """
        if self.generator is None:
            raise Unavailable("no reply model is loaded")
        job = _Generation(prompt, new_tokens, self._clock() + seconds)
        self._submit(job, self._generations)
        return await asyncio.wrap_future(job.future)

    def _submit(self, job: T, queue: deque[T]) -> None:
        with self._work:
            if self._is_dead or self._closing.is_set():
                raise Unavailable("the engine is not running")
            if len(queue) >= self._queue_limit:
                raise Unavailable("too much waits for the models", retry_after=1.0)
            queue.append(job)
            self._work.notify()

    @property
    def waiting(self) -> int:
        """How many requests wait or run."""
        return (
            len(self._queries) + len(self._passages) + len(self._generations) + len(self._running)
        )

    @property
    def seconds_a_reply(self) -> float:
        """How long a generation takes now, by what was measured lately and what waits."""
        fresh = self._clock() - self._measured_at < FORGET_SECONDS
        each = self._reply_seconds if fresh else min(self._reply_seconds, EXPECTED_REPLY_SECONDS)
        return each * (1 + len(self._generations) / GENERATE_BATCH)

    def _run(self) -> None:
        try:
            while self._await_work():
                self._turn()
        except BaseException:  # whatever it was, nobody may wait for a thread that is gone
            log.exception("The engine died", extra={"action": "engine_died"})
            self._die()

    def _await_work(self) -> bool:
        with self._work:
            self._work.wait_for(
                lambda: (
                    self._closing.is_set()
                    or self._queries
                    or self._passages
                    or self._generations
                    or self._running
                )
            )
        return not self._closing.is_set()

    def _turn(self) -> None:
        """Serve all queries, one slice of passages and one step of generation."""
        while batch := self._take_encodings(self._queries):
            self._encode_batch(batch, self.encoder.encode_queries)
        if batch := self._take_encodings(self._passages, most=1):
            self._encode_batch(batch, self.encoder.encode_passages)
        if isinstance(self.generator, ContinuousGenerator):
            self._step(self.generator)
        elif self.generator is not None and (jobs := self._take_generations(GENERATE_BATCH)):
            self._generate_batch(self.generator, jobs)

    def _take_encodings(self, queue: deque[_Encoding], most: int = 64) -> list[_Encoding]:
        batch: list[_Encoding] = []
        longest = texts = 0
        with self._work:
            while queue and len(batch) < most:
                job = queue[0]
                if self._is_over(job):
                    queue.popleft()
                    continue
                longest = max(longest, *(estimate_tokens(t) for t in job.texts))
                texts += len(job.texts)
                if batch and longest * texts > ENCODE_BATCH_TOKENS:
                    break
                batch.append(queue.popleft())
            self._in_hand = list(batch)
        return batch

    def _encode_batch(
        self, batch: Sequence[_Encoding], encode: Callable[[Sequence[str]], Vectors]
    ) -> None:
        texts = [text for job in batch for text in job.texts]
        try:
            with self._stepping():
                vectors = encode(texts)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._encode_batch([job], encode)
            else:
                log.warning(
                    "A text could not be encoded",
                    extra={"action": "encoding_failed", "reason": type(error).__name__},
                )
                _fail(batch[0].future, PermanentError("the encoder cannot read this text"))
            return
        start = 0
        for job in batch:
            _resolve(job.future, vectors[start : start + len(job.texts)])
            start += len(job.texts)
        self._in_hand = []

    def _take_generations(self, room: int) -> list[_Generation]:
        jobs: list[_Generation] = []
        with self._work:
            while self._generations and len(jobs) < room:
                job = self._generations.popleft()
                if not self._is_over(job):
                    job.begun_at = self._clock()
                    jobs.append(job)
            self._in_hand = list(jobs)
        return jobs

    def _generate_batch(self, generator: ReplyModel, jobs: Sequence[_Generation]) -> None:
        try:
            with self._stepping():
                written = generator.generate(
                    [job.prompt for job in jobs], max(job.new_tokens for job in jobs)
                )
        except Exception as error:
            for job in jobs:
                _fail(job.future, _as_ours(error))
            return
        for job, result in zip(jobs, written, strict=True):
            self._finish(job, result)

    def _step(self, generator: ContinuousGenerator) -> None:
        """Take in what waits, run one step, hand out what ended, drop what nobody wants."""
        for job in self._take_generations(GENERATE_BATCH - len(self._running)):
            self._next_id += 1
            try:
                generator.start(self._next_id, job.prompt, job.new_tokens)
            except Exception as error:
                _fail(job.future, _as_ours(error))
            else:
                self._running[self._next_id] = job
        self._in_hand = []
        for request_id, job in list(self._running.items()):
            if self._is_over(job):
                generator.drop(request_id)
                del self._running[request_id]
        if not self._running:
            return
        try:
            with self._stepping():
                ended = generator.step()
        except Exception as error:
            log.exception("A step of generation failed", extra={"action": "generation_failed"})
            self._abandon(generator, _as_ours(error))
            return
        for request_id, result in ended.items():
            if (job := self._running.pop(request_id, None)) is not None:
                self._finish(job, result)

    def _abandon(self, generator: ContinuousGenerator, error: DeskhandError) -> None:
        for request_id, job in self._running.items():
            generator.drop(request_id)
            _fail(job.future, error)
        self._running.clear()

    def _finish(self, job: _Generation, result: Generated) -> None:
        taken = self._clock() - job.begun_at
        self._reply_seconds = 0.8 * self._reply_seconds + 0.2 * taken
        self._measured_at = self._clock()
        _resolve(job.future, result)

    def _is_over(self, job: _Encoding | _Generation) -> bool:
        """Return whether nobody waits for a job any more, or its time is over."""
        if job.future.cancelled():
            return True
        if self._clock() < job.expires_at:
            return False
        _fail(job.future, Unavailable("the time for a reply is over"))
        return True

    @contextmanager
    def _stepping(self) -> Generator[None]:
        """Mark the time in which the thread is inside a model, for the watchdog."""
        self._busy_since = self._clock()
        try:
            yield
        finally:
            self._busy_since = None

    def _watch(self) -> None:
        while not self._closing.wait(self._stall_seconds / 4):
            began = self._busy_since
            if began is not None and self._clock() - began > self._stall_seconds:
                log.critical("The engine stalled", extra={"action": "engine_stalled"})
                self._die()
                return
            if self._is_dead:
                return

    def _die(self) -> None:
        with self._work:
            if self._is_dead:
                return
            self._is_dead = True
        self._fail_all(Unavailable("the models stopped working"))
        self._on_stall()

    def _fail_all(self, error: DeskhandError) -> None:
        with self._work:
            jobs = [*self._queries, *self._passages, *self._generations]
            jobs += [*self._running.values(), *self._in_hand]
            self._queries.clear()
            self._passages.clear()
            self._generations.clear()
            self._in_hand = []
        for job in jobs:
            _fail(job.future, error)


def _as_ours(error: Exception) -> DeskhandError:
    if isinstance(error, DeskhandError):
        return error
    failed = Unavailable(f"the reply model failed: {type(error).__name__}")
    failed.__cause__ = error
    return failed


def _resolve(future: Future[T], value: T) -> None:
    with suppress(InvalidStateError):  # the caller left, or the watchdog was first
        future.set_result(value)


def _fail(future: Future[Any], error: DeskhandError) -> None:
    with suppress(InvalidStateError):  # the caller left, or the watchdog was first
        future.set_exception(error)
