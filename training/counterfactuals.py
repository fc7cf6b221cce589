"""Sentences that no longer say what their source says, made by rule, each with its kind.

Both a sentence and its source can be turned: then the turned sentence is supported by the turned
source, so that a model must compare the two and cannot tell by the sound of one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

Change = Callable[[str, random.Random], str | None]
"""Returns the changed sentence, None where there is nothing to change."""

_NOT = re.compile(
    r"\b(is|are|was|were|can|could|do|does|did|will|would|may|must|should|has|have) not\b|"
    r"\b(is|are|was|were|could|do|does|did|would|must|should|has|have)n['’]t\b", re.IGNORECASE,
)  # fmt: skip
_CANNOT = re.compile(r"\b(?:cannot|can['’]t)\b", re.IGNORECASE)
_WONT = re.compile(r"\bwon['’]t\b", re.IGNORECASE)
_NO = re.compile(
    r"\b(?:there (?:is|are)|(?:we|they|you|it) (?:have|has|offer|offers)) (no)\b", re.I
)
_NONE = re.compile(r"^(?:no|neither),? (?!one\b)(?=\w+(?:\s\w+){0,4} (?:is|are)\b)", re.I)
_AUXILIARY = re.compile(
    r"\b(is|are|was|were|can|could|will|would|may|must|should|has to|have to)\b", re.IGNORECASE
)
_DO_NOT = re.compile(r"\b(does|do|did) not (\w+)|\b(does|do|did)n['’]t (\w+)", re.IGNORECASE)
_VERBS = re.compile(
    r"\b(?P<third>offers|provides|has|serves|accepts|allows|includes|charges|requires|opens|"
    r"closes|delivers|takes|permits|caters|supports|applies|costs|comes|ships|needs)\b|"
    r"(?<=\bwe )(?P<we>offer|provide|have|serve|accept|allow|include|charge|require|open|close|"
    r"deliver|take|ship|need|repair|sell|refund)\b|"
    r"(?<=\bthey )(?P<they>offer|provide|have|serve|accept|allow|include|charge|require|deliver|"
    r"take|need)\b", re.IGNORECASE,
)  # fmt: skip
_LEAD = re.compile(r"^(?:(yes|no)[,.!]\s*|(unfortunately|sorry)\b[,.]?\s*)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
# fmt: off
_WORDED = [
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "fifteen",
    "twenty", "thirty", "sixty",
]
# fmt: on
# fmt: off
_DAYS = [
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
]
# fmt: on
# fmt: off
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]
# fmt: on
_UNITS = (
    ("hour", "day", "week", "month", "year", "minute"),
    ("euro", "pound", "dollar"),
    ("metre", "kilometre", "mile", "centimetre"),
    ("gram", "kilo", "litre"),
    ("am", "pm"),
    ("a.m", "p.m"),
    ("€", "$", "£"),
)
_ANTONYMS = (
    ("free of charge", "for an additional fee"),
    ("for free", "for a fee"),
    ("complimentary", "paid"),
    ("free", "paid"),
    ("open", "closed"),
    ("before", "after"),
    ("includes", "excludes"),
    ("included", "not included"),
    ("including", "except"),
    ("allowed", "forbidden"),
    ("permitted", "prohibited"),
    ("available", "unavailable"),
    ("required", "optional"),
    ("inside", "outside"),
    ("indoor", "outdoor"),
    ("minimum", "maximum"),
    ("at least", "at most"),
    ("more than", "less than"),
    ("up to", "at least"),
    ("earlier", "later"),
    ("early", "late"),
    ("always", "never"),
    ("first", "last"),
    ("with", "without"),
    ("all", "no"),
    ("public", "private"),
    ("online", "in person"),
    ("same", "another"),
    ("check-in", "check-out"),
    ("accepted", "refused"),
    ("possible", "impossible"),
)
_ADDED = (
    "and breakfast is included", "and it is free of charge", "and you get a discount",
    "as long as you book in advance", "and it is open around the clock", "on every day of the year",
    "and we refund the difference", "for an additional fee", "with a deposit paid in cash",
    "and a member of staff will show you the way", "if you bring a valid passport",
    "and it takes only a few minutes", "which was renovated recently", "next to the reception",
    "and most guests recommend it", "and it is the best in town", "but only for regular customers",
    "and there is no time limit", "and you can cancel at any time", "within 24 hours",
    "and it works with all cards", "and children get it at half price", "by e-mail or by phone",
    "and you will receive a confirmation", "except on public holidays", "from Monday to Friday",
)  # fmt: skip


def flip(sentence: str, chance: random.Random | None = None) -> str | None:
    """Return a sentence that says no where it said yes, or the other way."""
    lead = _LEAD.match(sentence)
    body = sentence[lead.end() :] if lead else sentence
    turned = _flip_body(body)
    if turned is None:
        return None
    if lead is None:
        return _capital(turned)
    opener = "No, " if (lead.group(1) or "").lower() == "yes" else "Yes, "
    return opener + turned


def _flip_body(text: str) -> str | None:
    """Take the first negation out, or put one in."""
    if (found := _DO_NOT.search(text)) is not None:
        helper = (found.group(1) or found.group(3)).lower()
        verb = found.group(2) or found.group(4)
        plain = _third(verb) if helper == "does" else verb
        return _some(text[: found.start()] + plain + text[found.end() :])
    for pattern, put in ((_CANNOT, "can"), (_WONT, "will")):
        if pattern.search(text):
            return pattern.sub(put, text, count=1)
    if (found := _NOT.search(text)) is not None:
        verb = found.group(1) or found.group(2)
        return _some(text[: found.start()] + verb + text[found.end() :])
    if (found := _NO.search(text)) is not None:
        return text[: found.start(1)] + text[found.end(1) + 1 :]
    if (found := _NONE.match(text)) is not None:
        return _capital(text[found.end() :])
    auxiliary, verb = _AUXILIARY.search(text), _VERBS.search(text)
    if verb is not None and (auxiliary is None or verb.start() < auxiliary.start()):
        word = verb.group()
        negated = f"does not {_bare(word)}" if verb.group("third") else f"do not {word}"
        return text[: verb.start()] + negated + text[verb.end() :]
    if auxiliary is None:
        return None
    word = auxiliary.group()
    negated = {"can": "cannot", "has to": "does not have to", "have to": "do not have to"}.get(
        word.lower(), f"{word} not"
    )
    return text[: auxiliary.start()] + negated + text[auxiliary.end() :]


def other_number(sentence: str, chance: random.Random) -> str | None:
    """Return a sentence with another number; a time stays a time."""
    found = [m for m in _NUMBER.finditer(sentence) if m.group() not in {"24/7"}]
    if found:
        match = chance.choice(found)
        new = _another(match.group(), chance)
        return None if new is None else sentence[: match.start()] + new + sentence[match.end() :]
    return _swap(sentence, _WORDED, chance)


def other_day(sentence: str, chance: random.Random) -> str | None:
    """Return a sentence with another weekday or month."""
    return _swap(sentence, _DAYS, chance) or _swap(sentence, _MONTHS, chance)


def other_unit(sentence: str, chance: random.Random) -> str | None:
    """Return a sentence whose number has another unit."""
    for group in _UNITS:
        for unit in group:
            pattern = (
                rf"(?<=\d){re.escape(unit)}|{re.escape(unit)}(?=\d)" if len(unit) == 1
                else rf"(?<=\d)(?P<gap>[ -]?){re.escape(unit)}(?=s?\b)"
            )  # fmt: skip
            if (match := re.search(pattern, sentence, re.IGNORECASE)) is not None:
                gap = match.groupdict().get("gap") or ""
                new = chance.choice([other for other in group if other != unit])
                return sentence[: match.start()] + gap + new + sentence[match.end() :]
    return None


def antonym(sentence: str, chance: random.Random) -> str | None:
    """Return a sentence with a word turned into its opposite."""
    pairs = [*_ANTONYMS, *((b, a) for a, b in _ANTONYMS)]
    fitting = [(a, b) for a, b in pairs if re.search(rf"\b{re.escape(a)}\b", sentence, re.I)]
    if not fitting:
        return None
    old, new = max(fitting, key=lambda pair: (len(pair[0]), chance.random()))
    return _capital(re.sub(rf"\b{re.escape(old)}\b", new, sentence, count=1, flags=re.I))


def addition(sentence: str, chance: random.Random) -> str | None:
    """Return a sentence that claims something more."""
    body = sentence.rstrip(" .!")
    clause = chance.choice(_ADDED)
    if any(word in sentence.lower() for word in clause.split() if len(word) > 4):
        return None
    return f"{body}{',' if clause.startswith(('and', 'but', 'which')) else ''} {clause}."


def entity(sentence: str, old: str, new: str) -> str | None:
    """Return a sentence about another entity."""
    changed = re.sub(rf"\b(?:the )?{re.escape(old)}\b", new, sentence, flags=re.IGNORECASE)
    return changed if changed != sentence else None


CONTRADICTING: Mapping[str, Change] = {
    "polarity": flip,
    "number": other_number,
    "day": other_day,
    "unit": other_unit,
    "antonym": antonym,
}
"""What says something else than the source; an entity is swapped by `entity`."""


def _swap(sentence: str, words: list[str], chance: random.Random) -> str | None:
    there = [word for word in words if re.search(rf"\b{word}s?\b", sentence)]
    if not there:
        return None
    old = chance.choice(there)
    new = chance.choice([word for word in words if word not in there])
    return re.sub(rf"\b{old}(?=s?\b)", new, sentence, count=1)


def _another(number: str, chance: random.Random) -> str | None:
    if (time := re.fullmatch(r"(\d{1,2}):(\d\d)", number)) is not None:
        hour = (int(time.group(1)) + chance.choice([-3, -2, -1, 1, 2, 3])) % 24
        return f"{hour:0{len(time.group(1))}d}:{time.group(2)}"
    whole = re.match(r"\d+", number)
    if whole is None or len(whole.group()) > 6:
        return None
    value = int(whole.group())
    steps = [1, 2, 3, 5, 10, value] if value < 30 else [5, 10, 20, 50, value]
    wanted = value + chance.choice(steps) * chance.choice([-1, 1])
    if wanted <= 0 or wanted == value:
        wanted = value + chance.choice([1, 2, 5])
    return str(wanted) + number[whole.end() :]


def _some(text: str) -> str:
    return re.sub(r"\bany(?=\b|thing)", "some", text)


def _third(verb: str) -> str:
    verb = verb.lower()
    if verb == "have":
        return "has"
    if verb.endswith(("s", "x", "ch", "sh")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2] not in "aeiou" else verb + "s"


def _bare(verb: str) -> str:
    verb = verb.lower()
    return "have" if verb == "has" else verb.removesuffix("s")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
