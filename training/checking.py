"""Labelled files: read with the line of what is wrong, and looked through for what harms."""

from __future__ import annotations

import csv
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from answering.intents import OUT_OF_SCOPE, Rehearsed
from core.errors import InvalidInput
from core.types import TEXT_LIMIT_CHARACTERS

LARGEST_BYTES = 64 * 1024 * 1024
MOST_ROWS = 200_000
FEWEST_LABELS = 2
FEW_EXAMPLES = 3
"""An intent with fewer can hardly be told, nor can it be checked on held-out examples."""
UNLIKELY = 0.05
"""A label whose held-out probability is below this is doubted."""
OVERLAP_FROM, OVERLAP_LEAST = 0.15, 3
"""Two intents overlap where so large a share, and so many, of their examples are mixed up."""
SHOWN = 12
"""Findings of one kind that are shown to a person; JSON has them all."""


@dataclass(frozen=True)
class Row:
    """A labelled message.

    Attributes:
        line: On which the row ends, counted from 1 with the header.
        origin: Rows of one origin were made of one message, as `deskhand train augment` does, and
            are held out together; None stands for itself.
    """

    text: str
    label: str
    line: int
    origin: str | None = None


@dataclass(frozen=True)
class Finding:
    """Something in a labelled file that a person should look at.

    Attributes:
        kind: duplicate, conflict, few, overlap, mislabelled or leak.
        message: With the lines, for a person.
        lines: Of the file that is trained on, the ones meant first.
    """

    kind: str
    message: str
    lines: tuple[int, ...] = ()


