"""What the bot must never say: a list that ships, and staff's own list for each base.

Only what the model writes goes through it. An approved answer is staff's own word and is never
held back; the import and the commands warn of it instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from core.db import blocked_phrases as rows
from core.db import inboxes
from core.db.blocked_phrases import BlockedPhrase
from core.db.connect import Database
from core.errors import InvalidInput, NotFound

PHRASE_LIMIT_CHARACTERS = 200
PHRASES_LIMIT = 2_000
"""They are read with every turn of their base: some 40 kB at the most."""

_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")
"""Scripts that set no space between words, or endings on them: found anywhere."""


def found_in(text: str, phrases: Sequence[str] = ()) -> str | None:
    """Return the first phrase of the shipped list or of one's own that a text holds.

    Case, width and runs of spaces do not matter; a phrase is found as whole words, so that
    "Scunthorpe" and "assassin" hold none. A `*` at a phrase's end stands for any ending.
    """
    plain = _plain(text)
    match = _pattern(_shipped()).search(plain)
    if match is None and phrases:
        match = _pattern(tuple(phrases)).search(plain)
    return match.group() if match else None


async def block(database: Database, phrase: str, *, author: str, base: str = "default") -> bool:
    """Block a phrase from the next turn on; return whether it was not blocked before.

    Raises:
        InvalidInput: It is blank, too long, or one too many.
        NotFound: There is no such base.
    """
    wanted = _checked(phrase)
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        if await rows.count(conn, found.id) >= PHRASES_LIMIT:
            raise InvalidInput(
                f"There are {PHRASES_LIMIT:,} blocked phrases already, the most; remove some.",
                field="phrase",
            )
        return await rows.add(conn, found.id, wanted, author)


async def allow(database: Database, phrase: str, *, base: str = "default") -> None:
    """Take a phrase off the list.

    Raises:
        NotFound: It is not on it, or there is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        if not await rows.remove(conn, found.id, " ".join(phrase.split())):
            raise NotFound(f"{phrase!r} is not blocked in {base}.", field="phrase")


async def listed(database: Database, *, base: str = "default") -> list[BlockedPhrase]:
    """Return staff's own list.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        return await rows.listed(conn, found.id)


def _checked(phrase: str) -> str:
    wanted = " ".join(phrase.split())
    if not any(character.isalnum() for character in wanted) or "\x00" in wanted:
        raise InvalidInput("A blocked phrase needs a letter or a digit.", field="phrase")
    if len(wanted) > PHRASE_LIMIT_CHARACTERS:
        raise InvalidInput(
            f"The phrase has {len(wanted)} characters, {PHRASE_LIMIT_CHARACTERS} are the most.",
            field="phrase",
        )
    return wanted


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("’", "'").casefold().split())


@lru_cache(maxsize=1)
def _shipped() -> tuple[str, ...]:
    lines = (files("core") / "blocked_phrases.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in map(str.strip, lines) if line and not line.startswith("#"))


@lru_cache(maxsize=64)
def _pattern(phrases: tuple[str, ...]) -> re.Pattern[str]:
    # the longest first: an alternation takes the first that fits
    return re.compile("|".join(_one(p) for p in sorted(phrases, key=len, reverse=True)))


def _one(phrase: str) -> str:
    plain = _plain(phrase)
    open_ended = plain.endswith("*")
    literal = re.escape(plain.rstrip("*"))
    if _NO_SPACES.search(plain):
        return literal
    return rf"(?<!\w){literal}" + (r"\w*" if open_ended else r"(?!\w)")
