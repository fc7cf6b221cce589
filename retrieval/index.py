"""The knowledge index of one base: what staff published, ready to be searched."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from core.types import FaqEntry, Passage
from retrieval.dense import DenseIndex, Matrix, Vector
from retrieval.fusion import COSINE_FLOOR, Calibrator, Doubts, Signals, fuse, shipped_calibrator
from retrieval.lexical import LexicalIndex, fold, tokens

CANDIDATES = 24
"""How many entries each of the two searches brings in."""
AT_HOME_FROM = 0.5
"""An entry in the customer's language this likely is taken without a look at other languages."""

ABROAD_LEAD = 0.3
"""How much likelier an entry in another language must be than the best in the customer's own."""


def texts_of(entry: FaqEntry) -> list[str]:
    """Return the texts of an entry that are embedded, each found by its own wording."""
    return list(
        dict.fromkeys([entry.question, *entry.alternates, f"{entry.question}\n{entry.answer}"])
    )


@dataclass(frozen=True)
class Change:
    """An entry to be put into the index.

    Attributes:
        vectors: Unit vectors of `texts_of(entry)`, shape (texts, dimensions).
    """

    entry: FaqEntry
    vectors: Matrix


@dataclass(frozen=True)
class Candidate:
    """An entry that a search brought in, before its chance is known."""

    entry: FaqEntry
    score: float
    signals: Signals


