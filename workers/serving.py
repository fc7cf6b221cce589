"""What answers in this process now, and its replacement between two turns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from answering.pairing import Pair, encoding_part, release, replying_part
from answering.pipeline import Pipeline
from core.ports import Show
from core.types import KnowledgeBaseId, Passage, Question, Reply
from workers.indexing import Indexer

log = logging.getLogger(__name__)

ENCODER_VERSION = "encoder_version"
REPLY_VERSION = "reply_version"
"""How a trace names the promoted versions, beside the models' own names."""
KEPT_SECONDS = 900.0
"""How long what was replaced stays loaded, so that a rollback is instant; it costs memory."""


@dataclass(eq=False)
class Lane:
    """A pipeline with what keeps its indexes current.

    Attributes:
        versions: The promoted models in it by kind, which the trace shows beside their names.
        turns: How many are under way on it.
    """

    pipeline: Pipeline
    indexer: Indexer
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    turns: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def turn(self) -> Generator[None]:
        """Hold the lane for a turn: what is held is not freed."""
        self.turns += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.turns -= 1
            if not self.turns:
                self.idle.set()

    async def drained(self) -> None:
        """Wait until no turn is under way."""
        while self.turns:
            await self.idle.wait()


class Serving:
    """Answers on the lane that serves; a turn ends on the lane on which it began.

    Args:
        lane: Serves at first.
        kept_seconds: How long a replaced lane stays loaded.
    """

    def __init__(self, lane: Lane, *, kept_seconds: float = KEPT_SECONDS) -> None:
        self.lane = lane
        self._kept_seconds = kept_seconds
        self._lanes = [lane]
        self._following = {lane.indexer: asyncio.create_task(lane.indexer.follow())}
        self._leaving: dict[Lane, asyncio.Task[None]] = {}

    async def answer(self, question: Question, show: Show | None = None) -> Reply:
        """Return what to say; `show` takes its sentences as they are written."""
        lane = self.lane
        with lane.turn():
            reply = await lane.pipeline.answer(question, show)
        if not lane.versions:
            return reply
        models = {**reply.trace.models, **lane.versions}
        return replace(reply, trace=replace(reply.trace, models=models))

    async def search(self, base_id: KnowledgeBaseId, text: str, limit: int) -> list[Passage]:
        """Return the passages that a customer's question would find, best first."""
        lane = self.lane
        with lane.turn():
            return await lane.pipeline.search(base_id, text, limit)

    @property
    def lanes(self) -> list[Lane]:
        """The lane that serves, and those that are kept for a rollback or end their turns."""
        return list(self._lanes)

    def switch(self, lane: Lane) -> None:
        """Let a lane serve whose indexes are complete: one new to this process, or a kept one."""
        if lane is self.lane:
            return
        if lane not in self._lanes:
            self._lanes.append(lane)
        if (leaving := self._leaving.pop(lane, None)) is not None:
            leaving.cancel()
        if lane.indexer not in self._following:
            self._following[lane.indexer] = asyncio.create_task(lane.indexer.follow())
        old, self.lane = self.lane, lane
        lane.indexer.serve(lane.pipeline)
        self._leaving[old] = asyncio.create_task(self._leave(old))
        log.info(
            "Models switched",
            extra={
                "action": "models_switched",
                "models": {**lane.pipeline.models, **lane.versions},
            },
        )

    async def _leave(self, lane: Lane) -> None:
        """Free a replaced lane once nobody is likely to want it back."""
        await asyncio.sleep(self._kept_seconds)
        await lane.drained()
        await self._free(lane)

    async def _free(self, lane: Lane) -> None:
        self._lanes.remove(lane)
        self._leaving.pop(lane, None)
        if lane.indexer not in {other.indexer for other in self._lanes}:
            following = self._following.pop(lane.indexer)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        kept = [other.pipeline.engine for other in self._lanes]
        await asyncio.to_thread(release, lane.pipeline.engine, kept)

    def adopt_reply_model(self, lane: Lane) -> None:
        """Give a lane that does not serve yet the reply model of the one that does."""
        engine = self.lane.pipeline.engine
        lane.pipeline.engine = Pair(encoding_part(lane.pipeline.engine), replying_part(engine))
        versions = {k: v for k, v in lane.versions.items() if k != REPLY_VERSION}
        if REPLY_VERSION in self.lane.versions:
            versions[REPLY_VERSION] = self.lane.versions[REPLY_VERSION]
        lane.versions = versions

    async def discard(self, pipeline: Pipeline) -> None:
        """Free a pipeline that will not serve."""
        kept = [other.pipeline.engine for other in self._lanes]
        await asyncio.to_thread(release, pipeline.engine, kept)

    async def drop_kept(self) -> None:
        """Free all replaced lanes whose turns have ended: their memory is needed now."""
        for lane in [lane for lane in self._leaving if not lane.turns]:
            self._leaving[lane].cancel()
            await self._free(lane)

    async def close(self) -> None:
        """Stop everything."""
        tasks = [*self._leaving.values(), *self._following.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        while self._lanes:
            lane = self._lanes.pop()
            kept = [other.pipeline.engine for other in self._lanes]
            await asyncio.to_thread(release, lane.pipeline.engine, kept)
