"""Files of labels: JSON Lines and CSV, written by `deskhand labels export` or by hand.

A line says of a text which entry answers (`entry_id`), that none does (`none`), which entries do
not (`not`), what the customer wants (`label` or `intent`), or several of these.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from core.db.labels import Label
from core.errors import InvalidInput
from core.intake import check_text
from core.intents import LABEL
from core.masking import mask_prose

FORMATS = ("csv", "jsonl")
COLUMNS = ("text", "label", "entry_id", "none", "not", "locale", "source", "weight", "turn")
AUTHOR_LIMIT_CHARACTERS = 200
_YES = frozenset({"true", "1", "yes", "x"})
_NO = frozenset({"", "false", "0", "no"})


@dataclass(frozen=True)
class Line:
    """One line of a file.

    Attributes:
        number: In the file, from 1.
        label: What it says of entries, if it does.
        intent: What it says of the intent, if it does.
    """

    number: int
    label: Label | None
    intent: Label | None


def format_of(name: str) -> str:
    """Return `csv` or `jsonl` by the ending of a file's name.

    Raises:
        InvalidInput: It is neither.
    """
    ending = name.rpartition(".")[2].lower()
    ending = {"ndjson": "jsonl"}.get(ending, ending)
    if ending not in FORMATS:
        raise InvalidInput(f"{name} is neither .csv nor .jsonl; rename it.", field="file")
    return ending


def read(lines: Iterable[str], name: str, *, locale: str = "en") -> list[Line]:
    """Return what a file says.

    Args:
        lines: The file's lines, with their ends.
        name: Of the file; its ending tells the format.
        locale: Of lines that name none.

    Raises:
        InvalidInput: A line is wrong; the message names it.
    """
    rows = _csv_rows(lines, name) if format_of(name) == "csv" else _json_rows(lines, name)
    read_lines = [_line(number, row, f"{name} line {number}", locale) for number, row in rows]
    if not read_lines:
        raise InvalidInput(f"{name} holds no labels.", field="file")
    return read_lines


def _json_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.lstrip("\ufeff"))
        except ValueError as error:
            raise InvalidInput(f"{name} line {number}: this is no JSON ({error}).") from None
        if not isinstance(row, dict):
            raise InvalidInput(f'{name} line {number}: an object is needed, such as {{"text": …}}.')
        yield number, cast("dict[str, Any]", row)


def _csv_rows(lines: Iterable[str], name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(lines, strict=True)
    columns: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise InvalidInput(f"{name} line {number}: {error}.") from None
        if not any(cell.strip() for cell in row):
            continue
        if columns is None:
            columns = [cell.strip().lower().lstrip("\ufeff") for cell in row]
            if "text" not in columns:
                raise InvalidInput(f"{name} line {number}: the header must name text.")
            continue
        if len(row) > len(columns):
            raise InvalidInput(
                f"{name} line {number}: {len(row)} cells for {len(columns)} columns; a text that "
                "holds a comma needs quotes."
            )
        yield number, dict(zip(columns, row, strict=False))


def _line(number: int, row: Mapping[str, Any], where: str, locale: str) -> Line:
    try:
        text = check_text(_text(row, "text")).strip()
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error}", field=error.field) from None
    common: dict[str, Any] = {
        "text": text,
        "locale": _text(row, "locale").strip() or locale,
        "source": "file",
        "weight": _weight(row.get("weight"), where),
        "author": _text(row, "author").strip()[:AUTHOR_LIMIT_CHARACTERS],
        "history": _history(row.get("history"), where),
    }
    entries = _entries(row, where)
    intent = (_text(row, "intent") or _text(row, "label")).strip().lower()
    if intent and not LABEL.fullmatch(intent):
        raise InvalidInput(
            f"{where}: label {intent!r} must be a word such as order_status.", field="label"
        )
    if entries is None and not intent:
        raise InvalidInput(
            f"{where}: it says nothing of the text; give entry_id, none, not or label.",
            field="entry_id",
        )
    # two rows: what is said of entries and what of the intent is counted apart
    return Line(
        number,
        None if entries is None else Label(**common, **entries),
        Label(**common, intent=intent) if intent else None,
    )


def _entries(row: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """Return what a row says of entries as fields of a label, None where it says nothing."""
    relevant = _many(row.get("relevant"))
    entry_id = _text(row, "entry_id").strip() or (relevant[0] if relevant else "")
    none = _flag(row.get("none"), where)
    refuted = _many(row.get("not"))
    if entry_id and none:
        raise InvalidInput(f"{where}: entry_id and none exclude each other.", field="none")
    if entry_id:
        return {"entry_id": entry_id, "chosen_entry_id": None}
    if none:
        return {}
    if refuted:
        return {"chosen_entry_id": refuted[0], "is_correct": False}
    return None


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return "" if value is None else str(value)


def _many(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(each) for each in cast("list[object]", value)]
    return [piece.strip() for piece in str(value or "").split("|") if piece.strip()]


def _flag(value: object, where: str) -> bool:
    word = str("" if value is None else value).strip().lower()
    if word not in _YES | _NO:
        raise InvalidInput(f"{where}: none is {word!r}; write true or leave it out.", field="none")
    return word in _YES


def _weight(value: object, where: str) -> float:
    try:
        weight = float(str(value)) if value not in (None, "") else 1.0
    except ValueError:
        weight = 0.0
    if not 0 < weight <= 1:
        raise InvalidInput(
            f"{where}: weight {value} must be above 0 and at most 1.", field="weight"
        )
    return weight


def _history(value: object, where: str) -> Sequence[Mapping[str, str]]:
    if not value:
        return []
    try:
        said = json.loads(value) if isinstance(value, str) else value
        return [{"author": str(each["author"]), "text": str(each["text"])} for each in said]  # pyright: ignore
    except (ValueError, TypeError, KeyError):
        raise InvalidInput(
            f'{where}: history must be a list of {{"author", "text"}}.', field="history"
        ) from None


def write(labels: Sequence[Label], ending: str, *, raw: bool = False) -> Iterator[str]:
    """Yield a file's lines, ready for `read`, `train encoder --pairs` and `train intents --data`.

    Args:
        labels: What to write.
        ending: `csv` or `jsonl`.
        raw: Leave personal data in; else it is masked.
    """
    rows = [_row(label, raw=raw) for label in labels]
    if ending == "jsonl":
        for row in rows:
            kept = {name: value for name, value in row.items() if value not in (None, [], "")}
            yield json.dumps(kept, ensure_ascii=False) + "\n"
        return
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = {**row, "none": "true" if row["none"] else "", "not": "|".join(row["not"])}
        writer.writerow([cells[name] for name in COLUMNS])
    yield buffer.getvalue()


def _row(label: Label, *, raw: bool) -> dict[str, Any]:
    def shown(text: str) -> str:
        return text if raw else mask_prose(text)

    wrong = label.is_correct is False and label.chosen_entry_id
    row: dict[str, Any] = {
        "text": shown(label.text),
        "entry_id": label.entry_id,
        "relevant": [label.entry_id] if label.entry_id else [],
        "none": True if label.means_none else None,
        "not": [label.chosen_entry_id] if wrong else [],
        "label": label.intent,
        "locale": label.locale,
        "source": label.source,
        "weight": label.weight,
        "turn": str(label.turn_id) if label.turn_id else None,
        "history": [{**said, "text": shown(said["text"])} for said in label.history],
    }
    if label.history:  # as `train encoder --pairs` takes a conversation
        before = [(said["author"], shown(said["text"])) for said in label.history]
        row["turns"] = [
            {"speaker": "U" if author == "customer" else "S", "text": text}
            for author, text in [*before, ("customer", row["text"])]
        ]
    return row