def read_rows(path: Path) -> list[Row]:
    """Return the rows of a CSV file with the columns text and label.

    Raises:
        InvalidInput: The file cannot be read, is huge, or a line is wrong; names the line.
    """
    lines = read_lines(path)
    reader = csv.DictReader(lines, strict=True)
    rows: list[Row] = []
    try:
        _check_header(reader.fieldnames or (), path)
        for raw in reader:
            rows.append(_row(raw, f"{path} line {reader.line_num}", reader.line_num))
            if len(rows) > MOST_ROWS:
                raise InvalidInput(
                    f"{path} line {reader.line_num}: there are more than {MOST_ROWS:,} rows; "
                    "train on a sample.",
                    code="too_large",
                )
    except csv.Error as error:
        raise InvalidInput(f"{path} line {reader.line_num}: {error}.") from error
    if not rows:
        raise InvalidInput(f"{path} line 2: there is no row below the header.")
    return rows


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, with their ends.

    Raises:
        InvalidInput: It is missing, huge, or not UTF-8; names the line.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_BYTES:
            raise InvalidInput(
                f"{path} has {size / 1e6:.0f} MB; at most {LARGEST_BYTES / 1e6:.0f} MB are read. "
                "Train on a sample.",
                code="too_large",
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise InvalidInput(f"{path} does not exist; check the path.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}.") from error
    if not data.strip():
        raise InvalidInput(f"{path} line 1: the file is empty.")
    return _decoded(data, path).splitlines(keepends=True)


def _decoded(data: bytes, path: Path) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput(f"{path} line 1: this is UTF-16 text; save the file as UTF-8.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidInput(
            f"{path} line {line}: the byte 0x{data[error.start]:02x} is not UTF-8 text; save the "
            "file as UTF-8 (spreadsheets offer 'CSV UTF-8')."
        ) from error
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise InvalidInput(f"{path} line {line}: there is a NUL character; this is no text file.")
    return text


def _check_header(columns: Sequence[str], path: Path) -> None:
    missing = {"text", "label"} - set(columns)
    if missing:
        raise InvalidInput(
            f"{path} line 1: the column {min(missing)!r} is missing; the header is text,label.",
            field=min(missing),
        )


def _row(raw: dict[str, str | None], where: str, line: int) -> Row:
    text, label = (raw["text"] or "").strip(), (raw["label"] or "").strip()
    if not text or not label:
        empty = "text" if not text else "label"
        raise InvalidInput(f"{where}: {empty} is empty.", field=empty)
    if len(text) > TEXT_LIMIT_CHARACTERS:
        raise InvalidInput(
            f"{where}: text has {len(text):,} characters; at most {TEXT_LIMIT_CHARACTERS:,} are "
            "taken. Is a quotation mark missing before this line?",
            field="text",
        )
    return Row(text, label, line, (raw.get("origin") or "").strip() or None)


def check_labels(rows: Sequence[Row], path: Path) -> None:
    """Refuse what no intents can be learned from.

    Raises:
        InvalidInput: There is one label only.
    """
    labels = {row.label for row in rows}
    if len(labels) < FEWEST_LABELS:
        raise InvalidInput(
            f"{path} line {rows[0].line}: all {len(rows)} rows have the label {min(labels)!r}; "
            "at least two different labels are needed.",
            field="label",
        )


def look_through(rows: Sequence[Row]) -> list[Finding]:
    """Return what is wrong with the rows of one file by themselves: no model is asked."""
    return [*_repeated(rows), *_rare(rows)]


def leaking(train: Sequence[Row], test: Sequence[Row]) -> list[Finding]:
    """Return which texts of a test file are in the training file, whose figures they flatter."""
    known: dict[str, Row] = {}
    for row in train:
        known.setdefault(normal(row.text), row)
    found: list[Finding] = []
    for row in test:
        twin = known.get(normal(row.text))
        if twin is None:
            continue
        says = "" if twin.label == row.label else f", there labelled {twin.label!r}"
        found.append(
            Finding(
                "leak",
                f"line {row.line} of the test file is line {twin.line} of the training file{says}: "
                f"{_shown(row.text)}",
                (twin.line, row.line),
            )
        )
    return found


def doubtful(rows: Sequence[Row], rehearsed: Rehearsed) -> list[Finding]:
    """Return intents that overlap, and labels that are probably wrong.

    Args:
        rows: What was trained on.
        rehearsed: How rows were told that were held out.

    Source: for labels, confident learning (Northcutt, Jiang and Chuang 2021): a row is counted
    against its label where the model gives another one at least that one's usual confidence.
    """
    return [*_overlapping(rows, rehearsed), *_mislabelled(rows, rehearsed)]


def normal(text: str) -> str:
    """Return a text without what makes no difference between two messages."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .!?。！？")


def in_lines(findings: Sequence[Finding], *, most: int = SHOWN) -> Iterator[str]:
    """Yield findings as lines for a person: of each kind the first, and how many more."""
    by_kind: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.kind].append(finding)
    for kind, some in by_kind.items():
        yield from (f"{kind}: {finding.message}" for finding in some[:most])
        if len(some) > most:
            yield f"{kind}: and {len(some) - most} more (--json lists them all)"


def _repeated(rows: Sequence[Row]) -> Iterator[Finding]:
    seen: dict[str, Row] = {}
    for row in rows:
        first = seen.setdefault(normal(row.text), row)
        if first is row:
            continue
        lines = (row.line, first.line)
        if first.label == row.label:
            message = f"line {row.line} repeats line {first.line}: {_shown(row.text)}"
            yield Finding("duplicate", message, lines)
        else:
            yield Finding(
                "conflict",
                f"lines {first.line} and {row.line} are the same text under {first.label!r} and "
                f"{row.label!r}: {_shown(row.text)}",
                lines,
            )


def _rare(rows: Sequence[Row]) -> Iterator[Finding]:
    first = {row.label: row.line for row in reversed(rows)}
    for label, count in sorted(Counter(row.label for row in rows).items()):
        if count < FEW_EXAMPLES and label != OUT_OF_SCOPE:
            yield Finding(
                "few",
                f"line {first[label]}: {label!r} has {count} example{'s' * (count > 1)}; "
                f"give {FEW_EXAMPLES} at least, better 10",
                (first[label],),
            )


def _overlapping(rows: Sequence[Row], rehearsed: Rehearsed) -> list[Finding]:
    labels = [rows[i].label for i in rehearsed.rows]
    counts = Counter(labels)
    mixed: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for number, own, told in zip(rehearsed.rows, labels, rehearsed.told, strict=True):
        if own != told:
            mixed[min(own, str(told)), max(own, str(told))].append(rows[number].line)
    found: list[tuple[float, Finding]] = []
    for (one, other), lines in mixed.items():
        # of the smaller intent: a few examples more or less of a large one say little
        share = len(lines) / (2 * min(counts[one], counts[other]) or 1)
        if len(lines) >= OVERLAP_LEAST and share >= OVERLAP_FROM:
            message = (
                f"{one!r} and {other!r} are mixed up in {len(lines)} of "
                f"{counts[one] + counts[other]} held-out examples, as on "
                f"{_listed(lines)}; join them, or word their examples apart"
            )
            found.append((-share, Finding("overlap", message, tuple(lines))))
    return [finding for _, finding in sorted(found, key=lambda pair: pair[0])]


def _mislabelled(rows: Sequence[Row], rehearsed: Rehearsed) -> list[Finding]:
    told, own, best = rehearsed.told, rehearsed.own, rehearsed.best
    meant = [rows[i] for i in rehearsed.rows.tolist()]
    labels = np.asarray([row.label for row in meant], dtype=told.dtype)
    usual = {label: float(own[labels == label].mean()) for label in np.unique(labels).tolist()}
    places = [
        i
        for i in np.argsort(own, kind="stable").tolist()
        if own[i] < UNLIKELY and told[i] != labels[i] and best[i] >= usual.get(str(told[i]), 1.0)
    ]
    return [
        Finding(
            "mislabelled",
            f"line {meant[i].line}: {str(labels[i])!r} looks like "
            f"{str(told[i])!r} ({best[i]:.0%}): {_shown(meant[i].text)}",
            (meant[i].line,),
        )
        for i in places
    ]


def _listed(lines: Sequence[int], most: int = 4) -> str:
    shown = ", ".join(map(str, lines[:most]))
    more = ", …" if len(lines) > most else ""
    return f"line{'s' * (len(lines) > 1)} {shown}{more}"


def _shown(text: str, most: int = 60) -> str:
    cut = text if len(text) <= most else f"{text[: most - 1]}…"
    return f"“{' '.join(cut.split())}”"
