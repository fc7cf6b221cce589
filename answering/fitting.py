"""The intent classifier of one base: fitted from examples and from what its entries ask."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from answering.intents import QUESTION, IntentClassifier, general_examples
from answering.signals import look_ups
from core.types import Intent

Vector = NDArray[np.float32]
Vectors = Callable[[Sequence[str]], Awaitable[Mapping[str, Vector]]]

FITTED_AS = "2026-11-24 look-ups"
"""Raised when the way of fitting changes, so that no older head is taken for a new one."""
MOST_QUESTIONS = 600
"""Of a large base a sample stands for the rest: a fit must take seconds."""


KEPT_HEADS = 20
"""Fitted heads in the store; the oldest go."""


class IntentModel:
    """The classifier that stands, and the examples of the base it is fitted on.

    Args:
        store: Folder in which fitted heads are kept, so that a start with the examples of the last
            one takes no fit; None keeps none.
    """

    def __init__(self, store: Path | None = None) -> None:
        self._store = store
        self.own: tuple[tuple[str, str], ...] = ()
        self.classifier: IntentClassifier | None = None

    def predict(self, vector: Vector, text: str = "") -> Sequence[Intent]:
        """Return the intents of one message, likeliest first; none before the first fit.

        Args:
            vector: Of the message.
            text: Its words, which count beside the vector where they are given.
        """
        if self.classifier is None:
            return ()
        return self.classifier.predict(vector[None], [text] if text else None)[0]

    async def fit(self, questions: Sequence[str], vectors: Vectors) -> None:
        """Fit the classifier on general examples, the base's own, and its entries' questions."""
        examples = labelled(self.own, questions)
        known = await vectors([text for text, _ in examples])
        self.classifier = await asyncio.to_thread(
            self._fitted,
            np.stack([known[text] for text, _ in examples]),
            [label for _, label in examples],
            [text for text, _ in examples],
        )

    def _fitted(
        self, vectors: NDArray[np.float32], labels: Sequence[str], texts: Sequence[str]
    ) -> IntentClassifier:
        if self._store is None:
            return IntentClassifier.fit(vectors, labels, texts=texts)
        told = f"{FITTED_AS} {labels} {texts}".encode()
        digest = hashlib.sha256(told + vectors.tobytes()).hexdigest()
        place = self._store / f"intents-{digest[:32]}.npz"
        damage = suppress(OSError, ValueError, KeyError, BadZipFile)  # or missing: fit anew
        with damage, place.open("rb") as file, np.load(file) as state:
            return IntentClassifier.restore(state)
        classifier = IntentClassifier.fit(vectors, labels, texts=texts)
        with suppress(OSError):  # a store that cannot be written costs a fit at the next start
            _keep(place, classifier)
        return classifier


def _keep(place: Path, classifier: IntentClassifier) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f".{os.getpid()}.npz")
    state: dict[str, Any] = dict(classifier.state())
    np.savez(unfinished, **state)
    unfinished.replace(place)
    kept = sorted(place.parent.glob("intents-*.npz"), key=lambda path: path.stat().st_mtime)
    for old in kept[:-KEPT_HEADS]:
        old.unlink(missing_ok=True)


def labelled(own: Sequence[tuple[str, str]], questions: Sequence[str]) -> list[tuple[str, str]]:
    """Return the examples, each text once; the base's own label beats ours, ours an entry's.

    What customers of any business ask (`signals.look_ups`) stands beside what the entries ask: few
    questions of few entries say little of how else such things are put, and "where are you located"
    would be off topic in a shop whose entry says "stores".
    """
    chosen = sorted(set(questions))  # in whatever order they come, the same fit
    if len(chosen) > MOST_QUESTIONS:
        chosen = random.Random(7).sample(chosen, MOST_QUESTIONS)
    by_text = dict.fromkeys([*look_ups(), *chosen], QUESTION)
    by_text |= dict(general_examples())
    by_text |= dict(own)
    return sorted(by_text.items())
