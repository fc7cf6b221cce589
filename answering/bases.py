"""The knowledge bases that a worker answers from, in its memory: indexes, heads, vectors."""

from __future__ import annotations

import asyncio
import unicodedata
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from answering.engine import Engine
from answering.fitting import IntentModel
from answering.signals import SignalHeads, Topics
from core.types import FaqEntry, KnowledgeBase, KnowledgeBaseId
from core.vectors import digest
from retrieval.fusion import Calibrator
from retrieval.index import Change, KnowledgeIndex, nameless, texts_of

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

QUERY_CACHE = 2_048
"""Vectors of what was asked lately, by exact text: semantic caching would mix up orders."""
APPLY_AT_ONCE = 25
"""Entries put into an index before the loop may serve others again."""
KEPT_AT_ONCE = 256
"""Vectors kept at once: whoever is killed while a base is encoded goes on from there."""
REFIT_SHARE = 0.1
"""The intents are fitted anew when so much of a base changed: its questions are in scope."""


class VectorCache(Protocol):
    """Vectors by the hash of their text, shared by all workers."""

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return the vectors that are known."""
        ...

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep vectors."""
        ...


class NoVectorCache:
    """Remembers nothing: for commands that run without a database."""

    async def get(self, hashes: Sequence[bytes]) -> Mapping[bytes, Sequence[float]]:
        """Return nothing."""
        return {}

    async def put(self, vectors: Mapping[bytes, Sequence[float]]) -> None:
        """Keep nothing."""


@dataclass
class Base:
    """One knowledge base in memory."""

    index: KnowledgeIndex
    intents: IntentModel
    signals: SignalHeads | None = None
    topics: Topics | None = None
    changed: int = 0


class Bases:
    """Holds knowledge bases and the vectors of what was asked lately.

    Args:
        engine: Encodes; started.
        calibrator: From signals to confidence, for the indexes.
        heads: Folder in which fitted intent heads are kept.
    """

    def __init__(self, engine: Engine, calibrator: Calibrator, heads: Path | None) -> None:
        self._engine = engine
        self._calibrator = calibrator
        self._heads = heads
        self._bases: dict[KnowledgeBaseId, Base] = {}
        self._queries: OrderedDict[str, Vector] = OrderedDict()
        self._signals: SignalHeads | None = None

    def known(self, base_id: KnowledgeBaseId) -> Base | None:
        """Return a base that was filled before."""
        return self._bases.get(base_id)

    def of(self, base: KnowledgeBase) -> Base:
        """Return a base, empty where it is new."""
        if base.id not in self._bases:
            index = KnowledgeIndex(self._engine.encoder.dimensions, self._calibrator)
            self._bases[base.id] = Base(index, IntentModel(self._heads))
        return self._bases[base.id]

    async def refresh(
        self,
        base: KnowledgeBase,
        changes: Sequence[FaqEntry],
        *,
        removed: Sequence[str] = (),
        intents: Sequence[tuple[str, str]] | None = None,
        vectors: VectorCache | None = None,
    ) -> None:
        """Take in what changed; only new texts are encoded, the rest comes from the cache.

        Args:
            base: The knowledge base.
            changes: Entries that are new or were edited, all published.
            removed: Ids that are no longer to be found.
            intents: All examples of the base as (text, label); None where they did not change.
            vectors: Where vectors are kept.
        """
        cache = vectors or NoVectorCache()
        held = self.of(base)
        wanted = [text for entry in changes for text in texts_of(entry)]
        known = await self._vectors(wanted, cache, self._engine.encode_passages, "passage")
        held.index.apply((), removed)
        for start in range(0, len(changes), APPLY_AT_ONCE):
            some = changes[start : start + APPLY_AT_ONCE]
            held.index.apply(
                [Change(e, np.stack([known[text] for text in texts_of(e)])) for e in some]
            )
            await asyncio.sleep(0)
        more = held.index.catch_up()
        while more:  # a large base builds its graph in slices, and others are served between
            await asyncio.sleep(0)
            more = held.index.catch_up()
        held.changed += len(changes) + len(removed)
        if intents is not None:
            held.intents.own = tuple(intents)
        if (
            intents is not None
            or held.intents.classifier is None
            or held.changed > REFIT_SHARE * len(held.index)
        ):
            held.changed = 0
            await self._refit(held, cache)

    async def _refit(self, held: Base, cache: VectorCache) -> None:
        """Fit the heads of a base, and once the ones that all bases share."""

        async def vectors(wanted: Sequence[str]) -> Mapping[str, Vector]:
            return await self._vectors(wanted, cache, self._engine.encode_examples, "query")

        async def passages(wanted: Sequence[str]) -> Mapping[str, Vector]:
            return await self._vectors(wanted, cache, self._engine.encode_passages, "passage")

        if self._signals is None:
            self._signals = await SignalHeads.shipped(vectors)
        entries = tuple(held.index.entries.values())
        await held.intents.fit([entry.question for entry in entries], vectors)
        held.signals = await self._signals.for_base([nameless(e) for e in entries], vectors)
        held.topics = await Topics.of_base(entries, held.intents.own, passages, vectors)

    async def encode(self, wanted: Sequence[str]) -> list[Vector]:
        """Return the vectors of questions; what was asked lately is not encoded again."""
        keys = [" ".join(unicodedata.normalize("NFKC", text).split()) for text in wanted]
        missing = [key for key in dict.fromkeys(keys) if key not in self._queries]
        fresh = dict(zip(missing, await self._engine.encode(missing), strict=True))
        vectors = [fresh[key] if key in fresh else self._queries[key] for key in keys]
        for key, vector in zip(keys, vectors, strict=True):
            self._queries[key] = vector
            self._queries.move_to_end(key)
        while len(self._queries) > QUERY_CACHE:
            self._queries.popitem(last=False)
        return vectors

    async def _vectors(
        self,
        wanted: Sequence[str],
        cache: VectorCache,
        encode: Callable[[Sequence[str]], Awaitable[Matrix]],
        role: str,
    ) -> Mapping[str, Vector]:
        """Return the vectors of texts of a base, from the cache where they are known."""
        hashes = {text: digest(role, text) for text in dict.fromkeys(wanted)}
        known = await cache.get(list(hashes.values())) if hashes else {}
        found = {
            text: np.asarray(known[key], np.float32) for text, key in hashes.items() if key in known
        }
        missing = [text for text in hashes if text not in found]
        for start in range(0, len(missing), KEPT_AT_ONCE):
            some = missing[start : start + KEPT_AT_ONCE]
            fresh = dict(zip(some, await encode(some), strict=True))
            await cache.put({hashes[text]: vector.tolist() for text, vector in fresh.items()})
            found |= fresh
        return found
