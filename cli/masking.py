"""Telephone numbers and bank accounts by their countries' plans: the port of `core.masking`.

phonenumbers (Google's plans) and python-stdnum instead of presidio-analyzer: its recognisers found
fewer numbers and accounts, take seconds to import (spaCy and its kin come along), and the one for
e-mail addresses asks the network for a list of domains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from core import masking
from core.masking import Found

REGIONS = ("US", "GB", "DE", "FR", "NL", "ES", "IT", "IN", "BR", "AU", "JP", "CN")
"""Whose national numbers are known without a country's code; with one, all countries' are."""
LONGEST_TEXT = 8_000
"""Characters; what is longer is no message, and each region reads it once."""
_DIGITS = re.compile(r"(?:\d\D{0,3}){7}")
_OTHERWISE = re.compile(
    r"\d{3}-\d{2}-\d{4}"
    r"|\d{4}[-./]\d{1,2}[-./]\d{1,2}(?:[T ]\d{1,2}:.*)?|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}"
)
_ACCOUNT = re.compile(r"\b[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]{4}){2,7}(?: ?[A-Za-z0-9]{1,4})?\b")


def install() -> None:
    """Let everything that is masked in this process go through the libraries too.

    They are imported at the first text with seven digits in it, so that no start waits for them.
    """
    masking.use(accounts, phone_numbers)


def phone_numbers(text: str) -> Iterator[Found]:
    """Find telephone numbers, of many countries where no code tells which."""
    if not _DIGITS.search(text):
        return
    matcher, leniency = _matcher()
    taken: list[Found] = []
    for region in REGIONS:
        for match in matcher(text[:LONGEST_TEXT], region, leniency=leniency):
            overlaps = any(f.start < match.end and match.start < f.end for f in taken)
            if overlaps or _OTHERWISE.fullmatch(match.raw_string) or _within_a_code(text, match):
                continue
            taken.append(Found(match.start, match.end, "phone"))
    yield from taken


def accounts(text: str) -> Iterator[Found]:
    """Find bank accounts whose check digits are right, in either case."""
    for match in _ACCOUNT.finditer(text):
        if _iban().is_valid(match.group()):
            yield Found(match.start(), match.end(), "iban")


def _within_a_code(text: str, match: Any) -> bool:
    """Return whether digits are a part of something longer: an order number, a time stamp."""
    before, after = text[: match.start][-1:], text[match.end : match.end + 1]
    return before.isalnum() or before in ("-", "_", "/", ":", ".", "#") or after in (":", "_", "-")


@cache
def _matcher() -> tuple[Any, int]:
    from phonenumbers import Leniency, PhoneNumberMatcher

    return PhoneNumberMatcher, Leniency.VALID


@cache
def _iban() -> Any:
    from stdnum import iban

    return iban
