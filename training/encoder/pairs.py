"""Questions with the entries that answer them, in batches whose negatives are hard.

A batch is put together at several scales: beside each question stand another of the same entity,
one that asks nearly the same of another entity (found in the index of the frozen encoder's
vectors), what staff said it is not, and others at random. Source: He et al., Learning to Select
External Knowledge with Multi-Scale Negative Sampling, DSTC9 Track 1 (AAAI 2021 workshop).
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import InvalidInput
from core.types import FaqEntry
from retrieval.encoders.protocol import Vectors
from retrieval.index import bare, nameless
from training.encoder.objective import Batch

ALIKE = 0.9
"""From this cosine of their questions on, two entries may ask the same: e5's paraphrases lie
above, questions on other subjects mostly below."""
TOO_NEAR = 0.97
"""From this cosine on, entries of one entity may both answer."""
NEIGHBOURS = 12
FAMILY = 4
"""A batch is made of families: a question, one of the same entity, one nearly alike, one at
random."""
ONLY_QUESTION_SHARE = 0.3
"""How often an entry stands there as its question alone: the index holds both."""


@dataclass(frozen=True)
class Pair:
    """What a customer says, and the entries that answer it.

    Attributes:
        relevant: Ids of entries.
        refuted: Ids of entries of which staff or customers said that they do not answer.
    """

    text: str
    relevant: frozenset[str]
    refuted: frozenset[str] = frozenset()


class EntryPairs:
    """Batches of questions and entries.

    Args:
        entries: What is searched.
        pairs: At least two, about two entries; those whose entries are unknown are left out.
        encode: Gives the frozen encoder's vectors of questions.
        size: Questions in a batch.
        replies: By entry id, other wordings of its answer.
        subjects: By entry id, what it is about: entries of two entities on one subject are no
            negatives of a question that does not name its entity.

    Raises:
        InvalidInput: There are fewer than two pairs with known entries.
    """

    def __init__(
        self, entries: Sequence[FaqEntry], pairs: Sequence[Pair],
        encode: Callable[[Sequence[str]], Vectors], *, size: int = 24,
        replies: Mapping[str, Sequence[str]] | None = None,
        subjects: Mapping[str, object] | None = None, weight: float = 1.0,
    ) -> None:  # fmt: skip
        self._entries = list(entries)
        self._place = {entry.id: number for number, entry in enumerate(entries)}
        self._pairs = [pair for pair in pairs if any(i in self._place for i in pair.relevant)]
        if len({self._first(pair) for pair in self._pairs}) < 2:
            raise InvalidInput("at least two entries need a question each", field="pairs")
        self._size, self._replies, self._weight = size, replies or {}, weight
        self._vectors = _question_vectors(entries, encode)
        self._by_entry: defaultdict[int, list[Pair]] = defaultdict(list)
        for pair in self._pairs:
            self._by_entry[self._first(pair)].append(pair)
        self._by_entity: defaultdict[str, list[int]] = defaultdict(list)
        for number in self._by_entry:
            if entity := entries[number].entity:
                self._by_entity[entity].append(number)
        self._asked = np.asarray(sorted(self._by_entry))
        self._words = [{bare(entry.question), bare(entry.answer)} for entry in entries]
        self._names = [bare(entry.entity or "") for entry in entries]
        self._subjects = [(subjects or {}).get(entry.id) for entry in entries]

    def batch(self, rng: random.Random) -> Batch:
        """Return questions, their entries and entries that they are not about."""
        chosen: list[Pair] = []
        while len(chosen) < self._size:
            chosen += self._family(rng)
        chosen = chosen[: self._size]
        numbers = [rng.choice([self._place[i] for i in sorted(pair.relevant) if i in self._place])
                   for pair in chosen]  # fmt: skip
        refuted = {self._place[i] for pair in chosen for i in pair.refuted if i in self._place}
        numbers = list(dict.fromkeys([*numbers, *sorted(refuted)]))
        positive = np.zeros((len(chosen), len(numbers)), np.bool_)
        ignored = np.zeros_like(positive)
        for row, pair in enumerate(chosen):
            ids = [self._entries[number].id for number in numbers]
            positive[row] = [i in pair.relevant for i in ids]
            ignored[row] = ~positive[row] & self._may_match(pair, numbers)
            ignored[row] &= [i not in pair.refuted for i in ids]
        return Batch(
            tuple(pair.text for pair in chosen),
            tuple(self._passage(number, rng) for number in numbers),
            positive, ignored, self._weight,
        )  # fmt: skip

    def _family(self, rng: random.Random) -> list[Pair]:
        pair = rng.choice(self._pairs)
        number = self._first(pair)
        kin = [pair]
        entity = self._entries[number].entity
        if entity and len(self._by_entity[entity]) > 1:
            kin.append(self._ask(rng.choice(self._by_entity[entity]), rng))
        kin.append(self._ask(rng.choice(self._nearly(number)), rng))
        kin.append(rng.choice(self._pairs))
        return kin[:FAMILY]

    def _ask(self, number: int, rng: random.Random) -> Pair:
        return rng.choice(self._by_entry[number])

    def _nearly(self, number: int) -> Sequence[int]:
        """Return the entries with a question of their own whose questions are nearest."""
        cosines = self._vectors[self._asked] @ self._vectors[number]
        nearest = self._asked[np.argsort(-cosines, kind="stable")[: NEIGHBOURS + 1]]
        return [int(other) for other in nearest if other != number] or [number]

    def _may_match(self, pair: Pair, numbers: Sequence[int]) -> NDArray[np.bool_]:
        """Return which entries may answer a question although nobody said so."""
        own = [self._place[i] for i in sorted(pair.relevant) if i in self._place]
        cosines = (self._vectors[list(numbers)] @ self._vectors[own].T).max(axis=1)
        said = bare(pair.text)
        return np.asarray(
            [
                self._is_open(number, own, float(cosine), said)
                for number, cosine in zip(numbers, cosines, strict=True)
            ]
        )

    def _is_open(self, number: int, own: Sequence[int], cosine: float, said: str) -> bool:
        same_words = any(self._words[number] & self._words[mine] for mine in own)
        if any(self._names[number] == self._names[mine] for mine in own):
            return same_words or cosine >= TOO_NEAR
        named = any(self._names[mine] and self._names[mine] in said for mine in own)
        subject = self._subjects[number]
        same_subject = subject is not None and any(subject == self._subjects[mine] for mine in own)
        return not named and (same_words or same_subject or cosine >= ALIKE)

    def _passage(self, number: int, rng: random.Random) -> str:
        entry = self._entries[number]
        if rng.random() < ONLY_QUESTION_SHARE:
            return rng.choice((entry.question, nameless(entry)))
        answers = [entry.answer, *self._replies.get(entry.id, ())]
        return f"{entry.question}\n{rng.choice(answers)}"

    def _first(self, pair: Pair) -> int:
        return min(self._place[i] for i in pair.relevant if i in self._place)


def own_pairs(entries: Sequence[FaqEntry]) -> list[Pair]:
    """Return what an FAQ itself says: its wordings, and what each entry is not for."""
    return [
        Pair(text, frozenset({entry.id}))
        for entry in entries
        for text in dict.fromkeys((entry.question, *entry.alternates))
    ] + [
        Pair(text, frozenset({other.id}), frozenset({entry.id}))
        for entry in entries
        for text in entry.not_for
        for other in entries
        if bare(text) in {bare(asked) for asked in (other.question, *other.alternates)}
    ]


def _question_vectors(
    entries: Sequence[FaqEntry], encode: Callable[[Sequence[str]], Vectors]
) -> Vectors:
    asked = [nameless(entry) for entry in entries]
    unique = list(dict.fromkeys(asked))
    place = {text: number for number, text in enumerate(unique)}
    return encode(unique)[[place[text] for text in asked]]
