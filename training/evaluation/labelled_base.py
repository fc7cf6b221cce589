"""Labelled messages as a base of entries and what is asked of it: a real test of an error rate."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.errors import InvalidInput
from core.types import FaqEntry
from training import checking
from training.evaluation import report
from training.evaluation.replies import Case

LABELS = ("label", "category", "intent")
"""How published sets name the column."""
NO_LABELS = frozenset({"out_of_scope", "oos", "ood"})
"""What nothing answers."""


def read(paths: Sequence[Path]) -> list[tuple[str, str]]:
    """Return the (text, label) of CSV or JSON Lines files, as published.

    Raises:
        InvalidInput: A file cannot be read, or lacks the text or the label; names the line.
    """
    return [row for path in paths for row in _read(path)]


def base_of(
    rows: Sequence[tuple[str, str]],
    *,
    wordings: int,
    missing: float,
    most: int,
    seed: int = 17,
) -> tuple[list[FaqEntry], list[Case]]:
    """Return an entry for each label, worded by some of its messages, and the others as questions.

    Args:
        rows: (text, label).
        wordings: Messages of a label that become its entry's question and alternates.
        missing: The share of labels without an entry: nothing answers their messages.
        most: The most questions, drawn by chance.
        seed: Of chance.

    Raises:
        InvalidInput: No label has so many messages.
    """
    chance = random.Random(seed)
    drawn = list(dict.fromkeys(rows))
    chance.shuffle(drawn)
    by_label: dict[str, list[str]] = {}
    for text, label in drawn:
        by_label.setdefault(label, []).append(text)
    labels = sorted(name for name in by_label if name not in NO_LABELS)
    chance.shuffle(labels)
    left_out = set(labels[: round(missing * len(labels))]) | NO_LABELS
    held = [name for name in labels if name not in left_out and len(by_label[name]) > wordings]
    if not held:
        raise InvalidInput(f"No label has more than {wordings} messages.", field="labelled")
    entries = [
        FaqEntry(name, by_label[name][0], "", alternates=tuple(by_label[name][1:wordings]))
        for name in held
    ]
    asked = [
        (text, name)
        for name, texts in by_label.items()
        if name in left_out or name in held
        for text in texts[0 if name in left_out else wordings :]
    ]
    chance.shuffle(asked)
    return entries, [
        Case(
            str(number), text, (), frozenset() if name in left_out else frozenset({name}), "",
            name not in left_out, None,
        )
        for number, (text, name) in enumerate(asked[:most], start=1)
    ]  # fmt: skip


def _read(path: Path) -> Iterable[tuple[str, str]]:
    if path.suffix == ".jsonl":
        rows: Sequence[Mapping[str, Any]] = report.read_jsonl(path, ("text",))
        begins = 1
    else:
        rows, begins = list(csv.DictReader(checking.read_lines(path))), 2
    for number, row in enumerate(rows, start=begins):
        label = next((row[name] for name in LABELS if row.get(name)), None)
        if not row.get("text") or label is None:
            raise InvalidInput(f"{path} line {number}: text and label are needed.", field="label")
        yield str(row["text"]), str(label)
