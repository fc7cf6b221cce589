"""One engine per process: a single thread that alone touches models and batches what waits."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from answering.engine.asking import Asking
from answering.engine.jobs import (
    Encoding,
    Errand,
    Generation,
    Job,
    Monotonic,
    Scoring,
    Told,
    as_ours,
    fail,
    pair_tokens,
    resolve,
)
from answering.engine.waiting import Queue
from answering.engine.writing import Pace, Writing
from answering.generators.protocol import (
    AdapterHost,
    ContinuousGenerator,
    Generated,
    RemoteGenerator,
)
from answering.generators.protocol import Generator as ReplyModel
from answering.prompting import Prompt, cut, estimate_tokens
from core.errors import ConfigurationError, DeskhandError, PermanentError, Unavailable
from retrieval.encoders.protocol import Encoder, PairScorer, Scores, Vectors

log = logging.getLogger(__name__)

T = TypeVar("T")
J = TypeVar("J", bound=Job)

TEXT_TOKENS = 480
"""A longer text is cut before it is queued: the encoder reads 512 tokens."""
BATCH_TOKENS = 4_096
"""Tokens of one pass of an encoder or a scorer, padding included: longer passes gain nothing and
delay others."""
BATCH_JOBS = 64
SLICE = 16
"""Passages between which a waiting query is served."""
QUEUE_LIMIT = 512
"""Requests that may wait; beyond that a caller is refused and comes back later."""
STALL_SECONDS = 120.0
"""A single step of a model that takes this long will never end."""


class Engine:
    """Batches what is in flight, without waiting for more: a single request goes at once.

    Queries to the encoder come first, then pairs to score, a slice of passages and one step of
    generation, so that a long reply or a large import never delays the understanding of a new
    message. A reply model on a server is asked beside all that.

    Args:
        encoder: Turns texts into vectors.
        generator: Writes replies; None where only approved answers are given.
        scorers: Read pairs of texts, by the name under which they are asked.
        on_stall: Called once if a model hangs or the thread dies, after all callers were failed;
            the process should end, since nobody can stop the thread.
        queue_limit: Requests that may wait, a lane.
        stall_seconds: How long one step may take.
    """

    def __init__(
        self,
        encoder: Encoder,
        generator: ReplyModel | ContinuousGenerator | None = None,
        *,
        scorers: Mapping[str, PairScorer] | None = None,
        on_stall: Callable[[], None] = lambda: None,
        queue_limit: int = QUEUE_LIMIT,
        stall_seconds: float = STALL_SECONDS,
        clock: Monotonic = time.monotonic,
    ) -> None:
        self.encoder = encoder
        self.generator = generator
        self.adapters: set[str] = set()
        self.scorers: dict[str, PairScorer] = dict(scorers or {})
        self._on_stall = on_stall
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._work = threading.Condition()
        self._queries = Queue[Encoding](self._work, queue_limit, clock)
        self._pairs = Queue[Scoring](self._work, queue_limit, clock)
        self._passages = Queue[Encoding](self._work, queue_limit, clock)
        self._generations = Queue[Generation](self._work, queue_limit, clock)
        self._errands = Queue[Errand](self._work, queue_limit, clock)
        self._pace = Pace(clock)
        self._writing = Writing(self._generations, self._pace, clock, self._stepping)
        self._asking = Asking(queue_limit, self._pace, clock)
        self._in_hand: Sequence[Job] = ()
        self._busy_since: float | None = None
        self._closing = threading.Event()
        self._is_dead = False
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
        self, texts: Sequence[str], seconds: float, queue: Queue[Encoding]
    ) -> Vectors:
        if not texts:
            return np.zeros((0, self.encoder.dimensions), np.float32)
        job = Encoding([cut(text, TEXT_TOKENS) for text in texts], self._clock() + seconds)
        self._submit(job, queue)
        return await asyncio.wrap_future(job.future)

    async def score_pairs(
        self, name: str, pairs: Sequence[tuple[str, str]], *, seconds: float = 30.0
    ) -> Scores:
        """Return a scorer's logits of pairs of texts, shape (pairs, classes).

        Raises:
            Unavailable: There is no such scorer, too much waits, or the time is over.
            PermanentError: The scorer cannot read one of these pairs.
        """
        scorer = self.scorers.get(name)
        if scorer is None:
            raise Unavailable(f"no {name} is loaded")
        expires_at = self._clock() + seconds
        parts: list[Scores] = []
        for some in _within_budget([(cut(a, TEXT_TOKENS), cut(b, TEXT_TOKENS)) for a, b in pairs]):
            job = Scoring(name, some, expires_at)
            self._submit(job, self._pairs)
            parts.append(await asyncio.wrap_future(job.future))
        return np.concatenate(parts) if parts else np.zeros((0, len(scorer.classes)), np.float32)

    async def generate(
        self, prompt: Prompt, seconds: float, new_tokens: int, on_text: Told | None = None
    ) -> Generated:
        """Return what the model writes; a caller who leaves frees its place.

        Args:
            prompt: What the reply rests on, and the adapter that is to write it.
            seconds: Until nobody waits for it any more.
            new_tokens: The longest reply.
            on_text: Called with the whole text so far, every few tokens, from another thread where
                the model is this process's, and with the whole reply at last. It must be cheap.

        Raises:
            Unavailable: There is no model, too much waits, or the time is over.
        """
        generator = self.generator
        if generator is None:
            raise Unavailable("no reply model is loaded")
        if isinstance(generator, RemoteGenerator):
            return await self._asking.generate(generator, prompt, seconds, new_tokens, on_text)
        job = Generation(prompt, new_tokens, self._clock() + seconds, on_text)
        self._submit(job, self._generations)
        return await asyncio.wrap_future(job.future)

    async def run(self, work: Callable[[], T], *, seconds: float = STALL_SECONDS) -> T:
        """Return what a function returns that only the thread of the models may call.

        Raises:
            Unavailable: The time is over or the engine is stopping; or what the function raises.
        """
        job = Errand(work, self._clock() + seconds)
        self._submit(job, self._errands)
        return await asyncio.wrap_future(job.future)

    async def add_adapter(self, name: str, folder: Path) -> None:
        """Let prompts name an adapter, beside those that are live; replies under way go on.

        Args:
            name: What prompts call it.
            folder: The adapter.

        Raises:
            ConfigurationError: It does not fit the reply model, or that takes no adapters.
            Unavailable: There is no reply model, or it does not work now.
        """
        generator = self.generator
        if generator is None:
            raise Unavailable("no reply model is loaded")
        if not isinstance(generator, AdapterHost):
            raise ConfigurationError(
                f"the reply model {generator.name} takes one adapter, for all bases"
            )
        if name in self.adapters:
            return
        place = await asyncio.to_thread(generator.ready_adapter, folder)
        if isinstance(generator, RemoteGenerator):
            await asyncio.to_thread(generator.add_adapter, name, place)
        else:
            await self.run(lambda: generator.add_adapter(name, place))
        self.adapters.add(name)

    async def keep_adapters(self, names: Collection[str]) -> None:
        """Free the adapters that have none of these names."""
        generator = self.generator
        for name in self.adapters - set(names):
            self.adapters.discard(name)
            if isinstance(generator, AdapterHost):
                await self.run(partial(generator.drop_adapter, name))

    @property
    def trouble(self) -> str | None:
        """Why the reply model does not write now, None while it does."""
        return getattr(self.generator, "trouble", None)

    def _submit(self, job: J, queue: Queue[J]) -> None:
        with self._work:
            if self._is_dead or self._closing.is_set():
                raise Unavailable("the engine is not running")
            queue.put(job)

    @property
    def waiting(self) -> int:
        """How many requests wait or run."""
        return self._queued + len(self._writing.running) + len(self._asking)

    @property
    def seconds_a_reply(self) -> float:
        """How long a generation takes now, by what was measured lately and what waits."""
        return self._pace.seconds(len(self._generations))

    @property
    def _queued(self) -> int:
        queues = (self._queries, self._pairs, self._passages, self._generations, self._errands)
        return sum(map(len, queues))

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
                lambda: self._closing.is_set() or self._queued or self._writing.running
            )
        return not self._closing.is_set()

    def _turn(self) -> None:
        """Serve all queries, then some of what else waits, and one step of generation."""
        while batch := self._take_encodings(self._queries, BATCH_JOBS):
            self._encode_batch(batch, self.encoder.encode_queries)
        if scorings := self._take_pairs():
            self._score_batch(scorings)
        if batch := self._take_encodings(self._passages, most=1):
            self._encode_batch(batch, self.encoder.encode_passages)
        for errand in self._errands.take(1):
            self._do(errand)
        self._in_hand = ()
        if self.generator is not None:
            self._writing.turn(self.generator)

    def _take_encodings(self, queue: Queue[Encoding], most: int) -> list[Encoding]:
        longest = texts = 0

        def fits(job: Encoding) -> bool:
            nonlocal longest, texts
            longest = max(longest, *(estimate_tokens(text) for text in job.texts))
            texts += len(job.texts)
            return longest * texts <= BATCH_TOKENS

        taken = queue.take(most, fits)
        self._in_hand = taken
        return taken

    def _encode_batch(
        self, batch: Sequence[Encoding], encode: Callable[[Sequence[str]], Vectors]
    ) -> None:
        texts = [text for job in batch for text in job.texts]
        try:
            with self._stepping():
                vectors = encode(texts)
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._encode_batch([job], encode)
                return
            _refused("text", error)
            fail(batch[0].future, PermanentError("the encoder cannot read this text"))
            return
        start = 0
        for job in batch:
            resolve(job.future, vectors[start : start + len(job.texts)])
            start += len(job.texts)

    def _take_pairs(self) -> list[Scoring]:
        """Return what waits for the same scorer and fits into one pass."""
        longest = pairs = 0
        names: set[str] = set()

        def fits(job: Scoring) -> bool:
            nonlocal longest, pairs
            longest = max(longest, *pair_tokens(job.pairs))
            pairs += len(job.pairs)
            names.add(job.name)
            return len(names) == 1 and longest * pairs <= BATCH_TOKENS

        taken = self._pairs.take(BATCH_JOBS, fits)
        self._in_hand = taken
        return taken

    def _score_batch(self, batch: Sequence[Scoring]) -> None:
        name = batch[0].name
        scorer = self.scorers.get(name)
        if scorer is None:  # taken away meanwhile
            for job in batch:
                fail(job.future, Unavailable(f"no {name} is loaded"))
            return
        try:
            with self._stepping():
                scores = scorer.score([pair for job in batch for pair in job.pairs])
        except Exception as error:
            if len(batch) > 1:
                for job in batch:
                    self._score_batch([job])
                return
            _refused("pair of texts", error)
            fail(batch[0].future, PermanentError(f"the {name} cannot read these texts"))
            return
        start = 0
        for job in batch:
            resolve(job.future, scores[start : start + len(job.pairs)])
            start += len(job.pairs)

    def _do(self, errand: Errand) -> None:
        self._in_hand = [errand]
        try:
            with self._stepping():
                done: Any = errand.work()
        except Exception as error:
            fail(errand.future, as_ours(error))
        else:
            resolve(errand.future, done)

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
        for queue in (self._queries, self._pairs, self._passages, self._errands):
            queue.fail_all(error)
        for job in self._in_hand:
            fail(job.future, error)
        self._writing.fail_all(error)


def _within_budget(pairs: Sequence[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Split pairs into passes, so that many of them never hold up a waiting query for long."""
    passes: list[list[tuple[str, str]]] = []
    longest = 0
    for pair, tokens in zip(pairs, pair_tokens(pairs), strict=True):
        longest = max(longest, tokens)
        if not passes or longest * (len(passes[-1]) + 1) > BATCH_TOKENS:
            passes.append([])
            longest = tokens
        passes[-1].append(pair)
    return passes


def _refused(what: str, error: Exception) -> None:
    log.warning(
        f"A {what} could not be read by a model",
        extra={"action": "encoding_failed", "reason": type(error).__name__},
    )
