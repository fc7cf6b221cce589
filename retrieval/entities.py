"""Which entities (products, places, firms) a message names, however it is typed or heard.

A name is found in two steps. Pieces of its spelling and of its sound are looked up in an inverted
index, which leaves a few dozen names; those are compared with every run of words of the message,
by spelling and by sound. What is compared is not only the name in full but also what is left of
it without words that many names share ("the Gonville" for GONVILLE HOTEL).

Source: character n-grams weighted by rarity against approximate names, Cohen, Ravikumar & Fienberg,
A Comparison of String Distance Metrics for Name-Matching Tasks (2003); entity first and then the
question within it: He et al., Learning to Select External Knowledge with Multi-Scale Negative
Sampling (DSTC9, 2021).
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from core.types import FaqEntry
from retrieval.common_words import COMMON_WORDS
from retrieval.lexical import STOP_WORDS, fold
from retrieval.sounds import in_words, sounds

COMPARED = 40
"""How many forms of names are compared letter by letter."""
MOST_WORDS = 80
"""Of a longer message the end counts: a name far back in a long text is rarely what is meant."""
WINDOW_WORDS = 7
LATIN_CHARACTERS = 36
MENTION_FROM = 0.35
"""A weaker likeness is chance."""
SURE_FROM = 0.6
"""From here on a mention is taken out of a question before it is compared."""
RIVAL_FROM = 0.6
"""Of two names at one place the worse stays if it is so good in parts of the better."""
MOST_MENTIONS = 6
RECENCY = 0.6
"""What is left of a mention with each message since."""
BOT_SHARE = 0.85
"""What the bot named counts against what the customer named: they may have declined it."""
ABOUT_FROM = 0.02
NOBODY = 0.05
"""The weight of its being about none of the entities that were named."""
MOST_ABOUT = 5
KEPT_MESSAGES = 4_096
GENERIC_BELOW = 0.6
"""A word of a name below this rarity, in parts of the rarest, hardly tells whose name it is."""
PART_BELOW = 0.8
"""A form with less of a name than this must be met nearly exactly."""
PART_FROM = 0.92
COMMON_SHARE = 0.5
"""How likely a common word is a name that it is all of ("ask" for ASK RESTAURANT)."""
GENERIC_SHARE = 0.45
"""What is left of the rarity of a word that says what kind of thing it is."""
SHARED_BY = 3
"""An ending or beginning that so many Chinese, Japanese or Korean names share is generic."""

_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af々]|\d+|[^\W\d_]+"
)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uac00-\ud7af々]")
_BRACKETS = re.compile(r"[（(\[【].*?[）)\]】]")
_FILLERS = re.compile(
    r"\b(?:u+h+m?|u+m+|e+r+m?|h+m+|i mean|you know|let me see)\b,?", re.IGNORECASE
)
_REPEATED = re.compile(r"\b(\w+)(?: \1\b)+", re.IGNORECASE)
_GENERIC_WORDS = frozenset(
    """
    hotel hotels restaurant restaurants house guest guesthouse inn lodge bar cafe coffee shop store
    grill kitchen bistro pub club museum church college park theatre theater cinema gallery centre
    center street road square city town north south east west airport station bed breakfast food
    takeaway chinese indian italian company service services products one two three four five six
    seven eight nine ten zero
    """.split()  # noqa: SIM905
)
"""Words that name a kind of thing or its place, where a base is too small to show it."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Mention:
    """A place in a text where an entity is named.

    Attributes:
        score: How sure that is, in (0, 1].
        start: Where the words begin, as a place in the text.
        end: Where they end.
    """

    entity: str
    score: float
    start: int
    end: int


@dataclass(frozen=True)
class About:
    """An entity that a conversation is about; `weight` is in (0, 1]."""

    entity: str
    weight: float


@dataclass(frozen=True)
class _Word:
    text: str
    code: str
    start: int
    end: int


@dataclass(frozen=True)
class _Form:
    """A way to say a name.

    Attributes:
        telling: How many of its letters tell whose name it is; those of "hotel" hardly do.
        strength: How much of the name it is, in (0, 1].
    """

    entity: str
    letters: str
    code: str
    telling: float
    strength: float


