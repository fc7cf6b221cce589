"""How well intents are told from labelled messages."""

from __future__ import annotations

from collections.abc import Sequence

from answering.intents import IntentClassifier, IntentFigures
from retrieval.encoders.protocol import Encoder

Labelled = Sequence[tuple[str, str]]


def evaluate(train: Labelled, test: Labelled, encoder: Encoder) -> IntentFigures:
    """Fit on one set of (text, label) and return the figures on another."""
    classifier = IntentClassifier.fit(
        encoder.encode_queries([text for text, _ in train]), [label for _, label in train]
    )
    return classifier.evaluate(
        encoder.encode_queries([text for text, _ in test]), [label for _, label in test]
    )
