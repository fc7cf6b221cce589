"""Intents by the words themselves: hashed n-grams beside what the encoder sees.

An encoder blurs what tells two intents apart where it is one word ("top up by card" and "by
cheque"); a linear head on n-grams keeps it. Word pairs and characters are hashed, so that a head
needs no vocabulary, and a script without spaces is read by its characters.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]

BUCKETS = 1 << 15
LONGEST_CHARACTERS = 400
"""Of a longer text the beginning says what is wanted."""
CHARACTERS = (3, 4, 5)
INVERSE_PENALTY = 1.0
_WORD = re.compile(r"[^\W_]+")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True)
class WordingHead:
    """A linear head on n-grams.

    Attributes:
        idf: How telling each bucket is, shape (buckets,).
        weights: Shape (buckets, labels).
        bias: Shape (labels,).
    """

    idf: NDArray[np.float32]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def scores(self, counts: csr_array) -> Floats:
        """Return the margin of each label, shape (texts, labels), from `counted` texts."""
        return np.asarray(_weighted(counts, self.idf) @ self.weights + self.bias, float)


def fit(counts: csr_array, columns: NDArray[np.int64], labels: int) -> WordingHead:
    """Return a head fitted on `counted` texts, whose labels are columns 0 to labels - 1.

    Source: one-against-all squared hinge loss (Crammer and Singer 2001 compare it).
    """
    from sklearn.svm import LinearSVC

    holding = np.bincount(counts.indices, minlength=BUCKETS)
    idf = (np.log((1 + len(columns)) / (1 + holding)) + 1).astype(np.float32)
    model = LinearSVC(C=INVERSE_PENALTY, class_weight="balanced", tol=1e-3, random_state=7)
    model.fit(_weighted(counts, idf), columns)
    weights, bias = np.asarray(model.coef_).T, np.asarray(model.intercept_)
    if labels == 2:  # of two labels scikit-learn keeps only the second's
        weights, bias = np.column_stack([-weights, weights]), np.asarray([-bias[0], bias[0]])
    return WordingHead(idf, weights.astype(np.float32), bias.astype(np.float32))


def counted(texts: Sequence[str]) -> csr_array:
    """Return dampened counts of hashed n-grams, shape (texts, buckets)."""
    rows = [_buckets(text) for text in texts]
    ends = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)  # liblinear takes no int64
    columns = np.fromiter((b for row in rows for b in sorted(row)), np.int32, ends[-1])
    values = np.fromiter((row[b] for row in rows for b in sorted(row)), np.float32, ends[-1])
    return csr_array((1 + np.log(values), columns, ends), shape=(len(texts), BUCKETS))


def _buckets(text: str) -> Counter[int]:
    return Counter(crc32(gram.encode()) % BUCKETS for gram in _grams(text))


def _grams(text: str) -> Iterator[str]:
    folded = unicodedata.normalize("NFKC", text[:LONGEST_CHARACTERS]).casefold()
    words = _WORD.findall(folded)
    yield from words
    yield from (f"{a} {b}" for a, b in itertools.pairwise(words))
    for word in words:
        padded = f" {word} "
        sizes = (1, 2, 3) if _CJK.search(word) else CHARACTERS
        for size in sizes:
            yield from (f"#{padded[i : i + size]}" for i in range(len(padded) - size + 1))


def _weighted(counts: csr_array, idf: NDArray[np.float32]) -> csr_array:
    """Return rows of unit length; what was never seen lengthens a row, and so weakens the rest."""
    data = counts.data * idf[counts.indices]
    lengths = np.sqrt(np.add.reduceat(np.append(data, 0) ** 2, counts.indptr[:-1]))
    sizes = np.diff(counts.indptr)
    scale = np.where(sizes > 0, 1 / np.maximum(lengths, 1e-9), 0)
    return csr_array((data * np.repeat(scale, sizes), counts.indices, counts.indptr), counts.shape)
