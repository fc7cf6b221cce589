"""The country of a place that is named, where the base speaks of the country and not of the place.

"Do you deliver to Paris?" is answered by an entry about France, and "same for Britain?" by one
about the United Kingdom: facts that no small encoder has at hand. Only well-known places stand in
`data/places.jsonl` (written for this project), and none whose name is a common word ("Nice").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PLACES = Path(__file__).parent / "data" / "places.jsonl"
_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_SHOUTED = frozenset({"us"})
"""Names that are common words unless they are written in capitals."""

Knows = Callable[[str], bool]
"""Whether all words of a name stand in some entry of the base."""


@dataclass(frozen=True)
class Country:
    """A country as people call it, the usual name first, and some of its places."""

    names: Sequence[str]
    places: Sequence[str]


def placed(text: str, knows: Knows) -> str:
    """Return a text with the country of the first place in it, as the base calls the country.

    Nothing is added where the base knows the place itself, or does not know its country, or the
    text names the country already in a way that the base knows.
    """
    is_chinese = bool(_CHINESE.search(text))
    table, pattern = _table(is_chinese)
    for found in pattern.finditer(text):
        said = found.group()
        if said.lower() in _SHOUTED and not said.isupper():
            continue
        country = table[said.lower()]
        if knows(said) or any(_names(text, name, is_chinese) and knows(name)
                              for name in country.names):  # fmt: skip
            continue
        known = next((name for name in country.names if knows(name)), None)
        if known is not None:
            return _with(text, known, is_chinese)
    return text


def _with(text: str, country: str, is_chinese: bool) -> str:
    """Return a text with a country in brackets before its last mark."""
    bare = text.rstrip("?!.。？！ ")
    mark = text[len(bare) :]
    return f"{bare}（{country}）{mark}" if is_chinese else f"{bare} ({country}){mark}"


def _names(text: str, name: str, is_chinese: bool) -> bool:
    if is_chinese:
        return name in text
    return re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE) is not None


@cache
def _table(is_chinese: bool) -> tuple[Mapping[str, Country], re.Pattern[str]]:
    by_name: dict[str, Country] = {}
    for line in PLACES.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        names, places = ("zh", "zh_cities") if is_chinese else ("names", "cities")
        country = Country(row[names], row[places])
        by_name |= {said.lower(): country for said in (*country.names, *country.places)}
    longest_first = "|".join(map(re.escape, sorted(by_name, key=len, reverse=True)))
    edges = "{}" if is_chinese else r"\b(?:{})\b"
    return by_name, re.compile(edges.format(longest_first), re.IGNORECASE)