class EntityIndex:
    """Finds the names of the entities that entries are about."""

    def __init__(self) -> None:
        self._entities: dict[str, str] = {}
        self._names: Counter[str] = Counter()
        self._texts: dict[str, frozenset[str]] = {}
        self._said: Counter[str] = Counter()
        self._forms: list[_Form] | None = None
        self._postings: dict[str, NDArray[np.int64]] = {}
        self._rarity: dict[str, float] = {}
        self._whole: Floats = np.zeros(0)
        self._seen: OrderedDict[str, list[Mention]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, entity: str) -> bool:
        """Tell whether an entry names this entity."""
        return entity in self._names

    @property
    def names(self) -> frozenset[str]:
        """The entities, as entries name them."""
        return frozenset(self._names)

    @property
    def density(self) -> float:
        """The share of entries that are about an entity, in [0, 1]."""
        return len(self._entities) / max(len(self._texts), 1)

    def put(self, entry: FaqEntry, entity: str | None = None) -> None:
        """Take in an entry, or what was changed of it.

        Args:
            entry: The entry; its texts tell which words of names are common ones.
            entity: What it is about, where its own field does not say so.
        """
        self.remove(entry.id)
        words = frozenset(_WORD.findall(fold(f"{entry.question} {entry.answer}")))
        named = entity or entry.entity
        if named and (name := _cleaned(named)):
            words -= {word.text for word in _words(name)}
            self._entities[entry.id] = named
            self._names[named] += 1
            if self._names[named] == 1:
                self._outdate()
        self._texts[entry.id] = words
        self._said.update(words)

    def remove(self, entry_id: str) -> None:
        """Forget an entry; one that is not there is no error."""
        self._said.subtract(self._texts.pop(entry_id, ()))
        name = self._entities.pop(entry_id, None)
        if name is not None:
            self._names[name] -= 1
            if not self._names[name]:
                del self._names[name]
                self._outdate()

    def of(self, entry_id: str) -> str:
        """Return the entity of an entry; empty where it has none."""
        return self._entities.get(entry_id, "")

    def mentions(self, text: str) -> list[Mention]:
        """Return the entities that a text names, the surest first."""
        if not self._names:
            return []
        if text in self._seen:
            self._seen.move_to_end(text)
        else:
            self._seen[text] = self._find(text)
            if len(self._seen) > KEPT_MESSAGES:
                self._seen.popitem(last=False)
        return self._seen[text]

    def _outdate(self) -> None:
        self._forms = None
        self._seen.clear()

    def _find(self, text: str) -> list[Mention]:
        forms = self._built()
        words = _words(text)[-MOST_WORDS:]
        near = self._near(words)
        if not near:
            return []
        chosen = [forms[i] for i in near]
        windows = list(_windows(words, max(len(form.letters) for form in chosen)))
        if not windows:
            return []
        telling = np.asarray([form.telling for form in chosen])
        spelt = _edits([w.letters for w in windows], [form.letters for form in chosen]) / telling
        codes = np.asarray([len(form.code) / len(form.letters) for form in chosen])
        heard = _edits([w.code for w in windows], [form.code for form in chosen])
        heard = heard / np.maximum(telling * codes, 1)
        strengths = np.asarray([form.strength for form in chosen])
        scores = likelihood(spelt, heard, telling * codes, strengths) * strengths
        return self._best(windows, chosen, scores)

    def _best(
        self, windows: Sequence[_Window], forms: Sequence[_Form], scores: Floats
    ) -> list[Mention]:
        """Return the best place of each entity, less those that better names take away."""
        best: dict[str, tuple[float, int, int]] = {}
        for number, form in enumerate(forms):
            place = int(scores[:, number].argmax())
            score = float(scores[place, number])
            known = best.get(form.entity, (0.0, 0, 0))
            if score >= MENTION_FROM and score > known[0]:
                best[form.entity] = (score, windows[place].start, windows[place].end)
        found = [Mention(e, round(s, 4), a, b) for e, (s, a, b) in best.items()]
        found.sort(key=lambda m: (-m.score * (m.end - m.start) ** 0.25, m.entity))
        kept: list[Mention] = []
        for mention in found:
            rivals = [k for k in kept if k.start < mention.end and mention.start < k.end]
            # Two branches of one name stay both, a name inside a surer one does not.
            if all(mention.score > RIVAL_FROM * k.score and _spans(mention, k) for k in rivals):
                kept.append(mention)
        return sorted(kept[:MOST_MENTIONS], key=lambda m: -m.score)

    def _near(self, words: Sequence[_Word]) -> list[int]:
        """Return the forms that share most of their rare pieces with a message."""
        letters = "".join(word.text for word in words)
        code = "".join(word.code for word in words)
        held = [g for g in _grams(letters, code) if g in self._postings]
        if not held:
            return []
        rows = np.concatenate([self._postings[gram] for gram in held])
        worth = np.repeat(
            [self._rarity[gram] for gram in held], [len(self._postings[gram]) for gram in held]
        )
        shares = np.bincount(rows, worth, minlength=len(self._whole)) / self._whole
        count = min(COMPARED, len(shares))
        top = np.argpartition(-shares, count - 1)[:count]
        return [int(row) for row in top if shares[row] > 0.2]

    def _built(self) -> list[_Form]:
        if self._forms is None:
            self._forms = list(self._all_forms())
            self._index(self._forms)
        return self._forms

    def _index(self, forms: Sequence[_Form]) -> None:
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for number, form in enumerate(forms):
            for gram in _grams(form.letters, form.code):
                rows[gram].append(number)
        self._postings = {gram: np.asarray(held) for gram, held in rows.items()}
        self._rarity = {g: float(np.log(1 + len(forms) / len(held))) for g, held in rows.items()}
        self._whole = np.zeros(len(forms))
        for gram, held in self._postings.items():
            self._whole[held] += self._rarity[gram]
        self._whole = np.maximum(self._whole, 1e-9)

    def _all_forms(self) -> Iterator[_Form]:
        names = {name: _words(_cleaned(name)) for name in sorted(self._names)}
        holders = Counter(word for words in names.values() for word in {w.text for w in words})
        usual = max(len(self._texts) / max(len(names), 1), 1.0)
        edges = _shared_edges(["".join(w.text for w in words) for words in names.values()])
        for name, words in names.items():
            if all(_CJK.fullmatch(word.text) for word in words):
                yield from _cjk_forms(name, "".join(w.text for w in words), edges)
                whole = "".join(word.text for word in _words(name))
                if _BRACKETS.search(name):  # its branch: the whole tells it from the others
                    yield _Form(name, whole, whole, float(len(whole)), 1.0)
            else:
                weights = [self._weight(w.text, holders[w.text], len(names), usual) for w in words]
                yield from _latin_forms(name, words, weights)

    def _weight(self, word: str, holders: int, names: int, usual: float) -> float:
        """Return in (0, 1] how rare a word is among names and in the entries of others."""
        if word in STOP_WORDS:
            return 0.05
        share = GENERIC_SHARE if word in _GENERIC_WORDS else 1.0
        spread = holders + self._said[word] / usual
        rarity = float(np.log((names + 2) / (spread + 1)) / np.log((names + 2) / 2))
        return max(rarity * share, 0.05)