class KnowledgeIndex:
    """Searches the published entries of one knowledge base by meaning and by words."""

    def __init__(self, dimensions: int, calibrator: Calibrator | None = None) -> None:
        self.calibrator = calibrator or shipped_calibrator()
        self._dense = DenseIndex(dimensions)
        self._lexical = LexicalIndex()
        self._entries: dict[str, FaqEntry] = {}
        self._masks: dict[str, NDArray[np.bool_]] = {}
        self._bare: dict[str, set[str]] = {}
        self._names: dict[str, str] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Mapping[str, FaqEntry]:
        """What is searched, by id."""
        return self._entries

    @property
    def locales(self) -> frozenset[str]:
        """The languages in which there are entries."""
        return frozenset(_language(e.locale) for e in self._entries.values())

    def mentioned(self, texts: Sequence[str]) -> str:
        """Return the entity that was named last in texts, oldest first; empty if none was."""
        for text in reversed(texts):
            words = f" {bare(text)} "
            places = {name: words.rfind(f" {folded} ") for name, folded in self._named().items()}
            if named := {name: place for name, place in places.items() if place >= 0}:
                # Of two that end at one place the longer name is the one that was meant.
                return max(named, key=lambda name: (named[name], len(name)))
        return ""

    def _named(self) -> Mapping[str, str]:
        if self._names is None:
            entities = {e.entity for e in self._entries.values() if e.entity}
            self._names = {name: folded for name in entities if (folded := bare(name))}
        return self._names

    def apply(self, changes: Sequence[Change], removed: Sequence[str] = ()) -> None:
        """Put new and edited entries in, take others out; the rest is not touched."""
        for entry_id in removed:
            self._entries.pop(entry_id, None)
            self._bare.pop(entry_id, None)
            self._dense.remove(entry_id)
            self._lexical.remove(entry_id)
        for change in changes:
            entry = change.entry
            self._entries[entry.id] = entry
            self._bare[entry.id] = {bare(asked) for asked in (entry.question, *entry.alternates)}
            self._dense.put(change.entry.id, change.vectors)
            self._lexical.put(change.entry)
        self._masks.clear()
        self._names = None

    def search(
        self,
        text: str,
        vector: Vector,
        *,
        locale: str,
        limit: int = 5,
        at: datetime | None = None,
        tags: frozenset[str] = frozenset(),
        off_topic: float = 0.0,
    ) -> list[Passage]:
        """Return the likeliest entries, best first.

        Entries in the customer's language come first; one in another language is taken only
        where none in theirs is likely to answer (the encoder compares across languages).

        Args:
            text: The question, stand-alone.
            vector: Its unit vector, shape (dimensions,).
            locale: The customer's language.
            at: The time for which entries must be valid; None takes all.
            tags: Only entries with one of these tags, where any are given.
            off_topic: The chance that the message is out of scope, as the intents see it.
        """
        at_home = self._search(text, vector, locale, False, limit, at, tags, off_topic)
        if at_home and at_home[0].confidence >= AT_HOME_FROM:
            return at_home
        abroad = self._search(text, vector, locale, True, limit, at, tags, off_topic)
        is_far_better = bool(abroad) and (
            not at_home or abroad[0].confidence >= ABROAD_LEAD + at_home[0].confidence
        )
        return abroad if is_far_better else at_home

    def _search(
        self,
        text: str,
        vector: Vector,
        locale: str,
        foreign: bool,
        limit: int,
        at: datetime | None,
        tags: frozenset[str],
        off_topic: float,
    ) -> list[Passage]:
        found = self.candidates(text, vector, locale=locale, foreign=foreign, at=at, tags=tags)
        if not found:
            return []
        signals = [candidate.signals for candidate in found]
        chances = self.calibrator.chances(signals, doubts(text, found, off_topic))
        order = np.argsort(-chances, kind="stable")[:limit]
        return [
            Passage(
                found[i].entry,
                round(found[i].score, 6),
                float(chances[i]),
                signals[i].dense + COSINE_FLOOR,
                signals[i].lexical,
            )
            for i in order
        ]

    def candidates(
        self,
        text: str,
        vector: Vector,
        *,
        locale: str,
        foreign: bool = False,
        at: datetime | None = None,
        tags: frozenset[str] = frozenset(),
        without: AbstractSet[str] = frozenset(),
    ) -> list[Candidate]:
        """Return what both searches bring in, with their signals, by fused score.

        Args:
            text: The question.
            vector: Its unit vector.
            locale: The customer's language.
            foreign: Search the entries of all other languages instead.
            at: The time for which entries must be valid.
            tags: Only entries with one of these tags, where any are given.
            without: Ids of entries that are left out (to calibrate).
        """
        mask = self._mask(_language(locale), foreign)
        if mask is None:
            return []
        lexical = self._lexical.scores(text)
        scores = self._dense.scores(vector)
        dense = dict(self._dense.top(scores, CANDIDATES, mask))
        for key in sorted(lexical, key=lexical.__getitem__, reverse=True)[:CANDIDATES]:
            slot = self._dense.slot(key)
            if mask[slot]:
                dense.setdefault(key, float(scores[slot]))
        found = [
            Candidate(
                entry,
                fuse(cosine, lexical.get(key, 0.0)),
                self._signals(text, vector, entry, cosine, lexical.get(key, 0.0), foreign),
            )
            for key, cosine in dense.items()
            if _is_valid(entry := self._entries[key], at)
            and (not tags or tags & {*entry.tags})
            and key not in without
        ]
        return sorted(found, key=lambda c: c.score, reverse=True)[:CANDIDATES]

    def _signals(
        self,
        text: str,
        vector: Vector,
        entry: FaqEntry,
        dense: float,
        lexical: float,
        foreign: bool,
    ) -> Signals:
        return Signals(
            dense=dense - COSINE_FLOOR,
            nearest=float(self._dense.cosines(entry.id, vector).max()) - COSINE_FLOOR,
            lexical=lexical,
            wording=self._lexical.wording(text, entry.id) if lexical else 0.0,
            exact=float(bare(text) in self._bare[entry.id]),
            foreign=float(foreign),
        )

    def _mask(self, language: str, foreign: bool) -> NDArray[np.bool_] | None:
        name = f"{'not ' if foreign else ''}{language}"
        if name not in self._masks:
            keys = [
                e.id for e in self._entries.values() if (_language(e.locale) == language) ^ foreign
            ]
            self._masks[name] = self._dense.mask(keys)
        mask = self._masks[name]
        return mask if mask.any() else None


def _language(locale: str) -> str:
    return locale.split("-")[0].lower()


def _is_valid(entry: FaqEntry, at: datetime | None) -> bool:
    if at is None:
        return True
    begun = entry.valid_from is None or entry.valid_from <= at
    return begun and (entry.valid_until is None or at < entry.valid_until)


def doubts(text: str, found: Sequence[Candidate], off_topic: float) -> Doubts:
    """Return what speaks for none of the candidates, which come by fused score."""
    rivals = [c.score for c in found[1:6]]
    spread = found[0].score - float(np.mean(rivals)) if rivals else 0.2
    return Doubts(off_topic, 1 / max(len(tokens(text)), 1), spread)


def bare(text: str) -> str:
    """Return a text's words alone: two that differ in case and punctuation are the same."""
    return re.sub(r"\W+", " ", fold(text)).strip()
