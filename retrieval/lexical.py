"""BM25 over what staff wrote, with tokens that fit English, accents, codes and Chinese."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

MOST_POSTINGS = 60_000
"""Occurrences that a search adds up, rarest words first. In a large base common words stand in
every second entry: alone they find nothing, and adding them all up takes most of the time
(200,000 entries, OR of common words in PostgreSQL: 909 ms). They still count in the scores of
what the rarer words found."""
POOL = 4
"""Times as many entries as wanted are scored with all words."""

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
_KANA = re.compile(r"[\u3040-\u30ff]")
_HANGUL = re.compile(r"[\uac00-\ud7af]+")
_SCRIPTS = re.compile(r"[\u30a0-\u30ff]+|[\u3040-\u309f]+|[^\u3040-\u30ff]+")
_JA_FILLERS = re.compile(
    "でしょうか|ですか|でした|です|ますか|ました|ません|ます|ください|下さい|から|まで|けど|ので|"
    "という|について|ある|あり|いる|する|して|した|いい|よい|お|ご|[はがをにでともへのかねよな]"
)
"""Particles and endings of Japanese, which is written without spaces."""
_KO_ENDINGS = re.compile(
    "(?:이에요|예요|인가요|입니까|입니다|있나요|있어요|있습니까|하나요|합니까|할까요|되나요|됩니까|"
    "나요|까요|습니까|습니다|어요|아요|해요|에서|에게|으로|까지|부터|하고|이나|이랑|"
    "은|는|이|가|을|를|에|로|와|과|도|만|의|요)$"
)
"""Particles and endings of Korean words."""
STOP_WORDS = frozenset(
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
            yield from _cjk(piece)
        elif match.lastgroup == "code":
            yield piece
            for part in re.split("[-./_#]", piece):
                if part not in STOP_WORDS:
                    yield stem(part)
        elif piece not in STOP_WORDS:
            yield stem(piece)


def _cjk(run: str) -> Iterator[str]:
    """Yield the tokens of a run without spaces: pairs of characters, katakana words whole."""
    if _HANGUL.match(run):
        yield from _pairs(_without_ending(run))
    elif _KANA.search(run):
        for part in _SCRIPTS.findall(run):
            if part[0] >= "\u30a0" and part[0] <= "\u30ff":
                yield part
            elif _KANA.match(part):
                for left in _JA_FILLERS.split(part):
                    yield from _pairs(left) if len(left) > 1 else ()
            else:
                yield from _pairs(part)
    else:
        for part in filter(None, _CJK_FILLERS.split(run)):
            yield from _pairs(part)


def _pairs(run: str) -> Iterator[str]:
    yield from (run[i : i + 2] for i in range(len(run) - 1)) if len(run) > 1 else run


def _without_ending(word: str) -> str:
    """Return a Korean word without its particle or ending; a short one may be all stem."""
    stem = _KO_ENDINGS.sub("", word)
    return stem if len(stem) > 1 else word


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


@dataclass(frozen=True)
class _Asked:
    """A word of a question: what it weighs, in how many entries it stands, as which tokens."""

    weight: float
    holders: int
    matches: Sequence[tuple[str, float]]


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
        self._length = 0.0
        self._free: list[int] = []
        self._rarities: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def knows(self, name: str) -> bool:
        """Return whether all words of a name stand in some entry."""
        words = tokens(name)
        return bool(words) and all(self._postings.get(word) for word in words)

    def put(self, entry: FaqEntry) -> None:
        """Add an entry, or replace the one with its id."""
        self.remove(entry.id)
        weights = weigh(entry)
        self._rarities.clear()
        row = self._take_row()
        self._rows[entry.id] = row
        asked = (entry.question, *entry.alternates)
        self._wordings[entry.id] = [frozenset(tokens(wording)) for wording in asked]
        self._keys[row] = entry.id
        self._weights[row] = weights
        self._lengths[row] = sum(weights.values())
        self._length += self._lengths[row]
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
        self._rarities.clear()
        for token in self._weights[row]:
            del self._postings[token][row]
            self._arrays.pop(token, None)
            if not self._postings[token]:
                self._forget(token)
        self._keys[row] = None
        self._weights[row] = {}
        self._length -= self._lengths[row]
        self._lengths[row] = 0.0
        self._free.append(row)

    def search(
        self, text: str, limit: int, allowed: NDArray[np.bool_] | None = None
    ) -> list[tuple[str, float]]:
        """Return the best entries that share a word with a text, best first.

        Args:
            text: What is asked.
            limit: How many entries at most.
            allowed: A mask over rows, as `mask` makes it.

        Returns:
            Keys with their score in (0, 1].
        """
        if not self._rows or limit < 1:
            return []
        asked = self._asked(text)
        rows = self._found(asked, allowed, POOL * limit)
        scores = self._scores_of(asked, rows)
        best = np.argsort(-scores, kind="stable")[:limit]
        return [(key, float(scores[i])) for i in best if (key := self._keys[rows[i]]) is not None]

    def score(self, text: str, keys: Sequence[str]) -> NDArray[np.float64]:
        """Return the score of each of some entries, in their order; 0 where no word is shared."""
        rows = np.asarray([self._rows[key] for key in keys], np.int64)
        return self._scores_of(self._asked(text), rows)

    def mask(self, keys: Iterable[str]) -> NDArray[np.bool_]:
        """Return a mask over rows that lets only these entries through."""
        allowed = np.zeros(len(self._keys), np.bool_)
        allowed[[self._rows[key] for key in keys if key in self._rows]] = True
        return allowed

    def _asked(self, text: str) -> list[_Asked]:
        """Return the words of a text, rarest first."""
        words: list[_Asked] = []
        for token, count in Counter(tokens(text)).items():
            matches = self._matches(token)
            holders = max((len(self._postings[known]) for known, _ in matches), default=0)
            words.append(_Asked(count * self._rarity_of(holders), holders, matches))
        return sorted(words, key=lambda word: word.holders)

    def _found(
        self, asked: Sequence[_Asked], allowed: NDArray[np.bool_] | None, limit: int
    ) -> NDArray[np.int64]:
        """Return the rows that the rarer words find, the best at most `limit`, in any order."""
        total = np.zeros(len(self._keys))
        added = 0
        for word in asked:
            if added and added + word.holders > MOST_POSTINGS:
                break
            added += word.holders
            for known, factor in word.matches:
                rows, weights = self._posting(known)
                total[rows] += word.weight * factor * self._gained(rows, weights)
        if allowed is not None:
            total[: len(allowed)] *= allowed
        found = np.flatnonzero(total)
        if len(found) <= limit:
            return found
        return found[np.argpartition(-total[found], limit - 1)[:limit]]

    def _scores_of(self, asked: Sequence[_Asked], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        whole = sum(word.weight for word in asked)
        if not len(rows) or whole <= 0:
            return np.zeros(len(rows))
        total = np.zeros(len(rows))
        held = [self._weights[row] for row in rows]
        for word in asked:
            for known, factor in word.matches:
                weights = np.asarray([each.get(known, 0.0) for each in held])
                total += word.weight * factor * self._gained(rows, weights)
        return total / whole

    def _gained(self, rows: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return in [0, 1] how much an occurrence counts in entries of their lengths."""
        mean = self._length / len(self._rows) or 1.0
        saturation = SATURATION * (1 - LENGTH_WEIGHT + LENGTH_WEIGHT * self._lengths[rows] / mean)
        return np.minimum(FULL_SHARE * weights / (weights + saturation), 1.0)

    def wordings(self, text: str, keys: Sequence[str]) -> list[float]:
        """Return in [0, 1] how much a text and each entry's nearest wording are the same words.

        The Dice coefficient over rarities: unlike a score it falls where the wording says more.
        """
        asked = frozenset(tokens(text))
        weight = sum(map(self._rarity, asked))
        return [self._wording(asked, weight, key) for key in keys]

    def _wording(self, asked: frozenset[str], weight: float, key: str) -> float:
        best = 0.0
        for said in self._wordings[key]:
            if both := sum(map(self._rarity, asked & said)):
                best = max(best, 2 * both / (weight + sum(map(self._rarity, said))))
        return best

    def _rarity(self, token: str) -> float:
        known = self._rarities.get(token)
        if known is not None:
            return known
        holders = max((len(self._postings[k]) for k, _ in self._matches(token)), default=0)
        rarity = self._rarity_of(holders)
        if token in self._postings:  # what customers type would fill the memory
            self._rarities[token] = rarity
        return rarity

    def _rarity_of(self, holders: int) -> float:
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
