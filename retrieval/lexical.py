"""BM25 over what staff wrote, with tokens that fit English, accents, codes and Chinese."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from core.types import FaqEntry

SATURATION = 1.2
"""BM25's k1: how soon further occurrences of a word stop counting."""
LENGTH_WEIGHT = 0.4
"""BM25's b: FAQ entries differ little in length, so less than the usual 0.75."""
MISSPELT_WEIGHT = 0.7
"""What a word counts that matches only after one letter is changed."""
FULL_SHARE = 1.5
"""Scales BM25's growth so that a word in question and answer of an average entry counts whole."""

FIELD_WEIGHTS: Mapping[str, float] = {"question": 2.0, "entity": 1.5, "tags": 0.5, "answer": 1.0}
"""What an occurrence counts by where it stands; alternates count as the question, not on top."""

_PIECE = re.compile(
    r"(?P<code>[a-z0-9]+(?:[-./_#][a-z0-9]+)+)"
    r"|(?P<cjk>[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af々]+)"
    r"|(?P<word>[^\W_]+)"
)
_CJK_FILLERS = re.compile(
    "[的了吗呢啊吧呀嘛么我你您他她们是在有个这那和就都也请]|怎么|什么|可以|能不能"
)
"""Characters that say nothing about the topic; they also end a run, so no pair spans them."""
_STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "the",
        "is",
        "are",
        "am",
        "was",
        "be",
        "been",
        "do",
        "does",
        "did",
        "i",
        "you",
        "we",
        "they",
        "it",
        "my",
        "your",
        "our",
        "their",
        "me",
        "us",
        "them",
        "to",
        "of",
        "in",
        "on",
        "at",
        "for",
        "from",
        "with",
        "by",
        "and",
        "or",
        "if",
        "so",
        "as",
        "that",
        "this",
        "these",
        "those",
        "there",
        "here",
        "please",
        "can",
        "could",
        "would",
        "will",
        "shall",
        "should",
        "may",
        "might",
        "must",
        "have",
        "has",
        "had",
        "get",
        "got",
        "how",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "s",
        "t",
        "d",
        "ll",
        "re",
        "ve",
        "m",
        "im",
        "hi",
        "hello",
        "hey",
        "about",
        "any",
        "some",
        "just",
    ]
)

Scores = dict[str, float]


def fold(text: str) -> str:
    """Return a text in lower case without accents and width variants."""
    text = unicodedata.normalize("NFKC", text).casefold()
    if text.isascii():
        return text
    # Only after Latin letters: a Japanese voicing mark is a part of its character.
    return unicodedata.normalize(
        "NFC", re.sub(r"(?<=[a-z])[\u0300-\u036f]+", "", unicodedata.normalize("NFD", text))
    )


@lru_cache(maxsize=50_000)
def stem(word: str) -> str:
    """Return a word without its commonest English endings."""
    if len(word) <= 3 or not word.isascii() or not word.isalpha():
        return word
    if word.endswith("ies") and len(word) > 4:
        word = word[:-3] + "y"
    elif word.endswith(("sses", "shes", "ches", "xes")):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        rest = word.removesuffix(ending)
        if rest != word and len(rest) >= 3 and re.search("[aeiouy]", rest):
            word = rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
            break
    if word.endswith("e") and len(word) > 4:
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and len(word) > 3 else word


def tokens(text: str) -> list[str]:
    """Return the tokens of a text: stemmed words, whole codes, pairs of CJK characters."""
    return list(_tokens(fold(text).replace("'", " ").replace("\u2019", " ")))


def _tokens(folded: str) -> Iterator[str]:
    for match in _PIECE.finditer(folded):
        piece = match.group()
        if match.lastgroup == "cjk":
            for run in filter(None, _CJK_FILLERS.split(piece)):
                yield from (run[i : i + 2] for i in range(len(run) - 1)) if len(run) > 1 else run
        elif match.lastgroup == "code":
            yield piece
            for part in re.split("[-./_#]", piece):
                if part not in _STOP_WORDS:
                    yield stem(part)
        elif piece not in _STOP_WORDS:
            yield stem(piece)


def weigh(entry: FaqEntry) -> dict[str, float]:
    """Return how much each token counts in an entry.

    Of the question and its alternates the best occurrence counts, not their sum: an entry with
    many alternates is not longer and not more about its words than one with none.
    """
    weights: defaultdict[str, float] = defaultdict(float)
    for asked in (entry.question, *entry.alternates):
        for token, count in Counter(tokens(asked)).items():
            weights[token] = max(weights[token], FIELD_WEIGHTS["question"] * count)
    for token in tokens(entry.answer):
        weights[token] += FIELD_WEIGHTS["answer"]
    for token in tokens(entry.entity or ""):
        weights[token] += FIELD_WEIGHTS["entity"]
    for token in tokens(" ".join(entry.tags)):
        weights[token] += FIELD_WEIGHTS["tags"]
    return dict(weights)