@dataclass(frozen=True)
class _Window:
    letters: str
    code: str
    start: int
    end: int


def talked_about(utterances: Sequence[tuple[str, str]], index: EntityIndex) -> list[About]:
    """Return which entities a conversation is about, the likeliest first.

    A mention counts less with each message since, and what the bot named less than what the
    customer did.

    Args:
        utterances: (author, text), oldest first; the author is `customer` or anybody else.
        index: The names.
    """
    left: defaultdict[str, float] = defaultdict(lambda: 1.0)
    surest: defaultdict[str, float] = defaultdict(float)
    for age, (author, text) in enumerate(reversed(utterances)):
        share = RECENCY**age * (1.0 if author == "customer" else BOT_SHARE)
        if share < ABOUT_FROM:
            break
        for mention in index.mentions(text):
            left[mention.entity] *= 1 - share * mention.score
            surest[mention.entity] = max(surest[mention.entity], mention.score)
    # In parts of all: what was named long ago is still talked about where nothing came after.
    whole = sum(1 - missing for missing in left.values()) + NOBODY
    weights = {e: (1 - missing) / whole * surest[e] for e, missing in left.items()}
    ranked = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
    return [About(e, round(w, 4)) for e, w in ranked[:MOST_ABOUT] if w >= ABOUT_FROM]


