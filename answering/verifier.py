"""The verifier: whether a sentence is supported, contradicted or unsupported by its passages.

A small cross-encoder reads the part of the passages that is nearest to the sentence together with
it; exact signs (numbers, polarity, words held) join its chances in a logistic combination that was
fitted on development data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from answering.grounding import ADMITS, NEGATION, Judgement, Label, facts, split_sentences
from answering.prompting import plain
from core.errors import ConfigurationError
from core.types import FaqEntry
from retrieval.encoders.protocol import Scores
from retrieval.lexical import fold, tokens

SHIPPED = Path(__file__).parent / "verifier_weights"
COMBINATION = "combination.json"
CLASSES = ("supported", "contradicted", "unsupported")
EVIDENCE_CHARACTERS = 420
"""Of the passages that are read with a sentence; about 100 tokens."""
SIGNS = (
    "supported", "contradicted", "unsupported", "lowest", "facts_missing", "parity", "held",
    "run", "yes_no", "length", "personal",
)  # fmt: skip
"""What the combination weighs, in this order; see `signs`."""

Score = Callable[[Sequence[tuple[str, str]]], Awaitable[Scores]]
"""Asks the engine for the logits of pairs."""
Vector = NDArray[np.float64]
_YES = re.compile(r"^\W*(?:yes|yeah|yep|sure|of course|certainly|absolutely)\b", re.IGNORECASE)
_NO = re.compile(r"^\W*(?:no|nope|sorry|unfortunately)\b", re.IGNORECASE)


_PERSONAL = re.compile(r"\b(?:I|i|my|me|mine)\b(?!\.)|\?\s*$|\bhaha\b", re.MULTILINE)


@dataclass(frozen=True)
class Source:
    """A passage: the question it answers, perhaps empty, and its plain text."""

    question: str
    text: str


@dataclass(frozen=True)
class Combination:
    """How the signs weigh: chance = sigmoid(weights . (signs - means) / scales + bias).

    Attributes:
        support_from: A sentence with less is not supported.
    """

    weights: Vector
    means: Vector
    scales: Vector
    bias: float
    support_from: float

    def support(self, features: Vector) -> Vector:
        """Return the chance of support of each row, shape (sentences,)."""
        scaled = (features - self.means) / self.scales
        return 1 / (1 + np.exp(-(scaled @ self.weights + self.bias)))

    def to_json(self) -> dict[str, Any]:
        """Return plain values, as a file keeps them."""
        return {
            "signs": list(SIGNS),
            "weights": self.weights.tolist(),
            "means": self.means.tolist(),
            "scales": self.scales.tolist(),
            "bias": self.bias,
            "support_from": self.support_from,
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Combination:
        """Return what `to_json` wrote.

        Raises:
            ConfigurationError: It weighs other signs.
        """
        if tuple(row["signs"]) != SIGNS:
            raise ConfigurationError(f"the verifier weighs other signs than {', '.join(SIGNS)}")
        return cls(
            np.asarray(row["weights"], float), np.asarray(row["means"], float),
            np.asarray(row["scales"], float), float(row["bias"]), float(row["support_from"]),
        )  # fmt: skip


def read_combination(folder: Path) -> Combination:
    """Return the combination in a verifier's folder.

    Raises:
        ConfigurationError: There is none, or it cannot be read.
    """
    try:
        return Combination.from_json(json.loads((folder / COMBINATION).read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(
            f"{folder / COMBINATION} cannot be read ({error}); give a folder as `deskhand train "
            "verifier` writes it"
        ) from error


def pair(sentence: str, sources: Sequence[Source]) -> tuple[str, str]:
    """Return what the cross-encoder reads: the nearest part of the passages, and the sentence."""
    return evidence(sentence, sources), sentence


def evidence(sentence: str, sources: Sequence[Source]) -> str:
    """Return the question and those sentences of the passages that share most with a sentence.

    They keep their order; a short passage is taken whole.
    """
    words = set(tokens(sentence))
    chosen: list[tuple[float, int, str]] = []
    number = 0
    for source in sources:
        for part in _parts(source.text):
            own = set(tokens(part))
            share = len(words & own) / (len(own) ** 0.5 or 1)
            chosen.append((-share, number, part))
            number += 1
    taken: list[tuple[int, str]] = []
    room = EVIDENCE_CHARACTERS
    for _, place, part in sorted(chosen):
        if taken and len(part) > room:
            continue
        taken.append((place, part))
        room -= len(part)
    questions = " ".join(source.question for source in sources[:2] if source.question)
    return f"{questions} {' '.join(part for _, part in sorted(taken))}".strip()


def signs(sentence: str, sources: Sequence[Source], logits: NDArray[np.float32]) -> Vector:
    """Return the signs of a sentence, shape (len(SIGNS),).

    Args:
        logits: Of the cross-encoder for its sentence, shape (3,).
    """
    chances = np.exp(logits - logits.max())
    chances = chances / chances.sum()
    near = evidence(sentence, sources)
    text = " ".join(f"{source.question} {source.text}" for source in sources)
    answers = " ".join(source.text for source in sources)
    own, there = tokens(sentence), set(tokens(text))
    held = sum(token in there for token in own) / len(own) if own else 1.0
    missing = len(facts(sentence) - facts(text))
    best = max(_parts(answers) or [""], key=lambda part: _shared(set(own), set(tokens(part))))
    parity = bool(NEGATION.search(sentence)) is not bool(NEGATION.search(best))
    first = (split_sentences(answers) or [""])[0]
    opposite = bool(
        (_YES.search(sentence) and _NO.search(first))
        or (_NO.search(sentence) and _YES.search(first))
    )
    return np.array([
        float(np.log(chances[0] + 1e-4) - np.log(1 - chances[0] + 1e-4)),
        float(np.log(chances[1] + 1e-4)),
        float(np.log(chances[2] + 1e-4)),
        float(logits.min()),
        float(min(missing, 2)),
        float(parity),
        held,
        _longest_run(own, tokens(near)) / (len(own) or 1),
        float(opposite),
        min(len(own) / 20, 2.0),
        float(bool(_PERSONAL.search(sentence))),
    ])  # fmt: skip


def judge(
    sentences: Sequence[str],
    sources: Sequence[Source],
    logits: NDArray[np.float32],
    combination: Combination,
) -> list[Judgement]:
    """Return what each sentence is; pure.

    Args:
        sentences: Of a reply.
        sources: The passages that it cites.
        logits: Of the cross-encoder for `pair` of each sentence, shape (sentences, 3).
        combination: As it ships or was trained.
    """
    if not sentences:
        return []
    features = np.stack([signs(s, sources, row) for s, row in zip(sentences, logits, strict=True)])
    chances = combination.support(features)
    return [
        Judgement(
            Label.SUPPORTED if chance >= combination.support_from
            else (Label.CONTRADICTED if row[1] > row[2] else Label.UNSUPPORTED),
            float(chance),
        )
        for chance, row in zip(chances, logits, strict=True)
    ]  # fmt: skip


class Judge:
    """Judges the sentences of one reply, each once, as the reply grows.

    Args:
        score: None where no verifier is loaded: then there are no verdicts.
        combination: The one that ships, if None.
    """

    def __init__(self, score: Score | None, combination: Combination | None = None) -> None:
        self._score = score
        self._combination = combination
        self._known: dict[str, Judgement] = {}

    async def verdicts(self, reply: str, entries: Sequence[FaqEntry]) -> Mapping[str, Judgement]:
        """Return what each sentence is that does not stand literally in an entry, by its text.

        Raises:
            DeskhandError: The engine refuses: what is not judged must not be said.
        """
        if self._score is None:
            return {}
        new = [s for s in to_judge(reply, entries) if s not in self._known]
        if new:
            sources = sources_of(entries)
            logits = await self._score([pair(sentence, sources) for sentence in new])
            combination = self._combination or shipped()
            self._known |= dict(zip(new, judge(new, sources, logits, combination), strict=True))
        return self._known


def sources_of(entries: Sequence[FaqEntry]) -> list[Source]:
    """Return entries as passages."""
    return [Source(entry.question, plain(entry.answer)) for entry in entries]


def to_judge(reply: str, entries: Sequence[FaqEntry]) -> list[str]:
    """Return the sentences of a reply that do not stand literally in an entry's answer."""
    known = " ".join(fold(plain(entry.answer)) for entry in entries)
    return [
        s
        for s in split_sentences(reply)
        if fold(s).rstrip(".!") not in known and not ADMITS.match(s)
    ]


