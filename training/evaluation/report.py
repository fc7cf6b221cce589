"""Reading evaluation files and printing figures."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import InvalidInput

PROGRESS_EVERY = 25


def read_jsonl(path: Path, required: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file.

    Raises:
        InvalidInput: A line is no object or lacks a field; names the file and the line.
    """
    return list(_objects(path, required))


def _objects(path: Path, required: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InvalidInput(
                f"{where}: this is no JSON ({error}); give one object a line."
            ) from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{where}: an object is needed, such as {{...}}.")
        for name in required:
            if name not in row:
                raise InvalidInput(f"{where}: the field {name!r} is missing.", field=name)
        yield row  # pyright: ignore[reportUnknownVariableType]


def read_labelled(path: Path) -> list[tuple[str, str]]:
    """Return (text, label) of a CSV file with these columns.

    Raises:
        InvalidInput: A column is missing or a row has an empty cell.
    """
    reader = csv.DictReader(_lines(path))
    missing = {"text", "label"} - set(reader.fieldnames or ())
    if missing:
        raise InvalidInput(
            f"{path} line 1: the column {min(missing)!r} is missing; the header is text,label."
        )
    rows: list[tuple[str, str]] = []
    for row in reader:
        text, label = (row["text"] or "").strip(), (row["label"] or "").strip()
        if not text or not label:
            empty = "text" if not text else "label"
            raise InvalidInput(f"{path} line {reader.line_num}: {empty} is empty.", field=empty)
        rows.append((text, label))
    if not rows:
        raise InvalidInput(f"{path} line 2: there is no row below the header.")
    return rows


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines(keepends=True)
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist; check the path.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read as UTF-8 text: {error}.") from error


def lines(title: str, figures: Mapping[str, Any]) -> list[str]:
    """Return figures as lines for a person."""
    width = max(map(len, figures))
    return [
        title,
        *(
            f"  {name:<{width}}  {f'{value:.4f}' if isinstance(value, float) else value}"
            for name, value in figures.items()
        ),
    ]


def progress(label: str, total: int) -> Callable[[int], None]:
    """Return what tells a person on stderr how far long work is."""

    def tell(done: int) -> None:
        if done % PROGRESS_EVERY == 0 or done == total:
            end = "\n" if done == total else "\r"
            sys.stderr.write(f"{label}: {done} of {total}{end}")
            sys.stderr.flush()

    return tell