def gist(text: str, index: EntityIndex) -> str:
    """Return what a text asks without the names in it and without what people say while thinking.

    As it is where nothing is left.
    """
    left = text
    for mention in sorted(index.mentions(text), key=lambda m: -m.start):
        if mention.score >= SURE_FROM:
            left = left[: mention.start] + left[min(mention.end, len(left)) :]
    words = _REPEATED.sub(r"\1", _FILLERS.sub(" ", left)).split()
    return " ".join(words) if len(words) > 1 else text


def bare_name(name: str) -> str:
    """Return a name without the words that say only what kind of thing it is, in small letters."""
    words = [word.text for word in _words(_cleaned(name))]
    left = [word for word in words if word not in _GENERIC_WORDS and word != "the"]
    return " ".join(left or words)


def likelihood(misspelt: Floats, misheard: Floats, lengths: Floats, strengths: Floats) -> Floats:
    """Return how likely words are a name from how far they are from it, in [0, 1].

    A short name must be met exactly, of a long one a third may be wrong: the shorter it is, the
    more words there are that sound like it.

    Args:
        misspelt: Edits for each telling letter, shape (windows, forms).
        misheard: Edits for each telling sound, the same shape.
        lengths: Telling sounds of each form, shape (forms,).
        strengths: How much of its name each form is; a part must be met more exactly.
    """
    alike = 1 - np.minimum(0.5 * (misspelt + misheard), misspelt + 0.05)
    middle = np.clip(0.98 - 0.045 * (lengths - 2), 0.66, 0.95)
    middle = np.maximum(middle, np.where(strengths < PART_BELOW, PART_FROM, 0.0))
    chance = 1 / (1 + np.exp(-18 * (np.clip(alike, 0, 1) - middle)))
    return np.where(alike > 0.5, chance, 0.0)


def _edits(one: Sequence[str], other: Sequence[str]) -> Floats:
    return cdist(one, other, scorer=Levenshtein.distance, dtype=np.int32).astype(np.float64)


def _spans(one: Mention, other: Mention) -> bool:
    """Return whether two mentions lie at nearly the same place."""
    return abs(one.start - other.start) + abs(one.end - other.end) <= 2


@lru_cache(maxsize=8_192)
def _words_of(text: str) -> tuple[_Word, ...]:
    """Return the words of a text with their sound; a number is said, a Han character is one."""
    # Folding may change lengths (ligatures), then places are only nearly right.
    folded = fold(text.replace("'", " ").replace("\u2019", " "))
    found: list[_Word] = []
    for match in _WORD.finditer(folded):
        piece = match.group()
        if piece.isdecimal() and len(piece) <= 4 and piece.isascii():
            said = in_words(piece).split()
            found += [_Word(w, sounds(w), match.start(), match.end()) for w in said]
        else:
            found.append(_Word(piece, sounds(piece) or piece, match.start(), match.end()))
    return tuple(found)


def _words(text: str) -> list[_Word]:
    return list(_words_of(text))


def _cleaned(name: str) -> str:
    """Return a name without what stands in brackets, and with its "&" said."""
    return (_BRACKETS.sub(" ", name).strip() or name).replace("&", " and ")


def _windows(words: Sequence[_Word], longest: int) -> Iterator[_Window]:
    """Yield each run of words that is not much longer than the longest name."""
    limit = min(longest * 1.4 + 1, LATIN_CHARACTERS)
    for first in range(len(words)):
        letters = code = ""
        most = WINDOW_WORDS if not _CJK.match(words[first].text) else longest + 1
        for word in words[first : first + most]:
            letters += word.text
            code += word.code
            if len(letters) > limit:
                break
            yield _Window(letters, code, words[first].start, word.end)


