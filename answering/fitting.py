"""The intent classifier of one base: fitted from examples and from what its entries ask."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from answering.intents import QUESTION, IntentClassifier, general_examples
from core.types import Intent

Vector = NDArray[np.float32]
Vectors = Callable[[Sequence[str]], Awaitable[Mapping[str, Vector]]]

MOST_QUESTIONS = 600
"""Of a large base a sample stands for the rest: a fit must take seconds."""


class IntentModel:
    """The classifier that stands, and the examples of the base it is fitted on."""

    def __init__(self) -> None:
        self.own: tuple[tuple[str, str], ...] = ()
        self.classifier: IntentClassifier | None = None

    def predict(self, vector: Vector) -> Sequence[Intent]:
        """Return the intents of one message, likeliest first; none before the first fit."""
        if self.classifier is None:
            return ()
        return self.classifier.predict(vector[None])[0]

    async def fit(self, questions: Sequence[str], vectors: Vectors) -> None:
        """Fit the classifier on general examples, the base's own, and its entries' questions."""
        examples = labelled(self.own, questions)
        known = await vectors([text for text, _ in examples])
        self.classifier = await asyncio.to_thread(
            IntentClassifier.fit,
            np.stack([known[text] for text, _ in examples]),
            [label for _, label in examples],
        )


def labelled(
    own: Sequence[tuple[str, str]], questions: Sequence[str]
) -> list[tuple[str, str]]:
    """Return the examples, each text once; the base's own label beats ours, ours an entry's."""
    chosen = list(dict.fromkeys(questions))
    if len(chosen) > MOST_QUESTIONS:
        chosen = random.Random(7).sample(chosen, MOST_QUESTIONS)
    by_text = {question: QUESTION for question in chosen}
    by_text |= dict(general_examples())
    by_text |= dict(own)
    return list(by_text.items())
