"""Changing what Deskhand says by itself: the system texts of a base, by language."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from core.db import faq, inboxes
from core.db.connect import Database
from core.errors import InvalidInput
from core.intake import check_text
from core.texts import KEYS, shipped

LOCALE = re.compile(r"[a-z]{2,3}")
TEXT_LIMIT_CHARACTERS = 2_000


async def texts_of(
    database: Database, *, base: str = "default"
) -> tuple[Mapping[str, Mapping[str, str]], Mapping[str, Mapping[str, str]]]:
    """Return a base's own texts and those that are shipped, each by language and key.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
    return found.texts, shipped()


async def set_text(
    database: Database, locale: str, key: str, text: str | None, *, base: str = "default"
) -> None:
    """Change a text of a base; None brings the shipped one back.

    Raises:
        InvalidInput: There is no such text, or it is blank or too long.
        NotFound: There is no such base.
    """
    check_name(locale, key)
    if text is not None:
        check_text(text)
        if len(text) > TEXT_LIMIT_CHARACTERS:
            raise InvalidInput(
                f"text has {len(text):,} characters, {TEXT_LIMIT_CHARACTERS:,} are the most.",
                field="text",
            )
    async with database.transaction() as conn:
        await faq.lock_base(conn, base)  # says so if there is none
        await inboxes.set_text(conn, base, locale, key, text)


def check_name(locale: str, key: str) -> None:
    """Check that a text may stand under a language and key.

    Raises:
        InvalidInput: It may not; the message says what is near.
    """
    if not LOCALE.fullmatch(locale):
        raise InvalidInput(f"locale {locale!r} is no language; write it like en.", field="locale")
    if key not in KEYS:
        near = get_close_matches(key, KEYS, 1)
        hint = f"is {near[0]} meant?" if near else f"known are {', '.join(KEYS)}."
        raise InvalidInput(f"There is no text {key!r}; {hint}", field="key")