def _grams(letters: str, code: str) -> set[str]:
    """Return pieces of a spelling and, marked, of a sound."""
    if _CJK.search(letters):
        return {letters[i : i + n] for n in (1, 2) for i in range(len(letters) - n + 1)}
    spelt = {letters[i : i + 3] for i in range(len(letters) - 2)} or {letters}
    heard = {f"/{code[i : i + n]}" for n in (2, 3) for i in range(len(code) - n + 1)}
    return spelt | heard | ({f"/{code}"} if len(code) < 2 else set())


def _latin_forms(name: str, words: Sequence[_Word], weights: Sequence[float]) -> Iterator[_Form]:
    """Yield a name in full and its telling parts."""
    whole = sum(weights)
    rarest = max(weights)
    telling = [i for i, weight in enumerate(weights) if weight >= GENERIC_BELOW * rarest]
    without_the = [i for i, w in enumerate(words) if w.text != "the"] or list(range(len(words)))
    ways: dict[tuple[int, ...], float] = {tuple(without_the): 1.0}
    ways.setdefault(tuple(telling), 0.97)
    bare = tuple(i for i in without_the if words[i].text not in _GENERIC_WORDS)
    ways.setdefault(bare, 0.97)
    ways.setdefault(tuple(i for i in without_the if words[i].text not in STOP_WORDS), 0.95)
    if len(telling) > 2:
        ways.setdefault(tuple(telling[:2]), 0.9)
    if len(telling) > 1:
        for i in telling:
            is_rare = weights[i] >= 0.9 * rarest and words[i].text not in COMMON_WORDS
            if is_rare and len(words[i].text) > 3:
                ways.setdefault((i,), 0.9)
    if len(without_the) > 2:
        ways.setdefault(tuple(without_the[:2]), 0.9)
    for places, sureness in ways.items():
        if not places or max(weights[i] for i in places) < GENERIC_BELOW * rarest:
            continue
        share = min(sum(weights[i] for i in places) / whole + 0.1, 1.0)
        letters = "".join(words[i].text for i in places)
        if len(letters) < 2 or (share < 1 and len(letters) < 3):
            continue
        code = "".join(words[i].code for i in places)
        told = sum(len(words[i].text) * min(weights[i] / rarest, 1.0) for i in places)
        if len(places) == 1 and letters in COMMON_WORDS:
            sureness *= COMMON_SHARE
        yield _Form(name, letters, code, max(told, 1.0), sureness * share**0.5)


def _cjk_forms(name: str, letters: str, edges: frozenset[str]) -> Iterator[_Form]:
    """Yield a name in full, without generic ends, and its beginning."""
    ways = {letters: 1.0}
    stem = letters
    for length in (4, 3, 2):
        if len(stem) - length >= 2 and f"{stem[-length:]}$" in edges:
            stem = stem[:-length]
            ways.setdefault(stem, 0.95)
            break
    for length in (4, 3, 2):
        if len(stem) - length >= 2 and f"^{stem[:length]}" in edges:
            stem = stem[length:]
            ways.setdefault(stem, 0.9)
            break
    for length in range(2, min(len(stem), 5)):
        if f"^{stem[:length]}" not in edges:
            ways.setdefault(stem[:length], 0.6 + 0.05 * length)
    for way, strength in ways.items():
        yield _Form(name, way, way, float(len(way)), strength)


def _shared_edges(names: Iterable[str]) -> frozenset[str]:
    """Return the beginnings (`^北京`) and endings (`酒店$`) that several names share."""
    counts: Counter[str] = Counter()
    for name in set(names):
        for length in (2, 3, 4):
            if len(name) > length:
                counts[f"^{name[:length]}"] += 1
                counts[f"{name[-length:]}$"] += 1
    return frozenset(edge for edge, count in counts.items() if count >= SHARED_BY)
