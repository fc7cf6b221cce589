"""How well intents are told from labelled messages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from answering.intents import IntentFigures, figures
from core.types import Intent
from retrieval.encoders.protocol import Encoder
from training import checking, intents
from training.checking import Finding, Row
from training.intent_tuning import Options, Say


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        figures: Of the messages of the test file.
        out_of_scope_share: Which share of them was taken to be out of scope.
        tuned: Whether the encoder was tuned for the training file.
        seconds: Of the fit with its encoding, not of the measurement.
        told: The intents of each message, likeliest first.
        nearest: The training messages nearest to each, as (text, label, weight).
        findings: What is wrong with the files.
    """

    figures: IntentFigures
    out_of_scope_share: float
    tuned: bool
    seconds: float
    told: tuple[tuple[Intent, ...], ...]
    nearest: tuple[tuple[tuple[str, str, float], ...], ...]
    findings: tuple[Finding, ...]

    def as_figures(self) -> dict[str, Any]:
        """Return what is printed."""
        return {
            **asdict(self.figures),
            "out_of_scope_share": self.out_of_scope_share,
            "tuned": self.tuned,
            "fit_seconds": round(self.seconds, 1),
        }


def evaluate(
    train: Sequence[Row],
    test: Sequence[Row],
    encoder: Encoder,
    *,
    adapt: bool = True,
    tuning: Options | None = None,
    seed: int = 7,
    say: Say = lambda line: None,
) -> Evaluation:
    """Fit on one file and return the figures on another.

    Args:
        train: What to fit on.
        test: What to measure on.
        encoder: Whose vectors the head reads.
        adapt: Estimate from the test messages, without their labels, which share of them is out
            of scope, as a bot does from its traffic. Without it a tenth is expected, or the
            training file's share where that is larger.
        tuning: Tries to tune the encoder.
        seed: Of held-out parts.
        say: Is told what is going on.

    Raises:
        InvalidInput: There are fewer than two labels.
    """
    begun = time.monotonic()
    made = intents.fit(train, encoder, tuning=tuning, seed=seed, say=say)
    seconds = time.monotonic() - begun
    texts, labels = [row.text for row in test], [row.label for row in test]
    vectors = made.encoder.encode_queries(texts)
    classifier = made.classifier
    if adapt:
        classifier = classifier.for_traffic(vectors, texts)
    probabilities = classifier.probabilities(vectors, texts)
    nearest = tuple(
        tuple((train[near.row].text, near.label, near.weight) for near in classifier.explain(v))
        for v in vectors
    )
    return Evaluation(
        figures(classifier.names, probabilities, labels),
        classifier.share,
        made.choice is not None and made.choice.tuned is not None,
        seconds,
        tuple(map(tuple, classifier.predict(vectors, texts))),
        nearest,
        (*made.findings, *checking.leaking(train, test)),
    )