@lru_cache(maxsize=1)
def shipped() -> Combination:
    """Return the combination that ships."""
    return read_combination(SHIPPED)


def overlap(sentence: str, sources: Sequence[Source]) -> float:
    """Return the share of a sentence's words that its passages hold: the baseline, in [0, 1]."""
    own = tokens(sentence)
    there = set(tokens(" ".join(f"{source.question} {source.text}" for source in sources)))
    return sum(token in there for token in own) / len(own) if own else 1.0


def _parts(text: str) -> list[str]:
    """Return the sentences of a text; a run of text without an end is cut by its length."""
    parts: list[str] = []
    for sentence in split_sentences(re.sub(r"\s+([.,;:!?])", r"\1", text)):
        while len(sentence) > EVIDENCE_CHARACTERS:
            at = sentence.rfind(" ", 0, EVIDENCE_CHARACTERS)
            at = at if at > 0 else EVIDENCE_CHARACTERS
            parts.append(sentence[:at])
            sentence = sentence[at:].strip()
        parts.append(sentence)
    return parts


def _shared(own: set[str], other: set[str]) -> float:
    return len(own & other) / (len(own | other) or 1)


def _longest_run(own: Sequence[str], near: Sequence[str]) -> int:
    """Return how many words in a row stand in both."""
    best = 0
    lengths = [0] * (len(near) + 1)
    for word in own:
        previous = 0
        for place, other in enumerate(near, start=1):
            kept = lengths[place]
            lengths[place] = previous + 1 if word == other else 0
            best = max(best, lengths[place])
            previous = kept
    return best
