"""Personal data and secrets taken out of texts: of logs, of traces, of data for training.

Patterns find what has a form, without any import: every process has them from its first log line.
What needs a library (the numbering plans of all countries) is a port that `cli` fills with `use`.
Dates, times, prices, order numbers and names of products stay, since the product works with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Found:
    """A piece of personal data: characters `start` to `end`, shown as `[kind]`."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], Iterable[Found]]
"""Finds what patterns cannot; thread-safe."""

_NAME = r"[A-Z\u00c0-\u00de][\w'\u2019-]+"
_NAMES = (
    rf"{_NAME}(?: (?:[A-Z]\. )?(?:(?:van|von|de|der|den|da|del|la|le|bin|al) ){{0,2}}{_NAME})"
    r"{0,2}"
)
_DATE = r"(?!(?:\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./](?:\d{4}|\d{2}))(?![\d-]))"
_STREETS = (
    r"(?:street|st|road|rd|avenue|ave|lane|ln|drive|dr|boulevard|blvd|court|ct|square|sq|way|"
    r"terrace|place|pl|crescent|close|highway|hwy|parkway|pkwy|trail|alley|circle|row|gate)"
)
_PATTERNS = (
    (re.compile(r"xox[a-z]-[\w-]+|xapp-[\w-]+"), "[slack token]"),
    (re.compile(r"(?<![\w])\d{6,12}:[\w-]{30,}"), "[telegram token]"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), r"\1 [token]"),
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), "[login]"),
    (re.compile(r"v0=[0-9a-f]{64}"), "[signature]"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,5}"), "[e-mail]"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,4})?\b"), "[iban]"),
    (re.compile(r"(?<![\w-])(?:\d[ -]?){12,18}\d(?![\w-])"), "[card]"),
    (re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), "[id]"),
    (
        re.compile(
            rf"(?<![\w.:/-]){_DATE}\+?\(?\d{{2,4}}\)?"
            r"(?:(?:[ ./-]|(?<=\)))\(?\d{2,4}\)?){2,5}"
            r"(?: ?(?:x|ext\.? ?)\d{1,6})?(?![\w:]|-(?![A-Za-z]{3}))"
        ),
        "[phone]",
    ),
    (re.compile(r"(?<![\w.:/-])\+\d(?:[ ()./-]{0,2}\d){7,14}(?![\w:])"), "[phone]"),
    (re.compile(r"(?<![\w.:/-])0\d{1,4}[ /-]\d{6,8}(?![\w:-])"), "[phone]"),
    (re.compile(r"(?<![\w.:/-])\+?\d{9,12}(?![\w:-])"), "[phone]"),
)
# What stands in prose and not in log lines of our own; these read capitals, so they come last.
_PROSE = (
    (
        re.compile(
            rf"\b\d{{1,6}}[a-z]?(?: (?:[NSEW]\.?|{_NAME})){{1,4}},? {_STREETS}\b\.?"
            r"(?:,? (?:apt|suite|unit|flat|#)\.? ?\w+)?",
            re.IGNORECASE,
        ),
        "[address]",
    ),
    (
        re.compile(
            r"\b[A-Z\u00c0-\u00de][\w\u00df-\u00ff-]*(?:stra\u00dfe|strasse|str\.|weg|gasse|platz|"
            r"allee|straat|laan|gracht|plein|kade) \d{1,4} ?[a-z]?\b"
            r"(?:,? \d{4,5} (?:[A-Z]{2} )?[A-Z]\w+)?"
            r"|\b\d{1,4}(?: ?bis)?,? (?:rue|avenue|boulevard|place|chemin|via|viale|calle) "
            rf"(?:(?:de|du|des|la|le|l'|di|del|della) ?){{0,2}}{_NAME}(?: {_NAME})?"
            rf"|\b(?:[Rr]ua|[Cc]alle|[Vv]ia|[Pp]iazza|[Aa]venida) "
            rf"(?:(?:de|da|do|del|la) ){{0,2}}{_NAME}(?: {_NAME})?,? \d{{1,4}}"
        ),
        "[address]",
    ),
    (re.compile(r"\b(?:P\.?O\.? ?[Bb]ox|[Pp]ostfach|[Pp]ostbus) \d+"), "[address]"),
    (
        re.compile(
            rf"(?P<cue>\b(?:(?i:my (?:full )?name is|my name's|this is|i am called|call me|"
            rf"signed,?|regards,?|sincerely,?|yours,?|cheers,?|name:|ich hei\u00dfe|mein name ist|"
            rf"je m'appelle|mon nom est|me llamo|mi nombre es|mi chiamo|mijn naam is|"
            rf"meu nome \u00e9)|I am|I'm|(?:[Mm]r|[Mm]rs|[Mm]s|[Mm]iss|[Dd]r|[Pp]rof|"
            rf"[Hh]err|[Ff]rau|[Mm]me|[Ss]r|[Ss]ra|[Dd]hr|[Mm]evr)\.?)\s+)(?!\w+ing\b){_NAMES}"
        ),
        r"\g<cue>[name]",
    ),
    (re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)"), "[ip]"),
    (re.compile(r"(?<![\w:])(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}(?![\w:])", re.IGNORECASE), "[ip]"),
    (
        re.compile("(?P<cue>我叫|我是|我的名字是|姓名[:：]?)[\u4e00-\u9fff]{2,3}(?=[，。,. ]|$)"),
        r"\g<cue>[name]",
    ),
)

_finders: tuple[Finder, ...] = ()


def use(*finders: Finder) -> None:
    """Let these find more than the patterns in what people wrote; replaces earlier ones."""
    global _finders
    _finders = finders


def mask(text: str) -> str:
    """Return a log's text without the personal data and secrets that have a form.

    No finder is asked: they take a millisecond a text, and customers' words are never logged.
    """
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def mask_prose(text: str) -> str:
    """Return what a person wrote without personal data: names after a cue and streets too.

    Masked text stays as it is when it is masked again.
    """
    for finder in _finders:
        for found in sorted(finder(text), key=lambda each: each.start, reverse=True):
            text = f"{text[: found.start]}[{found.kind}]{text[found.end :]}"
    text = mask(text)
    for pattern, replacement in _PROSE:
        text = pattern.sub(replacement, text)
    return text
