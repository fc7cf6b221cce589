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
from retrieval.entities import About, EntityIndex
from retrieval.fusion import (
    ABOUT_SHARE,
    COSINE_FLOOR,
    Calibrator,
    Doubts,
    Signals,
    fuse,
    shipped_calibrator,
)
from retrieval.lexical import LexicalIndex, fold, tokens
from retrieval.mining import mined

CANDIDATES = 24
"""How many entries each of the two searches brings in."""
OF_ENTITY = 16
"""How many more entries of each entity that is talked about are brought in."""
MOST_ENTITIES = 3
LIKELY_FROM = 0.2
"""Entities less likely than this, in parts of the likeliest, bring no entries in."""
FEWEST_MINED = 30
MINED_SHARE = 0.5
"""Names are taken from the texts of a base if they say what so many of its entries are about."""
DENSITY_POWER = 2
"""How much less a name counts where few entries are about an entity.

With a third of them (the sample shop), counting names in full costs three points of the customers'
questions found first; without any loss it counts in full where nearly all are (DSTC9's base).
"""
AT_HOME_FROM = 0.5
"""An entry in the customer's language this likely is taken without a look at other languages."""

_ARTICLE = re.compile(r"^the\s+", re.IGNORECASE)
_TIES = re.compile(r"\s*(?:\b(?:at|in|for|of|by|from|to|with)\s+)?(?:\bthe\s+)?$", re.IGNORECASE)

ABROAD_LEAD = 0.3
"""How much likelier an entry in another language must be than the best in the customer's own."""


def texts_of(entry: FaqEntry) -> list[str]:
    """Return the texts of an entry that are embedded, in the order that `Change` expects.

    Each wording is found by its own vector; then what the question is without the entity's name,
    what the entry is not for, and last the question with its answer.
    """
    whole = f"{entry.question}\n{entry.answer}"
    return list(dict.fromkeys([*asked_of(entry), nameless(entry), *entry.not_for, whole]))


def asked_of(entry: FaqEntry) -> tuple[str, ...]:
    """Return an entry's own wordings, the main one first."""
    return (entry.question, *entry.alternates)


def nameless(entry: FaqEntry) -> str:
    """Return an entry's question without its entity, as it is asked once that is talked about."""
    return _without(entry.entity, entry.question)


def _without(entity: str | None, text: str) -> str:
    """Return a text without an entity's name and the small words that tie it in."""
    if not entity:
        return text
    name = _ARTICLE.sub("", entity).lower()
    start = text.lower().find(name)
    end = start + len(name)
    if start < 0 or text[max(start - 1, 0) : start].isalnum() or text[end : end + 1].isalnum():
        return text
    left = _TIES.sub("", text[:start]) + text[end:]
    return left.strip() if tokens(left) else text


@dataclass(frozen=True)
class Change:
    """An entry to be put into the index.

    Attributes:
        vectors: Unit vectors of `texts_of(entry)`, shape (texts, dimensions).
    """

    entry: FaqEntry
    vectors: Matrix

    def parts(self) -> tuple[Matrix, Vector | None, Matrix]:
        """Return the vectors of the wordings with the whole, of the topic, and of `not_for`.

        The topic is the question without its entity; None where that is the question itself.
        """
        entry = self.entry
        places = {text: place for place, text in enumerate(texts_of(entry))}
        asked = [places[text] for text in asked_of(entry)]
        against = [places[text] for text in dict.fromkeys(entry.not_for)]
        wordings = self.vectors[list(dict.fromkeys([*asked, len(places) - 1]))]
        topic = None if (plain := nameless(entry)) in asked_of(entry) else places[plain]
        return wordings, None if topic is None else self.vectors[topic], self.vectors[against]


@dataclass(frozen=True)
class Candidate:
    """An entry that a search brought in, before its chance is known."""

    entry: FaqEntry
    score: float
    signals: Signals


@dataclass(frozen=True)
class _Allowed:
    """Masks over the places of the two indexes."""

    slots: NDArray[np.bool_]
    rows: NDArray[np.bool_]


