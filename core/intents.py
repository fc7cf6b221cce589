"""Examples of what customers want: `text,label,locale`, from which intents are learned."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence

from core.db import faq, inboxes, intents
from core.db.connect import Database
from core.db.intents import Example
from core.errors import InvalidInput

LABEL = re.compile(r"[a-z][a-z0-9_]{0,59}")
TEXT_LIMIT_CHARACTERS = 500


def read_examples(lines: Iterable[str], name: str, *, locale: str = "en") -> list[Example]:
    """Return the examples of a CSV file with the columns text, label and, if need be, locale.

    Args:
        lines: The file's lines, with their ends.
        name: Of the file, for messages.
        locale: Of examples that name none.

    Raises:
        InvalidInput: A line is wrong; the message names it.
    """
    reader = csv.reader(lines, strict=True)
    kept = dict[tuple[str, str], Example]()
    columns: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InvalidInput(f"{name} line {line}: {error}.") from None
        if not any(cell.strip() for cell in row):
            continue
        if columns is None:
            columns = [cell.strip().lower().lstrip("\ufeff") for cell in row]
            if not {"text", "label"} <= set(columns):
                raise InvalidInput(f"{name} line {line}: the header must name text and label.")
            continue
        example = _example(dict(zip(columns, row, strict=False)), f"{name} line {line}", locale)
        kept.setdefault((example.label, example.text), example)
    if not kept:
        raise InvalidInput(f"{name} holds no examples.")
    return list(kept.values())


def _example(row: dict[str, str], where: str, locale: str) -> Example:
    text = " ".join(row.get("text", "").split())
    label = row.get("label", "").strip().lower()
    if not text or len(text) > TEXT_LIMIT_CHARACTERS or "\x00" in text:
        raise InvalidInput(
            f"{where}: text is blank or longer than {TEXT_LIMIT_CHARACTERS} characters.",
            field="text",
        )
    if not LABEL.fullmatch(label):
        raise InvalidInput(
            f"{where}: label {label!r} must be a word such as order_status.", field="label"
        )
    return Example(text, label, row.get("locale", "").strip() or locale)


async def replace_examples(
    database: Database, examples: Sequence[Example], *, base: str = "default"
) -> None:
    """Replace the examples of a base; its workers learn them within a second.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        locked = await faq.lock_base(conn, base)
        version = await faq.raise_version(conn, locked.id)
        await intents.replace(conn, locked.id, examples, faq_version=version)


async def examples(database: Database, *, base: str = "default") -> Sequence[Example]:
    """Return the examples of a base.

    Raises:
        NotFound: There is no such base.
    """
    async with database.transaction() as conn:
        found = await inboxes.base_named(conn, base)
        return await intents.load(conn, found.id)
