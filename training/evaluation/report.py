"""Reading evaluation files and printing figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from core.errors import InvalidInput
from training import checking

PROGRESS_EVERY = 25


def read_jsonl(path: Path, required: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file.

    Raises:
        InvalidInput: A line is no object or lacks a field; names the file and the line.
    """
    return list(_objects(path, required))


def _objects(path: Path, required: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(checking.read_lines(path), start=1):
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
        InvalidInput: The file cannot be read or a line is wrong; names the line.
    """
    return [(row.text, row.label) for row in checking.read_rows(path)]


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
