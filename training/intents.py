"""Fitting the intent head on labelled messages, and keeping it as a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from answering.intents import IntentClassifier
from core.errors import InvalidInput
from retrieval.encoders.protocol import Encoder

HEAD = "intents.npz"
CARD = "intents.json"
HELD_OUT = 5
"""Every fifth message is kept for the figures; the head that is written is fitted on all."""
FEWEST = 2


def train(
    examples: Sequence[tuple[str, str]], encoder: Encoder, out: Path, *, seed: int = 7
) -> dict[str, Any]:
    """Fit the head on (text, label), write it, and return the figures on held-out messages.

    Args:
        examples: Labelled messages; the label `out_of_scope` is reserved for what is none of them.
        encoder: Whose vectors the head reads.
        out: A folder; is made.
        seed: Of the splits.

    Raises:
        InvalidInput: There are fewer than two labels.
    """
    labels = [label for _, label in examples]
    if len(set(labels)) < FEWEST:
        raise InvalidInput("At least two different labels are needed.", field="label")
    vectors = encoder.encode_queries([text for text, _ in examples])
    order = np.random.default_rng(seed).permutation(len(examples))
    test, train_ = order[::HELD_OUT], np.setdiff1d(order, order[::HELD_OUT])
    figures: dict[str, Any] = {}
    if len({labels[i] for i in train_}) >= FEWEST:
        rehearsal = IntentClassifier.fit(vectors[train_], [labels[i] for i in train_], seed=seed)
        figures = asdict(rehearsal.evaluate(vectors[test], [labels[i] for i in test]))
    classifier = IntentClassifier.fit(vectors, labels, seed=seed)
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out / HEAD, **classifier.state())  # pyright: ignore[reportArgumentType]
    card = {"encoder": encoder.name, "examples": len(examples), "seed": seed, "held_out": figures}
    (out / CARD).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return {"out": str(out), "labels": len(set(labels)), **figures}


def load(folder: Path) -> IntentClassifier:
    """Return the classifier that `train` wrote."""
    with np.load(folder / HEAD, allow_pickle=False) as stored:
        return IntentClassifier.restore(dict(stored))
