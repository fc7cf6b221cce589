"""Which reading of a message is meant, and whether it holds several questions; pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from answering.politeness import question_part
from core.types import Intent, Passage
from retrieval.lexical import tokens, weigh

LEANING_PENALTY = 0.35
"""What a message taken alone loses when its form says that it continues ("and for ...")."""
LACKING_TRUST = 0.45
"""What is left of the confidence in an entry that holds none of the words a follow-up adds."""
ELSEWHERE_TRUST = 0.3
"""What is left of the confidence in an entry about another thing than the one pointed to."""
CONTEXT_PENALTY = 0.05
"""Context costs a little: a question that stands alone is what it says."""
MOST_PARTS = 3
PART_TOKENS = 1
"""A part without a word of its own ("and why?") is no question."""

_PARTS = re.compile(r"(?<=[?？])\s*|\n+|(?<=[.!。！])\s+")
_TIED = re.compile(
    r"^(?:and|also|then|plus|so)\b[\s,]*(?:also\s+)?|^(?:还有|另外|以及)[，,]?", re.IGNORECASE
)
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
    """Return the reading that retrieval is surest of; the first one is the message as it stands.

    Args:
        readings: The message, then what it may mean in its context.
        must_lean: Its form says that it continues what was said before.
        fresh: The words that it adds to what was said before.
    """
    weighed = [readings[0], *(_discounted(reading, fresh) for reading in readings[1:])]

    def worth(number: int) -> float:
        passages = weighed[number].passages
        if not passages:
            return -1.0
        if number == 0:
            return passages[0].confidence - (LEANING_PENALTY if must_lean else 0.0)
        return passages[0].confidence - CONTEXT_PENALTY

    return weighed[max(range(len(weighed)), key=worth)]


def _discounted(reading: Reading, fresh: Sequence[str]) -> Reading:
    """Return a reading in context with what its entries lack of the new words taken off.

    The earlier question is a part of the reading, so its entry looks sure whatever was added.
    """
    if not fresh:
        return reading
    scored: list[Passage] = []
    for passage in reading.passages:
        held = weigh(passage.entry)
        share = sum(token in held for token in fresh) / len(fresh)
        trust = LACKING_TRUST + (1 - LACKING_TRUST) * share
        scored.append(replace(passage, confidence=passage.confidence * trust))
    return replace(reading, passages=sorted(scored, key=lambda p: -p.confidence))


def of_the_entity(reading: Reading, entity: str) -> Reading:
    """Return a reading of "how big is it?" with the entries about other things trusted less.

    Args:
        reading: Of a message that points to a thing by a pronoun.
        entity: That thing.
    """
    scored = [
        replace(p, confidence=p.confidence * ELSEWHERE_TRUST)
        if p.entry.entity and p.entry.entity != entity
        else p
        for p in reading.passages
    ]
    return replace(reading, passages=sorted(scored, key=lambda p: -p.confidence))


def parts_of(message: str) -> list[str]:
    """Return the questions of a message where it plainly holds two or three, else one or none."""
    pieces = [_TIED.sub("", part.strip()) for part in _PARTS.split(message) if part.strip()]
    parts = [question_part(piece) for piece in pieces]
    asked = [part for part in parts if len(tokens(part)) >= PART_TOKENS]
    questions = [part for part in asked if _ASKS.search(part)]
    if not 1 < len(questions) <= MOST_PARTS or len(questions) < len(asked):
        return []
    return questions
