"""Milliseconds a search takes after encoding, and what a graph misses: by size and by filter.

`python -m benchmarks.retrieval [--entries 12000 200000]` prints one JSON object a size. Entries are
the sample shop's questions asked of made-up products; a vector is the sample's own, moved at
random by about as much as another wording moves it, since encoding 200,000 texts would take long.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.encode_sample import entries
from cli.commands.sample import shipped_vectors
from core.types import FaqEntry
from retrieval.dense import EXACT_UP_TO, DenseIndex
from retrieval.index import Change, KnowledgeIndex, texts_of

Vector = NDArray[np.float32]

QUERIES = 300
FILTERS = {"none": None, "50%": 2, "10%": 10, "1%": 100}
"""Which share of the entries passes: every so manieth has the tag."""
BEST = 24
NOISE = 0.02
SYLLABLES = (
    "ba",
    "ko",
    "ri",
    "ta",
    "ne",
    "lu",
    "vo",
    "mi",
    "sa",
    "del",
    "gar",
    "pen",
    "thor",
    "ix",
)


def main() -> None:
    """Measure each size that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[12_000, 200_000])
    for count in parser.parse_args().entries:
        print(json.dumps(measure(count)), flush=True)


def measure(count: int) -> dict[str, Any]:
    """Return the figures of an index of so many entries."""
    rng = np.random.default_rng(7)
    vectors = np.asarray(list(shipped_vectors()[1].values()), np.float32)
    made = [_entry(number, rng) for number in range(count)]
    index = KnowledgeIndex(vectors.shape[1])
    begun = time.perf_counter()
    for start in range(0, count, 500):
        some = made[start : start + 500]
        index.apply([Change(entry, _moved(vectors, entry, rng)) for entry in some])
    while index.catch_up():
        pass
    figures: dict[str, Any] = {
        "entries": count,
        "how": "graph" if count > EXACT_UP_TO else "exact",
        "seconds to build": round(time.perf_counter() - begun, 1),
        "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    asked = [made[i] for i in rng.integers(count, size=QUERIES)]
    queries = [_noised(vectors[_base(entry, vectors)], rng) for entry in asked]
    for name, every in FILTERS.items():
        tags = frozenset({f"every {every}"}) if every else frozenset[str]()
        figures[name] = _timed(index, asked, queries, tags)
    if count > EXACT_UP_TO:
        figures["recall against exact"] = _recall(made, vectors, queries, rng)
    return figures


def _timed(
    index: KnowledgeIndex,
    asked: Sequence[FaqEntry],
    queries: Sequence[Vector],
    tags: frozenset[str],
) -> dict[str, float]:
    index.search(asked[0].question, queries[0], locale="en", tags=tags)  # the filter is made once
    taken: list[float] = []
    for entry, query in zip(asked, queries, strict=True):
        begun = time.perf_counter()
        index.search(entry.question, query, locale="en", tags=tags)
        taken.append(1000 * (time.perf_counter() - begun))
    return {
        "p50": round(float(np.median(taken)), 2),
        "p95": round(float(np.quantile(taken, 0.95)), 2),
    }


def _recall(
    made: Sequence[FaqEntry], vectors: NDArray[np.float32], queries: Sequence[Vector], rng: Any
) -> dict[str, float]:
    """Return by filter the share of the exact best that the graph finds too."""
    graph, exact = DenseIndex(vectors.shape[1]), DenseIndex(vectors.shape[1], len(made))
    for entry in made:
        moved = _moved(vectors, entry, rng)
        graph.put(entry.id, moved)
        exact.put(entry.id, moved)
    while graph.catch_up():
        pass
    shares: dict[str, float] = {}
    for name, every in FILTERS.items():
        allowed = None
        if every:
            allowed = graph.mask([entry.id for entry in made if f"every {every}" in entry.tags])
        shared = 0
        for query in queries:
            found = {key for key, _ in graph.search(query, BEST, allowed)}
            shared += len(found & {key for key, _ in exact.search(query, BEST, allowed)})
        shares[name] = round(shared / (BEST * len(queries)), 4)
    return shares


SAMPLE = [entry for entry in entries() if entry.locale == "en"]


def _entry(number: int, rng: np.random.Generator) -> FaqEntry:
    name = "".join(SYLLABLES[i] for i in rng.integers(len(SYLLABLES), size=3)).title()
    like = SAMPLE[number % len(SAMPLE)]
    tags = tuple(f"every {every}" for every in FILTERS.values() if every and number % every == 0)
    return replace(
        like, id=str(number), question=f"{name}: {like.question}", alternates=(), tags=tags,
        entity=name, valid_from=None, valid_until=None,
    )  # fmt: skip


def _base(entry: FaqEntry, vectors: NDArray[np.float32]) -> int:
    return int(entry.id) * 7919 % len(vectors)


def _moved(vectors: NDArray[np.float32], entry: FaqEntry, rng: np.random.Generator) -> NDArray[Any]:
    vector = vectors[_base(entry, vectors)]
    return np.stack([_noised(vector, rng) for _ in texts_of(entry)])


def _noised(vector: Vector, rng: np.random.Generator) -> Vector:
    moved = vector + rng.normal(0, NOISE, len(vector)).astype(np.float32)
    return moved / np.float32(np.linalg.norm(moved))


if __name__ == "__main__":
    main()
