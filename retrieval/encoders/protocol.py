"""What every encoder can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""Unit vectors, shape (texts, hidden)."""
Scores = npt.NDArray[np.float32]
"""Logits, shape (pairs, classes)."""


class Encoder(Protocol):
    """Turns texts into unit vectors; queries and passages may be encoded differently.

    Plain blocking functions, called on one thread at a time.
    """

    name: str
    """Names the vectors too: vectors of two names must never be compared."""
    dimensions: int

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of what customers say, shape (texts, hidden)."""
        ...

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of what is searched, shape (texts, hidden)."""
        ...


class PairScorer(Protocol):
    """Reads two texts together, where an encoder sees each alone: better, and dearer by a pair.

    Plain blocking functions, called on one thread at a time.
    """

    name: str
    """Of the base and the adapter, as the trace shows it."""
    classes: tuple[str, ...]
    """What the columns of the scores mean."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """Return the logits of each pair, shape (pairs, classes); long texts are cut."""
        ...
