"""Any sentence-transformers model, by path or by a name on the hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval.encoders.protocol import Vectors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 32
"""Texts in one pass; more gains nothing on a CPU and costs memory."""


class SentenceTransformerEncoder:
    """A sentence-transformers model whose queries and passages may carry prefixes."""

    query_prefix = ""
    passage_prefix = ""

    def __init__(self, model: SentenceTransformer, name: str) -> None:
        self.name = name
        self.dimensions = int(model.get_embedding_dimension() or 0)
        self._model = model

    @property
    def model(self) -> SentenceTransformer:
        """The model itself, for training."""
        return self._model

    def encode_queries(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of what customers say, shape (texts, hidden)."""
        return self._encode([self.query_prefix + text for text in texts])

    def encode_passages(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of what is searched, shape (texts, hidden)."""
        return self._encode([self.passage_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.zeros((0, self.dimensions), np.float32)
        return self._model.encode(
            texts, batch_size=BATCH, show_progress_bar=False, normalize_embeddings=True
        ).astype(np.float32, copy=False)