class KnowledgeIndex:
    """Searches the published entries of one knowledge base by meaning and by words."""

    def __init__(self, dimensions: int, calibrator: Calibrator | None = None) -> None:
        self.calibrator = calibrator or shipped_calibrator()
        self._dense = DenseIndex(dimensions)
        self._lexical = LexicalIndex()
        self._entries: dict[str, FaqEntry] = {}
        self._filters: dict[tuple[str, bool, frozenset[str]], _Allowed] = {}
        self._dated: set[str] = set()
        self._known = EntityIndex()
        self._is_mined = True
        self._topics: dict[str, Vector] = {}
        self._against: dict[str, Matrix] = {}
        self._of_entity: dict[str, set[str]] = {}
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

    @property
    def entities(self) -> EntityIndex:
        """The names of what entries are about; taken from their texts where no field says it."""
        if not self._is_mined:
            self._is_mined = True
            if len(self._entries) >= FEWEST_MINED and not any(
                entry.entity for entry in self._entries.values()
            ):
                self._mine()
        return self._known

    def _mine(self) -> None:
        named = mined(self._entries.values())
        if len(named) < MINED_SHARE * len(self._entries):
            named = {}
        for key, entry in self._entries.items():
            before, now = self._known.of(key), named.get(key, "")
            if before != now:
                self._known.put(entry, now or None)
                self._of_entity.get(before, set[str]()).discard(key)
                if now:
                    self._of_entity.setdefault(now, set()).add(key)

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

    def knows(self, name: str) -> bool:
        """Return whether all words of a name stand in some entry."""
        return self._lexical.knows(name)

    def apply(self, changes: Sequence[Change], removed: Sequence[str] = ()) -> None:
        """Put new and edited entries in, take others out; the rest is not touched."""
        for entry_id in removed:
            self._forget(entry_id)
        for change in changes:
            self._forget(change.entry.id)
            self._take_in(change)
        self._is_mined = False
        self._filters.clear()
        self._names = None

    def _take_in(self, change: Change) -> None:
        entry = change.entry
        self._entries[entry.id] = entry
        if entry.valid_from is not None or entry.valid_until is not None:
            self._dated.add(entry.id)
        self._bare[entry.id] = {bare(asked) for asked in asked_of(entry)}
        wordings, topic, against = change.parts()
        self._dense.put(entry.id, wordings)
        self._lexical.put(entry)
        self._known.put(entry)
        if entity := self._known.of(entry.id):
            self._of_entity.setdefault(entity, set()).add(entry.id)
        if topic is not None:
            self._topics[entry.id] = topic
        if len(against):
            self._against[entry.id] = against

    def _forget(self, entry_id: str) -> None:
        if self._entries.pop(entry_id, None) is None:
            return
        if entity := self._known.of(entry_id):
            self._of_entity[entity].discard(entry_id)
        del self._bare[entry_id]
        self._topics.pop(entry_id, None)
        self._against.pop(entry_id, None)
        self._dated.discard(entry_id)
        self._dense.remove(entry_id)
        self._lexical.remove(entry_id)
        self._known.remove(entry_id)

    def catch_up(self) -> bool:
        """Let some entries of a large base join its graph; return whether others still wait."""
        return self._dense.catch_up()

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
        about: Sequence[About] = (),
        gist: Vector | None = None,
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
            about: Which entities are talked about (`entities.talked_about`): their entries are
                looked at first, and those of other entities last.
            gist: The unit vector of the text's gist (`entities.gist`), where that is another text.
        """
        vector = blended(vector, gist)
        at_home = self._search(text, vector, locale, False, limit, at, tags, off_topic, about)
        if at_home and at_home[0].confidence >= AT_HOME_FROM:
            return at_home
        abroad = self._search(text, vector, locale, True, limit, at, tags, off_topic, about)
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
        about: Sequence[About],
    ) -> list[Passage]:
        found = self.candidates(
            text, vector, locale=locale, foreign=foreign, at=at, tags=tags, about=about
        )
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
        about: Sequence[About] = (),
    ) -> list[Candidate]:
        """Return what both searches and the entities bring in, with their signals, best first.

        Args:
            text: The question.
            vector: Its unit vector.
            locale: The customer's language.
            foreign: Search the entries of all other languages instead.
            at: The time for which entries must be valid.
            tags: Only entries with one of these tags, where any are given.
            without: Ids of entries that are left out (to calibrate).
            about: Which entities are talked about.
        """
        allowed = self._allowed(_language(locale), foreign, tags, at)
        if allowed is None:
            return []
        weights = {a.entity: a.weight for a in about if self._of_entity.get(a.entity)}
        dense = dict(self._dense.search(vector, CANDIDATES, allowed.slots))
        by_words = [key for key, _ in self._lexical.search(text, CANDIDATES, allowed.rows)]
        more = [key for key in by_words if key not in dense]
        dense |= dict(zip(more, self._dense.score(more, vector).tolist(), strict=True))
        dense |= self._of(weights, vector, allowed)
        keys = [key for key in dense if key not in without]
        found = self._weighed(text, vector, keys, dense, foreign, weights)
        most = CANDIDATES + OF_ENTITY * min(len(weights), MOST_ENTITIES)
        return sorted(found, key=lambda c: c.score, reverse=True)[:most]

    def _of(
        self, weights: Mapping[str, float], vector: Vector, allowed: _Allowed
    ) -> dict[str, float]:
        """Return the best entries of each entity that is talked about, with their cosine."""
        found: dict[str, float] = {}
        surest = max(weights.values(), default=0.0)
        likely = [entity for entity in weights if weights[entity] >= LIKELY_FROM * surest]
        for entity in sorted(likely, key=weights.__getitem__, reverse=True)[:MOST_ENTITIES]:
            keys = [k for k in self._of_entity[entity] if allowed.slots[self._dense.slot(k)]]
            scores = self._dense.score(keys, vector)
            found |= {keys[i]: float(scores[i]) for i in np.argsort(-scores)[:OF_ENTITY]}
        return found

    def _weighed(
        self,
        text: str,
        vector: Vector,
        keys: Sequence[str],
        dense: Mapping[str, float],
        foreign: bool,
        weights: Mapping[str, float],
    ) -> list[Candidate]:
        """Return candidates with what speaks for each."""
        if not keys:
            return []
        asked = bare(text)
        lexical = self._lexical.score(text, keys).tolist()
        wordings = self._lexical.wordings(text, keys)
        nearest = self._nearest(keys, vector).tolist()
        surest = max(weights.values(), default=0.0)
        # A hotel portal is asked about hotels; in a shop a name is often said beside the point.
        density = self._known.density**DENSITY_POWER
        found: list[Candidate] = []
        for key, words, wording, near in zip(keys, lexical, wordings, nearest, strict=True):
            entity = self._known.of(key)
            about = weights.get(entity, 0.0) if entity else 0.0
            elsewhere = surest - about if entity else 0.0
            signals = Signals(
                dense=dense[key] - COSINE_FLOOR,
                nearest=near - COSINE_FLOOR,
                lexical=words,
                wording=wording if words else 0.0,
                # "Do you have wifi?" may be one hotel's wording and be asked of another.
                exact=float(asked in self._bare[key]) * (1 - elsewhere),
                foreign=float(foreign),
                about=about * density,
                elsewhere=elsewhere * density,
                against=self._against_by(key, vector, near),
            )
            ties = ABOUT_SHARE * (about - elsewhere) * density
            found.append(Candidate(self._entries[key], fuse(dense[key], words) + ties, signals))
        return found

    def _nearest(self, keys: Sequence[str], vector: Vector) -> NDArray[np.float32]:
        """Return the best cosine of each entry's texts, and of its question without the name."""
        nearest = self._dense.nearest(keys, vector)
        places = [place for place, key in enumerate(keys) if key in self._topics]
        if places:
            topics = np.stack([self._topics[keys[place]] for place in places]) @ vector
            nearest[places] = np.maximum(nearest[places], topics)
        return nearest

    def _against_by(self, key: str, vector: Vector, near: float) -> float:
        if key not in self._against:
            return 0.0
        return max(float((self._against[key] @ vector).max()) - near, 0.0)

    def _allowed(
        self, language: str, foreign: bool, tags: AbstractSet[str], at: datetime | None
    ) -> _Allowed | None:
        """Return which entries may be found, None where none may.

        Filters are masks and not applied to what was found: behind a narrow filter the best of
        all would leave nothing.
        """
        name = (language, foreign, frozenset(tags))
        if name not in self._filters:
            keys = [
                e.id
                for e in self._entries.values()
                if (_language(e.locale) == language) ^ foreign and (not tags or tags & {*e.tags})
            ]
            self._filters[name] = _Allowed(self._dense.mask(keys), self._lexical.mask(keys))
        allowed = self._filters[name]
        if at is not None and (over := [k for k in self._dated if not self._is_valid(k, at)]):
            allowed = _Allowed(
                allowed.slots & ~self._dense.mask(over), allowed.rows & ~self._lexical.mask(over)
            )
        return allowed if allowed.slots.any() else None

    def _is_valid(self, key: str, at: datetime) -> bool:
        return _is_valid(self._entries[key], at)


def blended(vector: Vector, gist: Vector | None) -> Vector:
    """Return the direction between a question's vector and that of its gist.

    The name, often misheard, drowns what is asked; without it some questions are too short.
    """
    if gist is None:
        return vector
    mean = vector + gist
    return (mean / np.linalg.norm(mean)).astype(np.float32)


def _language(locale: str) -> str:
    return locale.split("-")[0].lower()


def _is_valid(entry: FaqEntry, at: datetime) -> bool:
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
