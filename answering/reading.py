"""Which reading of a message is meant, and whether it holds several questions; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from answering.politeness import question_part
from core.types import Intent, Passage
from retrieval.lexical import tokens, weigh

LEANING_PENALTY = 0.35
"""What a message taken alone loses when its form says that it continues ("and for ...")."""
FRESH_BONUS = 0.2
"""What a reading gains whose entry holds the words that the follow-up adds."""
CONTEXT_PENALTY = 0.05
"""Context costs a little: a question that stands alone is what it says."""
MOST_PARTS = 3
PART_TOKENS = 2
"""A part with fewer words of its own ("really?") is no question."""

_PARTS = re.compile(r"(?<=[?？])\s*|\n+|(?<=[.!。！])\s+")
_ASKS = re.compile(r"[?？]\s*$")


@dataclass(frozen=True)
class Reading:
    """One way to understand a message, with what it finds."""

    text: str
    passages: Sequence[Passage]
    intents: Sequence[Intent]


def best_reading(
    readings: Sequence[Reading], *, must_lean: bool = False, fresh: Sequence[str] = ()
) -> Reading:
    """Return the reading that retrieval is surest of; the first one is the message as it stands."""

    def worth(number: int) -> float:
        passages = readings[number].passages
        if not passages:
            return -1.0
        value = passages[0].confidence
        if number == 0:
            return value - (LEANING_PENALTY if must_lean else 0.0)
        held = weigh(passages[0].entry)
        share = sum(token in held for token in fresh) / len(fresh) if fresh else 0.0
        return value - CONTEXT_PENALTY + FRESH_BONUS * (share - 0.5 if fresh else 0.0)

    return readings[max(range(len(readings)), key=worth)]


def parts_of(message: str) -> list[str]:
    """Return the questions of a message where it plainly holds two or three, else one or none."""
    parts = [question_part(part) for part in _PARTS.split(message) if part.strip()]
    asked = [part for part in parts if len(tokens(part)) >= PART_TOKENS]
    questions = [part for part in asked if _ASKS.search(part)]
    if not 1 < len(questions) <= MOST_PARTS or len(questions) < len(asked):
        return []
    return questions
