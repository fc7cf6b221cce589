"""An index of unit vectors in memory; an entry has several and they score together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval.approximate import ApproximateIndex

Vector = NDArray[np.float32]
Matrix = NDArray[np.float32]

WHOLE_SHARE = 0.5
"""Weight of the last text: the question with its answer."""
MEAN_SHARE = 0.3
"""Weight of the mean of all texts; the rest is the best text's.

The best text alone is fooled by short alternates of other entries: on 310 customers' questions
written for the sample shop it finds the entry first for 0.67, so weighted for 0.71, with words
(fusion.py) for 0.82.
"""

POOL = 128
"""How many entries by their blended vector alone are then scored with all of their texts."""
EXACT_UP_TO = 40_000
"""Entries up to which every one is compared; beyond, a graph finds the pool."""
FEW = 12_000
"""So few entries behind a filter are compared one by one however large the base is."""
CATCH_UP = 500
"""Entries that join the graph at each change, so that no change holds up the loop for long."""


class DenseIndex:
    """The blended cosine of each entry's texts, exact or by a graph in large bases.

    An entry has one blended vector, by which a pool is found, and one vector a text, with which
    the pool is scored. Up to `exact_up_to` entries the pool is found by comparing all, since
    filters make graphs lie and a worker's own matrix is faster; beyond, by a graph, unless a
    filter leaves few. Both ways score alike, so results do not jump at the border.

    Args:
        dimensions: The width of the vectors.
        exact_up_to: Entries up to which no graph is used.
    """

    def __init__(self, dimensions: int, exact_up_to: int = EXACT_UP_TO) -> None:
        self._dimensions = dimensions
        self._exact_up_to = exact_up_to
        self._graph: ApproximateIndex | None = None
        self._waiting: dict[int, None] = {}
        self._matrix: Matrix = np.zeros((64, dimensions), np.float32)
        self._blends: Matrix = np.zeros((64, dimensions), np.float32)
        self._owners = np.full(64, -1, np.int64)
        self._rows: dict[str, list[int]] = {}
        self._slots: dict[str, int] = {}
        self._keys: list[str | None] = []
        self._free_rows: list[int] = []
        self._free_slots: list[int] = []
        self._used = 0

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, key: str, vectors: Matrix) -> None:
        """Add an entry's vectors, shape (texts, dimensions), or replace those it had.

        The last is that of the question with its answer.
        """
        self.remove(key)
        rows = [self._take_row() for _ in range(len(vectors))]
        slot = self._take_slot()
        self._matrix[rows] = vectors
        self._blends[slot] = WHOLE_SHARE * vectors[-1] + MEAN_SHARE * vectors.mean(axis=0)
        self._owners[rows] = slot
        self._rows[key] = rows
        self._slots[key] = slot
        self._keys[slot] = key
        self._waiting[slot] = None

    def remove(self, key: str) -> None:
        """Forget an entry; one that is not there is no error."""
        rows = self._rows.pop(key, None)
        if rows is None:
            return
        slot = self._slots.pop(key)
        self._waiting.pop(slot, None)
        if self._graph is not None:
            self._graph.remove(slot)
        self._matrix[rows] = 0.0
        self._owners[rows] = -1
        self._keys[slot] = None
        self._free_rows.extend(rows)
        self._free_slots.append(slot)

    def search(
        self, query: Vector, limit: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """Return the best entries with their score, best first.

        Args:
            query: A unit vector, shape (dimensions,).
            limit: How many entries at most; up to POOL.
            allowed: A mask over slots, as `mask` makes it.
        """
        if not self._rows or limit < 1:
            return []
        pool = self._pool(query, allowed)
        scores = self._scores_of(pool, query)
        best = np.argsort(-scores, kind="stable")[:limit]
        return [(key, float(scores[i])) for i in best if (key := self._keys[pool[i]]) is not None]

    def score(self, keys: Sequence[str], query: Vector) -> NDArray[np.float32]:
        """Return the score of each of some entries, in their order."""
        return self._scores_of(np.asarray([self._slots[key] for key in keys], np.int64), query)

    def _pool(self, query: Vector, allowed: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Return the slots of the entries whose blended vectors are nearest."""
        if allowed is not None and np.count_nonzero(allowed) <= FEW < len(self._keys):
            some = np.flatnonzero(allowed)
            return some[_largest(self._blends[some] @ query, POOL)]
        if self._graph is not None and not self._waiting:
            return self._graph.search(query, POOL, allowed)
        scores = self._blends[: len(self._keys)] @ query
        if allowed is not None:
            scores = np.where(allowed, scores, np.float32(-np.inf))
        best = _largest(scores, POOL)
        return best[scores[best] > -np.inf]

    def nearest(self, keys: Sequence[str], query: Vector) -> NDArray[np.float32]:
        """Return the best cosine of each of some entries' texts, in their order."""
        return self._nearest([self._rows[key] for key in keys], query)

    def _scores_of(self, slots: NDArray[np.int64], query: Vector) -> NDArray[np.float32]:
        rows = [self._rows[key] if (key := self._keys[slot]) else [] for slot in slots]
        share = np.float32(1 - WHOLE_SHARE - MEAN_SHARE)
        scores = share * self._nearest(rows, query) + self._blends[slots] @ query
        return scores.astype(np.float32, copy=False)

    def _nearest(self, rows: Sequence[list[int]], query: Vector) -> NDArray[np.float32]:
        """Return the best cosine among each group of rows; -inf where a group is empty."""
        best = np.full(len(rows), -np.inf, np.float32)
        starts: list[int] = []
        flat: list[int] = []
        for group in rows:
            starts.append(len(flat))
            flat.extend(group)
        filled = [number for number, group in enumerate(rows) if group]
        if filled:
            cosines = self._matrix[flat] @ query
            best[filled] = np.maximum.reduceat(cosines, [starts[number] for number in filled])
        return best

    def catch_up(self) -> bool:
        """Let some waiting entries join the graph; return whether others still wait.

        Until all have joined, search compares every entry. Who changes a large base calls it
        until it returns False: entries join faster together than one by one.
        """
        if self._graph is None and len(self._rows) > self._exact_up_to:
            self._begin_graph()
        if self._graph is None:
            self._waiting.clear()
            return False
        if self._graph.is_worn:
            self._begin_graph()
        if some := list(self._waiting)[:CATCH_UP]:
            self._graph.put(some, self._blends[some])
            for slot in some:
                del self._waiting[slot]
        return bool(self._waiting)

    def _begin_graph(self) -> None:
        self._graph = ApproximateIndex(self._dimensions)
        self._waiting = dict.fromkeys(self._slots.values())

    def slot(self, key: str) -> int:
        """Return where an entry stands in `best` and in masks."""
        return self._slots[key]

    def mask(self, keys: Sequence[str]) -> NDArray[np.bool_]:
        """Return a mask over slots that lets only these entries through."""
        allowed = np.zeros(len(self._keys), np.bool_)
        allowed[[self._slots[key] for key in keys if key in self._slots]] = True
        return allowed

    def _take_row(self) -> int:
        if self._free_rows:
            return self._free_rows.pop()
        if self._used == len(self._matrix):
            self._matrix = np.concatenate([self._matrix, np.zeros_like(self._matrix)])
            self._owners = np.concatenate([self._owners, np.full_like(self._owners, -1)])
        self._used += 1
        return self._used - 1

    def _take_slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        self._keys.append(None)
        if len(self._keys) > len(self._blends):
            self._blends = np.concatenate([self._blends, np.zeros_like(self._blends)])
        return len(self._keys) - 1


def _largest(scores: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Return where the largest scores stand, in any order."""
    if len(scores) <= count:
        return np.arange(len(scores))
    return np.argpartition(-scores, count - 1)[:count]
