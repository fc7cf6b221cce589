"""How a word sounds, roughly: what voice recognition confuses has the same code."""

from __future__ import annotations

import re
from functools import lru_cache

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_RULES = tuple(
    (re.compile(pattern), sound)
    for pattern, sound in (
        (r"[^a-z]", ""),
        (r"^(?:kn|gn|pn)", "n"),
        (r"^wr", "r"),
        (r"^x", "s"),
        (r"mb$", "m"),
        (r"sch", "sk"),
        (r"t?ch|tsh|dge?(?=[eiy]|$)|j", "J"),
        (r"sh|s(?=io)|t(?=io)|c(?=i[ao])", "S"),
        (r"ph", "f"),
        (r"gh(?=t|$)|(?<=[aeiou])gh", ""),
        (r"gh", "g"),
        (r"th", "t"),
        (r"ck|qu?|c(?![eiy])", "k"),
        (r"c", "s"),
        (r"x", "ks"),
        (r"wh", "w"),
        (r"z", "s"),
        (r"v", "f"),
        (r"d", "t"),
        (r"g", "k"),
        (r"b", "p"),
        (r"h", ""),
        (r"(?<=[aeiouy])w|w(?![aeiouy])", ""),
        (r"[aeiouy]+", "a"),
        (r"(.)\1+", r"\1"),
        (r"(?<=.)a$", ""),
    )
)


@lru_cache(maxsize=50_000)
def sounds(word: str) -> str:
    """Return the code of a word's sound, in small letters of its consonants and `a` for vowels.

    Voiced and voiceless consonants are one ("bath" and "path"), vowels are all one and a last
    one is silent; "Gonville" and "gone bill" get `kanfal` and `kanpal`. Of another script than
    Latin nothing is left, so the code is empty.

    Source: after Philips, Hanging on the Metaphone (1990), which drops vowels altogether.
    """
    code = word.lower()
    for pattern, sound in _RULES:
        code = pattern.sub(sound, code)
    return code


def in_words(number: str) -> str:
    """Return how a number is said: "215" is "two fifteen", as people say it of rooms and times."""
    if len(number) == 1:
        return _DIGITS[int(number)]
    if len(number) == 2 and number[0] != "0":
        tens, ones = int(number[0]), int(number[1])
        if tens == 1:
            return _TEENS[ones]
        return f"{_TENS[tens]} {_DIGITS[ones]}" if ones else _TENS[tens]
    if len(number) in (3, 4) and number[-2] != "0" and number[0] != "0":
        return f"{in_words(number[:-2])} {in_words(number[-2:])}"
    return " ".join(_DIGITS[int(digit)] for digit in number)
