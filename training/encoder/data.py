"""What batches are made of: labelled messages, questions with their entries, and texts to keep.

A source gives one batch at a time from a chance of its own, so that step N of a training has the
same batch whether or not it was interrupted before. Guards against false negatives are here: what
may belong together although no file says so is neither drawn nor pushed.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from core.errors import InvalidInput
from retrieval.encoders.protocol import Encoder, Vectors
from training.encoder.objective import Batch, by_label

OUT_OF_SCOPE = "out_of_scope"
FEWEST_LABELS = 2
HARD_SHARE = 0.5
"""The share of a batch's labels that are neighbours of its first: those that are mixed up."""
OUTSIDE_SHARE = 0.125
"""The share of a batch that is out of scope and only pushes."""


class Source(Protocol):
    """Gives batches."""

    def batch(self, rng: random.Random) -> Batch:
        """Return a batch; the same chance gives the same one."""
        ...


class Labelled:
    """Messages with their intents: those of one intent are drawn together.

    Args:
        examples: (text, label); `out_of_scope` and labels of a single text only push.
        vectors: Of the texts, by the frozen encoder, shape (texts, hidden): intents that are near
            each other are put into one batch. Without them any are.
        size: Texts in a batch.
        shots: Texts of an intent in a batch, where it has so many.

    Raises:
        InvalidInput: Fewer than two labels have two texts.
    """

    def __init__(
        self, examples: Sequence[tuple[str, str]], vectors: Vectors | None = None,
        *, size: int = 64, shots: int = 4, weight: float = 1.0,
    ) -> None:  # fmt: skip
        unique = dict(examples)
        self._texts: defaultdict[str, list[str]] = defaultdict(list)
        for text, label in unique.items():
            self._texts[label].append(text)
        self._outside = list(self._texts.pop(OUT_OF_SCOPE, []))
        self._labels = sorted(label for label, texts in self._texts.items() if len(texts) > 1)
        if len(self._labels) < FEWEST_LABELS:
            raise InvalidInput("at least two labels need two texts each", field="label")
        self._size, self._shots, self._weight = size, shots, weight
        self._near = self._neighbours(examples, vectors) if vectors is not None else {}

    def batch(self, rng: random.Random) -> Batch:
        """Return texts of some intents, half of which are easily mixed up."""
        outside = rng.sample(
            self._outside, min(len(self._outside), round(self._size * OUTSIDE_SHARE))
        )
        count = min(len(self._labels), max(2, (self._size - len(outside)) // self._shots))
        texts: list[str] = []
        labels: list[str] = []
        for label in self._some_labels(count, rng):
            these = rng.sample(self._texts[label], min(self._shots, len(self._texts[label])))
            texts += these
            labels += [label] * len(these)
        return by_label(texts + outside, labels + [""] * len(outside), self._weight)

    def _some_labels(self, count: int, rng: random.Random) -> list[str]:
        first = rng.choice(self._labels)
        near = self._near.get(first, ())[: round(count * HARD_SHARE)]
        chosen = dict.fromkeys([first, *near])
        for label in rng.sample(self._labels, len(self._labels)):
            if len(chosen) >= count:
                break
            chosen[label] = None
        return list(chosen)

    def _neighbours(
        self, examples: Sequence[tuple[str, str]], vectors: Vectors
    ) -> Mapping[str, Sequence[str]]:
        names = np.asarray([label for _, label in examples])
        centres = np.stack([vectors[names == label].mean(axis=0) for label in self._labels])
        nearest = np.argsort(-(centres @ centres.T), axis=1, kind="stable")
        return {
            label: [self._labels[i] for i in row if self._labels[i] != label]
            for label, row in zip(self._labels, nearest, strict=True)
        }


class Kept:
    """Texts whose likeness to each other shall stay as the frozen encoder sees it.

    Args:
        texts: In languages or of kinds that training is not about.
        queries: Their vectors as queries, shape (texts, hidden).
        passages: Their vectors as passages, likewise.
        size: Texts in a batch, half of them in each role.
    """

    def __init__(
        self, texts: Sequence[str], queries: Vectors, passages: Vectors, size: int = 20
    ) -> None:
        self._texts, self._queries, self._passages = texts, queries, passages
        self._size = min(size // 2, len(texts))

    def batch(self, rng: random.Random) -> Batch:
        """Return some of the texts with their cosines."""
        asked = rng.sample(range(len(self._texts)), self._size)
        searched = rng.sample(range(len(self._texts)), self._size)
        vectors = np.concatenate([self._queries[asked], self._passages[searched]])
        return Batch(
            kept=tuple(self._texts[i] for i in asked),
            kept_passages=tuple(self._texts[i] for i in searched),
            likeness=(vectors @ vectors.T).astype(np.float32),
        )


def kept(texts: Sequence[str], encoder: Encoder) -> Kept | None:
    """Return texts to keep with their vectors by the frozen encoder, None if there are none."""
    if not texts:
        return None
    return Kept(texts, encoder.encode_queries(texts), encoder.encode_passages(texts))


@dataclass(frozen=True)
class Mixture:
    """Several sources, drawn by their weight, each batch with some texts to keep.

    Attributes:
        sources: With their weights.
        kept: None keeps nothing.
        seed: Step N has the same batch whenever it is asked for.
    """

    sources: Sequence[tuple[Source, float]]
    kept: Kept | None = None
    seed: int = 0

    def batch(self, step: int) -> Batch:
        """Return the batch of a step."""
        rng = random.Random(f"{self.seed}/{step}")
        sources = [source for source, _ in self.sources]
        chosen = rng.choices(sources, [weight for _, weight in self.sources])[0]
        batch = chosen.batch(rng)
        if self.kept is None:
            return batch
        stay = self.kept.batch(rng)
        return replace(
            batch, kept=stay.kept, kept_passages=stay.kept_passages, likeness=stay.likeness
        )

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of all steps, without end."""
        step = 0
        while True:
            step += 1
            yield self.batch(step)


def labelled_batches(
    examples: Sequence[tuple[str, str]], encoder: Encoder | None = None,
    *, size: int = 64, seed: int = 0, keep: Sequence[str] = (),
) -> Iterator[Batch]:  # fmt: skip
    """Yield batches of labelled messages without end, for `training.encoder.loop.tune`.

    Args:
        examples: (text, label); `out_of_scope` only pushes.
        encoder: Frozen; finds the intents that are easily mixed up, which then share batches, and
            says how alike the texts to keep are. None mixes any intents and keeps nothing.
        size: Texts in a batch.
        seed: The same gives the same batches.
        keep: Texts, in other languages say, whose likeness to each other shall stay.

    Raises:
        InvalidInput: Fewer than two labels have two texts.
    """
    vectors = encoder.encode_queries([text for text, _ in examples]) if encoder else None
    source = Labelled(examples, vectors, size=size)
    staying = kept(keep, encoder) if encoder else None
    return Mixture([(source, 1.0)], staying, seed).batches()
