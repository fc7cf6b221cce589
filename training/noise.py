"""What typing and voice recognition do to a message; pure, by a given random generator.

Recognition does not garble letters: it hears other words. A name that the recogniser does not
know comes back as common words that sound alike ("Gonville" as "gone bill"), and small words are
lost, doubled or exchanged. So the sounds of a rare word are cut into pieces, and a piece becomes
a common word that sounds nearly the same, where there is one.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cache

from retrieval.common_words import COMMON_WORDS
from retrieval.sounds import in_words, sounds

TYPOS_PER_WORD = 0.08
"""How likely a word of a written message is mistyped: about one in a message of a dozen."""
RARE_WORD_NOISE = 0.45
"""How likely recognition gets a word wrong that is not among the common ones."""
COMMON_WORD_NOISE = 0.05
"""How likely recognition gets a common word wrong: 10 to 15% of words are wrong in all."""
FILLER_NOISE = 0.25
DROP_NOISE = 0.03
REPEAT_NOISE = 0.02
CASE_NOISE = 0.3

Noise = Callable[[str, random.Random], str]

_NEIGHBOURS: Mapping[str, str] = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij",
    "i": "uok", "o": "ipl", "p": "ol", "a": "qsz", "s": "awdx", "d": "sefc", "f": "drgv",
    "g": "fthb", "h": "gyjn", "j": "hukm", "k": "jil", "l": "kop", "z": "asx", "x": "zsdc",
    "c": "xdfv", "v": "cfgb", "b": "vghn", "n": "bhjm", "m": "njk",
}  # fmt: skip
_FILLERS = ("uh", "um", "i mean", "you know", "so", "well", "like", "okay so", "er", "let me see")
_HOMOPHONES: tuple[tuple[str, ...], ...] = (
    ("to", "too", "two"), ("for", "four"), ("there", "their", "they're"), ("your", "you're"),
    ("its", "it's"), ("a", "uh"), ("and", "in", "an"), ("are", "our"), ("by", "buy", "bye"),
    ("know", "no"), ("here", "hear"), ("right", "write"), ("week", "weak"), ("where", "wear"),
    ("fare", "fair"), ("wait", "weight"), ("meet", "meat"), ("site", "sight", "cite"),
    ("room", "rum"), ("free", "three"), ("pay", "pain"), ("pets", "pats", "pet"),
    ("check in", "checking", "chicken"), ("check out", "checkout"), ("wifi", "why fi", "wi fi"),
    ("breakfast", "break fast"), ("bring", "being"), ("have", "half"), ("allow", "a low"),
    ("allowed", "aloud", "a loud"), ("parking", "park in", "barking"), ("cost", "caused"),
    ("offer", "after"), ("serve", "surf"), ("menu", "men you"), ("vegan", "began"),
    ("reservation", "reservations"), ("do they", "today", "did they"), ("is there", "is their"),
    ("any", "andy"), ("bar", "far"), ("pool", "pull"), ("gym", "jim"), ("suite", "sweet"),
    ("inn", "in"), ("hotel", "hotels"), ("guest", "guess", "gas"), ("house", "how"),
    ("park", "bark"), ("can i", "kenai"), ("order", "older"), ("return", "returns"),
)  # fmt: skip


def mistyped(text: str, rng: random.Random) -> str:
    """Return a text as somebody types it in a hurry: slips of the finger, no capitals."""
    words = [
        _slip(word, rng) if len(word) > 3 and rng.random() < TYPOS_PER_WORD else word
        for word in text.split()
    ]
    typed = " ".join(words)
    if rng.random() < CASE_NOISE:
        typed = typed.lower()
    return typed.rstrip("?.!") if rng.random() < CASE_NOISE else typed


def misheard(text: str, rng: random.Random) -> str:
    """Return a text as voice recognition gives it back when somebody says it."""
    return _with_fillers(_recognised(spoken(text), rng), rng)


def spoken(text: str) -> str:
    """Return a text without what cannot be heard: case and punctuation; numbers as words."""
    text = re.sub(r"(\d{1,2}):00", r"\1", text.lower().replace("&", " and "))
    text = re.sub(r"\d+", lambda m: f" {in_words(m.group())} ", text.replace(":", " "))
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)?", text))


def _slip(word: str, rng: random.Random) -> str:
    place = rng.randrange(1, len(word) - 1)
    kind = rng.choice(("swap", "drop", "double", "neighbour"))
    if kind == "swap":
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    if kind == "drop":
        return word[:place] + word[place + 1 :]
    if kind == "double":
        return word[:place] + word[place] + word[place:]
    near = _NEIGHBOURS.get(word[place].lower(), word[place])
    return word[:place] + rng.choice(near) + word[place + 1 :]


def _recognised(text: str, rng: random.Random) -> str:
    said: list[str] = []
    for word in text.split():
        if rng.random() < DROP_NOISE and len(word) < 5:
            continue
        is_common = word in COMMON_WORDS or len(word) < 3
        wrong = rng.random() < (COMMON_WORD_NOISE if is_common else RARE_WORD_NOISE)
        said.append(_heard(word, rng) if wrong else word)
        if rng.random() < REPEAT_NOISE:
            said.append(said[-1])
    return _homophones(" ".join(said), rng)


def _heard(word: str, rng: random.Random) -> str:
    """Return what a recogniser takes a word for."""
    ways: list[Noise] = [_as_common_words, _as_common_words, _respelt, _split, _without_end]
    return rng.choice(ways)(word, rng)


def _as_common_words(word: str, rng: random.Random) -> str:
    """Return common words that sound like pieces of a word; what has none stays."""
    places = range(2, len(word) - 1)
    cuts = sorted(rng.sample(places, k=min(rng.choice((0, 1, 1, 2)), len(places))))
    pieces = [word[a:b] for a, b in zip([0, *cuts], [*cuts, len(word)], strict=True)]
    heard = [_alike(piece, rng) for piece in pieces]
    return " ".join(filter(None, heard)) if any(heard) else _respelt(word, rng)


def _alike(piece: str, rng: random.Random) -> str:
    code = sounds(piece)
    exact = _common_by_sound().get(code, ())
    near = [w for c in _nearly(code) for w in _common_by_sound().get(c, ()) if w != piece]
    choices = [w for w in exact if w != piece] or near[:12]
    return rng.choice(choices) if choices else piece


def _nearly(code: str) -> list[str]:
    """Return codes that differ by a sound at the end or in a vowel."""
    near = [code[:-1], code + "t", code + "s", code + "n", code[:-1] + "n", code[:-1] + "t"]
    return [c for c in near if len(c) > 1]


@cache
def _common_by_sound() -> Mapping[str, Sequence[str]]:
    words: defaultdict[str, list[str]] = defaultdict(list)
    for word in sorted(COMMON_WORDS):
        words[sounds(word)].append(word)
    return words


def _respelt(word: str, rng: random.Random) -> str:
    """Return another spelling of nearly the same sound."""
    swaps = (
        ("ph", "f"), ("ck", "k"), ("c", "k"), ("th", "t"), ("v", "b"), ("z", "s"), ("d", "t"),
        ("g", "k"), ("ee", "i"), ("ou", "o"), ("ai", "a"), ("y", "i"), ("a", "e"), ("e", "i"),
        ("o", "a"), ("i", "e"), ("ll", "l"), ("qu", "kw"), ("x", "ks"), ("m", "n"), ("w", "v"),
    )  # fmt: skip
    usable = [(a, b) for a, b in swaps if a in word]
    for old, new in rng.sample(usable, k=min(len(usable), rng.choice((1, 1, 2)))):
        word = word.replace(old, new, 1)
    return word


def _split(word: str, rng: random.Random) -> str:
    if len(word) < 5:
        return word
    place = rng.randrange(2, len(word) - 1)
    return f"{word[:place]} {word[place:]}"


def _without_end(word: str, rng: random.Random) -> str:
    return word[: -rng.choice((1, 1, 2))] if len(word) > 4 else word


def _homophones(text: str, rng: random.Random) -> str:
    padded = f" {text} "
    for group in _HOMOPHONES:
        for said in group[:1]:
            if f" {said} " in padded and rng.random() < COMMON_WORD_NOISE * 2:
                padded = padded.replace(f" {said} ", f" {rng.choice(group[1:])} ", 1)
    return padded.strip()


def _with_fillers(text: str, rng: random.Random) -> str:
    words = text.split()
    while words and rng.random() < FILLER_NOISE:
        words.insert(rng.choice((0, 0, rng.randrange(len(words) + 1))), rng.choice(_FILLERS))
    return " ".join(words)