class LexicalIndex:
    """Okapi BM25 whose score is the share of the question's weight that an entry accounts for.

    A score lies in [0, 1]: words that stand nowhere count into the whole, so that a question
    about something unknown scores low even where its other words are found.

    Source: Robertson & Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond (2009).
    """

    def __init__(self) -> None:
        self._postings: dict[str, dict[int, float]] = {}
        self._arrays: dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]] = {}
        self._deletes: dict[str, set[str]] = {}
        self._rows: dict[str, int] = {}
        self._keys: list[str | None] = []
        self._weights: list[dict[str, float]] = []
        self._wordings: dict[str, list[frozenset[str]]] = {}
        self._lengths = np.zeros(0)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._rows)

    def put(self, entry: FaqEntry) -> None:
        """Add an entry, or replace the one with its id."""
        self.remove(entry.id)
        weights = weigh(entry)
        row = self._take_row()
        self._rows[entry.id] = row
        asked = (entry.question, *entry.alternates)
        self._wordings[entry.id] = [frozenset(tokens(wording)) for wording in asked]
        self._keys[row] = entry.id
        self._weights[row] = weights
        self._lengths[row] = sum(weights.values())
        for token, weight in weights.items():
            if token not in self._postings:
                self._postings[token] = {}
                for shorter in _deletions(token):
                    self._deletes.setdefault(shorter, set()).add(token)
            self._postings[token][row] = weight
            self._arrays.pop(token, None)

    def remove(self, entry_id: str) -> None:
        """Forget an entry; one that is not there is no error."""
        row = self._rows.pop(entry_id, None)
        if row is None:
            return
        del self._wordings[entry_id]
        for token in self._weights[row]:
            del self._postings[token][row]
            self._arrays.pop(token, None)
            if not self._postings[token]:
                self._forget(token)
        self._keys[row] = None
        self._weights[row] = {}
        self._lengths[row] = 0.0
        self._free.append(row)

    def scores(self, text: str) -> Scores:
        """Return each entry that shares a token with a text, with its score in (0, 1]."""
        if not self._rows:
            return {}
        total = np.zeros(len(self._keys))
        whole = 0.0
        saturation = self._saturation()
        for token, count in Counter(tokens(text)).items():
            rarity = self._rarity(token)
            whole += count * rarity
            for known, factor in self._matches(token):
                rows, weights = self._posting(known)
                gained = FULL_SHARE * weights / (weights + saturation[rows])
                total[rows] += count * rarity * factor * np.minimum(gained, 1.0)
        found = np.flatnonzero(total)
        keys = self._keys
        return {key: float(total[r] / whole) for r in found if (key := keys[r]) is not None}

    def wording(self, text: str, entry_id: str) -> float:
        """Return in [0, 1] how much a text and an entry's nearest wording are the same words.

        The Dice coefficient over rarities: unlike a score it falls where the wording says more.
        """
        asked = frozenset(tokens(text))
        weight = sum(map(self._rarity, asked))
        best = 0.0
        for said in self._wordings[entry_id]:
            if both := sum(map(self._rarity, asked & said)):
                best = max(best, 2 * both / (weight + sum(map(self._rarity, said))))
        return best

    def _saturation(self) -> NDArray[np.float64]:
        mean = self._lengths.sum() / len(self._rows)
        return SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * self._lengths / (mean or 1.0))

    def _rarity(self, token: str) -> float:
        holders = max((len(self._postings[k]) for k, _ in self._matches(token)), default=0)
        return math.log(1 + (len(self._rows) - holders + 0.5) / (holders + 0.5))

    def _matches(self, token: str) -> list[tuple[str, float]]:
        if token in self._postings:
            return [(token, 1.0)]
        near: set[str] = set()
        for shorter in _deletions(token):
            near |= self._deletes.get(shorter, set())
        close = sorted(known for known in near if _one_edit_apart(token, known))
        return [(known, MISSPELT_WEIGHT / len(close)) for known in close]

    def _posting(self, token: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        if token not in self._arrays:
            rows = self._postings[token]
            self._arrays[token] = (
                np.fromiter(rows.keys(), np.int64, len(rows)),
                np.fromiter(rows.values(), np.float64, len(rows)),
            )
        return self._arrays[token]

    def _take_row(self) -> int:
        if self._free:
            return self._free.pop()
        self._keys.append(None)
        self._weights.append({})
        if len(self._keys) > len(self._lengths):
            self._lengths = np.concatenate([self._lengths, np.zeros(len(self._lengths) + 64)])
        return len(self._keys) - 1

    def _forget(self, token: str) -> None:
        del self._postings[token]
        for shorter in _deletions(token):
            self._deletes[shorter].discard(token)
            if not self._deletes[shorter]:
                del self._deletes[shorter]


def _deletions(token: str) -> set[str]:
    """Return a word and all it becomes without one letter; empty where a typo is no typo.

    Source: Garbe's symmetric delete spelling correction (SymSpell).
    """
    if len(token) < 4 or not token.isascii() or not token.isalpha():
        return set()
    return {token} | {token[:i] + token[i + 1 :] for i in range(len(token))}


def _one_edit_apart(one: str, other: str) -> bool:
    if abs(len(one) - len(other)) > 1 or one[0] != other[0]:
        return False
    if len(one) == len(other):
        differing = [i for i in range(len(one)) if one[i] != other[i]]
        if len(differing) == 2:
            i, j = differing
            return j == i + 1 and one[i] == other[j] and one[j] == other[i]
        return len(differing) == 1
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    return any(longer[:i] + longer[i + 1 :] == shorter for i in range(len(longer)))
