"""Which entity entries are about where nobody filled that field in; pure.

Names are written with capitals and come in several entries that ask different things; what comes
with capitals but always with the same question ("Visa", "WiFi") is a subject and no entity. Where
ids are built of parts ("hotel/14/3"), entries with one beginning are about one entity, so that
one is also known for the entries that do not name it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from core.types import FaqEntry
from retrieval.common_words import COMMON_WORDS
from retrieval.lexical import STOP_WORDS, tokens

FEWEST_ENTRIES = 3
"""A name stands in at least so many entries."""
ONE_SUBJECT_FROM = 0.55
"""A span whose entries share a word of their questions so often is what they ask."""
LOWER_SHARE = 0.2
"""A name is hardly ever written without capitals."""
LONGEST_GROUP = 200
"""A beginning of ids that more entries share says nothing."""

LONGEST_ABBREVIATION = 5
"""Shorter words in capitals ("BYOB") are abbreviations."""

_SPAN = re.compile(r"[A-Z][\w'’&-]*(?:\s+(?:(?:and|of|the|de|la|du|on|at)\s+)?[A-Z][\w'’&-]*)*")
_ID_END = re.compile(r"[/:#_.-][^/:#_.-]*$")


def mined(entries: Iterable[FaqEntry]) -> dict[str, str]:
    """Return the entity of each entry that seems to be about one, by the entry's id.

    Args:
        entries: Entries without an entity, all of one base.
    """
    known = list(entries)
    spans = {entry.id: _spans(f"{entry.question} {entry.answer}") for entry in known}
    names = _names(known, spans)
    found = {
        entry_id: max(held, key=lambda name: (names[name], len(name)))
        for entry_id, each in spans.items()
        if (held := [span for span in each if span in names])
    }
    return found | _by_group([entry.id for entry in known], found)


def _names(entries: Sequence[FaqEntry], spans: Mapping[str, set[str]]) -> Mapping[str, int]:
    """Return the spans that are names, with how many entries hold each."""
    holders: defaultdict[str, list[FaqEntry]] = defaultdict(list)
    for entry in entries:
        for span in spans[entry.id]:
            holders[span].append(entry)
    lower = Counter(w for e in entries for w in f"{e.question} {e.answer}".split() if w.islower())
    return {
        span: len(held)
        for span, held in holders.items()
        if len(held) >= FEWEST_ENTRIES
        and lower[span.lower()] <= LOWER_SHARE * len(held)
        and not _is_subject(span, held)
    }


def _is_subject(span: str, held: Sequence[FaqEntry]) -> bool:
    own = set(tokens(span))
    shared = Counter(t for e in held for t in set(tokens(e.question)) - own)
    asked = sum(bool(own & set(tokens(entry.question))) for entry in held)
    return bool(shared) and max(shared.values()) > ONE_SUBJECT_FROM * max(asked, len(held) / 2)


def _by_group(ids: Sequence[str], found: Mapping[str, str]) -> dict[str, str]:
    """Return the commonest name of each group of ids with one beginning, for all of the group."""
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for entry_id in ids:
        if beginning := _ID_END.sub("", entry_id):
            groups[beginning].append(entry_id)
    named: dict[str, str] = {}
    for members in groups.values():
        counts = Counter(found[entry_id] for entry_id in members if entry_id in found)
        if not counts or not FEWEST_ENTRIES <= len(members) <= LONGEST_GROUP:
            continue
        name, count = counts.most_common(1)[0]
        if count >= FEWEST_ENTRIES and count > sum(counts.values()) / 2:
            named |= dict.fromkeys(members, name)
    return named


def _spans(text: str) -> set[str]:
    """Return what is written with capitals, without the words that begin its sentence."""
    found: set[str] = set()
    for match in _SPAN.finditer(text):
        words = match.group().split()
        begins = (
            not text[: match.start()].rstrip(" \n\"'")
            or text[: match.start()].rstrip()[-1] in ".?!\n"
        )
        while words and (begins or words[0].lower() in STOP_WORDS) and _is_plain(words[0]):
            words = words[1:]
        words = words[1:] if words and words[0] in ("The", "the") else words
        name = " ".join(words).strip("'’-&").removesuffix("'s").removesuffix("’s")
        if len(name) > 2 and not (name.isupper() and len(name) < LONGEST_ABBREVIATION):
            found.add(name.title() if name.isupper() and len(name) > 4 else name)
    return found


def _is_plain(word: str) -> bool:
    lower = word.lower()
    return lower in STOP_WORDS or lower in COMMON_WORDS
