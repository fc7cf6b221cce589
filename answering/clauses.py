"""Several wishes in one message: its clauses, and which of their intents stand side by side."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from core.types import Intent

MOST_SPANS = 4
SHORTEST_WORDS = 2
SHORTEST_SIGNS = 3
"""Of Chinese and Japanese, which write no spaces."""
SURE_FROM = 0.6
"""A part counts from this probability; the whole message needs none."""
SOCIAL = frozenset({"greeting", "thanks", "goodbye"})
"""Said beside a wish, these are no wish of their own."""

_STOP = re.compile(r"(?<=[.!?;])\s+|[。！？；\n]+")
_TIE = re.compile(
    r",?\s+(?:(?:and|then) (?:also|then|when|how|what|where|why|who|which|can|could|will|would|do|"
    r"does|did|is|are|please|kindly|i|i'm|i'd|my|there|check|close|cancel|change|send|block|"
    r"transfer|order|get|give|tell|show|return|refund|update|provide|book|help|make|pay|track|add|"
    r"remove|reset|open|set|find|let)\b"
    r"|so (?:please|kindly|can|could)\b"
    r"|also\b|plus\b|but (?:also|how|what|when|where|can)\b|oh and\b"
    r"|und (?:wann|wie|was|wo|warum|kann|ist|bitte|ich|auch)\b|außerdem\b|ausserdem\b"
    r"|et (?:aussi|quand|comment|où|je|puis)\b|y (?:cuándo|cómo|dónde|también|puedo)\b)",
    re.IGNORECASE,
)
_TIE_CJK = re.compile(r"[，,、]?(?:另外|还有|以及|顺便|同时|并且|而且|それと|あと|それから)|，")
_LEAD = re.compile(r"^[\s,;]*(?:and|also|plus|but|oh and|und|et|y)\b[\s,]*", re.IGNORECASE)
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
_WORD = re.compile(r"[^\W_]+")


def spans(text: str) -> list[str]:
    """Return the clauses of a message that may each want something, in order.

    Returns:
        One to `MOST_SPANS` texts; the whole text where it plainly is one.
    """
    pieces: list[str] = []
    for sentence in _STOP.split(text):
        pieces += _tied(sentence)
    said = [piece for piece in map(_trimmed, pieces) if piece]
    whole = text.strip()
    if not said:
        return [whole] if whole else []
    joined: list[str] = []
    for piece in said:
        if joined and not (_is_long(piece) and _is_long(joined[-1])):
            joined[-1] = f"{joined[-1]} {piece}"  # "Yes. I do": no clause of its own
        else:
            joined.append(piece)
    return joined if 1 < len(joined) <= MOST_SPANS else [whole]


def _tied(sentence: str) -> list[str]:
    if _CJK.search(sentence):
        return _TIE_CJK.split(sentence)
    cuts = [0, *(m.start() for m in _TIE.finditer(sentence)), len(sentence)]
    return [sentence[a:b] for a, b in itertools.pairwise(cuts)]


def _trimmed(piece: str) -> str:
    return _LEAD.sub("", piece).strip(" ,，、;")


def _is_long(piece: str) -> bool:
    if _CJK.search(piece):
        return len(_CJK.findall(piece)) >= SHORTEST_SIGNS
    return len(_WORD.findall(piece)) >= SHORTEST_WORDS


def several(
    whole: Sequence[Intent],
    parts: Sequence[Sequence[Intent]],
    *,
    outside: frozenset[str] = frozenset({"out_of_scope"}),
) -> list[Intent]:
    """Return the intents that a message has, likeliest first.

    Args:
        whole: Of the whole message, likeliest first.
        parts: Of each of its `spans`.
        outside: Names that stand for no intent.

    Returns:
        The whole message's likeliest alone, unless two parts are each sure of another one.
    """
    if not whole:
        return []
    sure: dict[str, Intent] = {}
    for part in parts:
        best = part[0] if part else None
        if best is None or best.name in outside or best.probability < SURE_FROM:
            continue
        if best.name not in sure or sure[best.name].probability < best.probability:
            sure[best.name] = best
    wishes = {name: intent for name, intent in sure.items() if name not in SOCIAL}
    if len(wishes) < 2:
        return [whole[0]]
    return sorted(wishes.values(), key=lambda intent: -intent.probability)
