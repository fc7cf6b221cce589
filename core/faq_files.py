"""Files of FAQ entries: CSV, JSON, JSONL and Markdown, read and written without loss.

A reader yields one row at a time with its line in the file, and may be asked again from the
start; what is wrong with one row is yielded in its place, what is wrong with the whole file is
raised. XLSX needs a library and is added by `cli`.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO, Protocol, TextIO, cast

from core.errors import InvalidInput
from core.faq_entries import FIELDS, READ_ONLY, join_list, moment_text
from core.types import FaqEntry

REQUIRED = ("question", "answer")
NEVER_CLOSED = "a quoted text that begins here never ends; the rest of the file was not read."


@dataclass(frozen=True)
class Row:
    """One entry as a file describes it.

    Attributes:
        line: Where it begins; the file's first line is 1.
        values: What it says, by the names of `core.faq_entries.FIELDS`.
        unknown: Columns or keys that mean nothing to us.
    """

    line: int
    values: Mapping[str, object]
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, and why."""

    line: int
    reason: str


@dataclass(frozen=True)
class Source:
    """A file of entries.

    Attributes:
        name: As messages call it, such as `faq.csv`.
        open: Opens it from its start; called once for each reading.
    """

    name: str
    open: Callable[[], BinaryIO]


class Format(Protocol):
    """One kind of file."""

    media_type: str

    def read(self, source: Source) -> Iterator[Row | BadRow]:
        """Yield the rows of a file.

        Raises:
            InvalidInput: The file as a whole cannot be read.
        """
        ...

    def write(self, entries: Iterable[FaqEntry]) -> Iterator[bytes]:
        """Yield a file that holds some entries, piece by piece."""
        ...


def format_for(name: str, formats: Mapping[str, Format]) -> Format:
    """Return the format that a file's name or a bare word such as `csv` asks for.

    Raises:
        InvalidInput: There is none; the message lists them.
    """
    ending = (PurePath(name).suffix or name).lstrip(".").lower()
    ending = {"markdown": "md", "ndjson": "jsonl"}.get(ending, ending)
    if ending not in formats:
        raise InvalidInput(
            f"{name} is in no known format; known are {', '.join(sorted(formats))}.",
            field="format",
        )
    return formats[ending]


def column_name(header: object) -> str:
    """Return the field that a column's header or a key means."""
    return re.sub(r"[\s-]+", "_", str(header or "").strip().lower())


def check_header(source: Source, line: int, columns: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that are not known.

    Raises:
        InvalidInput: A needed one is missing, or one stands twice.
    """
    for column in columns:
        if column and columns.count(column) > 1:
            raise InvalidInput(
                f"{source.name} line {line}: column {column} stands twice; remove one.",
                field=column,
            )
    for column in REQUIRED:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, 1)
            hint = f"is {near[0]} meant?" if near else f"columns may be {', '.join(FIELDS)}."
            raise InvalidInput(
                f"{source.name} line {line}: no column is named {column}; {hint}", field=column
            )
    return unknown(columns)


def unknown(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that mean nothing to us."""
    return tuple(name for name in names if name and name not in FIELDS and name not in READ_ONLY)


def cells(entry: FaqEntry) -> dict[str, str | None]:
    """Return an entry as the cells of a table."""
    return {
        **{
            name: getattr(entry, name)
            for name in FIELDS
            if name not in ("alternates", "tags", "not_for", "valid_from", "valid_until")
        },
        "alternates": join_list(entry.alternates),
        "tags": join_list(entry.tags),
        "not_for": join_list(entry.not_for),
        **_validity(entry),
    }


def as_json(entry: FaqEntry) -> dict[str, Any]:
    """Return an entry as JSON; all fields are there, so that reading it back clears empty ones."""
    return {
        **{name: getattr(entry, name) for name in FIELDS},
        "alternates": list(entry.alternates),
        "tags": list(entry.tags),
        "not_for": list(entry.not_for),
        **_validity(entry),
    }


def _validity(entry: FaqEntry) -> dict[str, str | None]:
    return {
        "valid_from": moment_text(entry.valid_from),
        "valid_until": moment_text(entry.valid_until, end=True),
    }


def _text_of(source: Source) -> TextIO:
    """Open a file as text; UTF-8, or UTF-16 where it says so (Excel's "Unicode text")."""
    raw = source.open()
    start = raw.read(2)
    raw.seek(0)
    wide = start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return io.TextIOWrapper(raw, encoding="utf-16" if wide else "utf-8-sig", newline="")


def _not_text(source: Source) -> InvalidInput:
    """Say where a file stops being UTF-8; read again, since decoding runs ahead of the lines."""
    with source.open() as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return InvalidInput(f"{source.name} line {number}: not UTF-8; save it as UTF-8.")
    return InvalidInput(f"{source.name}: not UTF-8; save it as UTF-8.")


class Csv:
    """A table of comma-separated values; `;` and tabs are recognised too."""

    media_type = "text/csv; charset=utf-8"

    def read(self, source: Source) -> Iterator[Row | BadRow]:
        """Yield the rows of a table."""
        with _text_of(source) as text:
            try:
                yield from self._rows(source, text)
            except UnicodeDecodeError:
                raise _not_text(source) from None

    def _rows(self, source: Source, text: TextIO) -> Iterator[Row | BadRow]:
        first = next((line for line in iter(text.readline, "") if line.strip("\r\n")), "")
        if not first:
            raise InvalidInput(f"{source.name} is empty; its first line must name the columns.")
        text.seek(0)
        # strict: a quote in the wrong place is told, not guessed at
        reader = csv.reader(text, delimiter=_delimiter(first), strict=True)
        columns: list[str] | None = None
        strange: tuple[str, ...] = ()
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                yield BadRow(line, _explained(error))
                if "expected after" in str(error):
                    continue  # the next line begins a new row
                break
            if not any(cell.strip() for cell in row):
                continue
            if columns is None:
                columns = [column_name(cell) for cell in row]
                strange = check_header(source, line, columns)
            else:
                yield _row(line, columns, row, strange)
        if columns is None:
            raise InvalidInput(f"{source.name} is empty; its first line must name the columns.")

    def write(self, entries: Iterable[FaqEntry]) -> Iterator[bytes]:
        """Yield a table; it begins with a byte-order mark, without which Excel garbles UTF-8."""
        yield codecs.BOM_UTF8
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(FIELDS)
        for entry in entries:
            row = cells(entry)
            writer.writerow([row[name] for name in FIELDS])
            if buffer.tell() > 65_536:
                yield _taken(buffer)
        yield _taken(buffer)


def _taken(buffer: io.StringIO) -> bytes:
    text = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return text.encode()


def _delimiter(header: str) -> str:
    return max(",;\t", key=header.count)


def _explained(error: csv.Error) -> str:
    text = str(error)
    if "expected after" in text:
        return 'a quoted text goes on after its closing quote; write a quote within it as "".'
    if "unexpected end" in text or "field limit" in text:
        return NEVER_CLOSED
    return f"{text}; the rest of the file was not read."


def _row(
    line: int, columns: Sequence[str], row: Sequence[str], strange: tuple[str, ...]
) -> Row | BadRow:
    if len(row) > len(columns) and any(cell.strip() for cell in row[len(columns) :]):
        return BadRow(
            line,
            f"{len(row)} cells for {len(columns)} columns; a text that holds the separator "
            "needs quotes.",
        )
    values = {
        name: cell for name, cell in zip(columns, row, strict=False) if name and name not in strange
    }
    return Row(line, values, strange)


def _json_row(line: int, value: object) -> Row | BadRow:
    if not isinstance(value, dict):
        return BadRow(line, "not an object with question and answer.")
    named = {column_name(key): each for key, each in cast("dict[str, object]", value).items()}
    strange = unknown(named)
    return Row(line, {key: each for key, each in named.items() if key not in strange}, strange)


class JsonLines:
    """One entry as a JSON object on each line."""

    media_type = "application/x-ndjson"

    def read(self, source: Source) -> Iterator[Row | BadRow]:
        """Yield the entry of each line."""
        with _text_of(source) as text:
            try:
                for number, line in enumerate(text, 1):
                    if line.strip():
                        yield self._row(number, line)
            except UnicodeDecodeError:
                raise _not_text(source) from None

    def _row(self, number: int, line: str) -> Row | BadRow:
        try:
            return _json_row(number, json.loads(line))
        except (json.JSONDecodeError, RecursionError) as error:
            return BadRow(number, f"not JSON ({getattr(error, 'msg', 'nested too deeply')}).")

    def write(self, entries: Iterable[FaqEntry]) -> Iterator[bytes]:
        """Yield one line for each entry."""
        for entry in entries:
            yield json.dumps(as_json(entry), ensure_ascii=False).encode() + b"\n"


class Json:
    """An array of entries, or an object that holds it under `entries`."""

    media_type = "application/json"

    def read(self, source: Source) -> Iterator[Row | BadRow]:
        """Yield the elements of the array; one of them at a time is in memory as an object."""
        with _text_of(source) as file:
            try:
                text = file.read()
            except UnicodeDecodeError:
                raise _not_text(source) from None
        try:
            yield from self._elements(source, text)
        except json.JSONDecodeError as error:
            raise InvalidInput(
                f"{source.name} line {error.lineno}: not JSON ({error.msg})."
            ) from None
        except RecursionError:
            raise InvalidInput(
                f"{source.name}: nested too deeply to be a list of entries."
            ) from None

    def _elements(self, source: Source, text: str) -> Iterator[Row | BadRow]:
        decoder = json.JSONDecoder()
        at = _skip(text, _array_start(source, text, decoder) + 1)
        line, counted = 1, 0
        while not text.startswith("]", at):
            line, counted = line + text.count("\n", counted, at), at
            value, at = decoder.raw_decode(text, at)
            yield _json_row(line, value)
            at = _skip(text, at)
            if text.startswith(",", at):
                at = _skip(text, at + 1)
            elif not text.startswith("]", at):
                raise json.JSONDecodeError("a comma or the list's end is missing", text, at)

    def write(self, entries: Iterable[FaqEntry]) -> Iterator[bytes]:
        """Yield an array with an entry on each line."""
        separator = b"[\n"
        for entry in entries:
            yield separator + json.dumps(as_json(entry), ensure_ascii=False).encode()
            separator = b",\n"
        yield b"[]\n" if separator == b"[\n" else b"\n]\n"


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _array_start(source: Source, text: str, decoder: json.JSONDecoder) -> int:
    """Return where the array of entries begins: at the top, or under the key `entries`."""
    at = _skip(text, 0)
    if text.startswith("[", at):
        return at
    if not text.startswith("{", at):
        raise InvalidInput(f'{source.name} is neither a list of entries nor {{"entries": [...]}}.')
    at = _skip(text, at + 1)
    while not text.startswith("}", at):
        key, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if not text.startswith(":", at):
            raise json.JSONDecodeError("a colon is missing", text, at)
        at = _skip(text, at + 1)
        if key == "entries" and text.startswith("[", at):
            return at
        _, at = decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text.startswith(",", at):
            at = _skip(text, at + 1)
    raise InvalidInput(f'{source.name} holds no list under "entries".')


_HEADING = re.compile(r" {0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{3,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_COMMENT = re.compile(r"<!--\s*deskhand:?\s*(\{.*\})\s*-->\s*$")
_ALSO = re.compile(r"[*_]*also asked as:?[*_]*:?\s*$", re.IGNORECASE)
_BULLET = re.compile(r"\s*[-*+][ \t]+(.*\S)\s*$")


@dataclass
class _Section:
    line: int
    level: int
    question: str
    body: list[str]


class Markdown:
    """A document whose headings are questions; what follows each is its answer.

    A list under the words "Also asked as:" gives alternates, a comment
    `<!-- deskhand: {"id": …, "tags": […]} -->` the rest.
    """

    media_type = "text/markdown; charset=utf-8"

    def read(self, source: Source) -> Iterator[Row | BadRow]:
        """Yield the document's questions; a heading that only has headings below it is a title."""
        previous: _Section | None = None
        with _text_of(source) as text:
            try:
                for section in _sections(text):
                    if previous is not None:
                        yield from _section_rows(previous, section.level)
                    previous = section
            except UnicodeDecodeError:
                raise _not_text(source) from None
        if previous is None:
            raise InvalidInput(f"{source.name} holds no heading; each question is one.")
        yield from _section_rows(previous, 0)

    def write(self, entries: Iterable[FaqEntry]) -> Iterator[bytes]:
        """Yield a document of second-level headings."""
        for entry in entries:
            yield _section_text(entry).encode()


def _sections(lines: Iterable[str]) -> Iterator[_Section]:
    section: _Section | None = None
    fence = ""
    before = ""  # the line before the last: a setext heading stands after an empty one
    in_front_matter = False
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if number == 1 and line.strip() == "---":
            in_front_matter = True
            continue
        if in_front_matter:
            in_front_matter = line.strip() not in ("---", "...")
            continue
        if fence:
            fence = "" if line.strip().startswith(fence) and not line.strip(" `~") else fence
        elif opened := _FENCE.match(line):
            fence = opened[1]
        elif heading := _HEADING.match(line):
            if section:
                yield section
            section = _Section(number, len(heading[1]), heading[2], [])
            before = ""
            continue
        elif (
            section
            and section.body
            and (underline := _UNDERLINE.match(line))
            and section.body[-1].strip()
            and not before.strip()
            and not _BULLET.match(section.body[-1])
        ):
            question = section.body.pop().strip()
            yield section
            section = _Section(number - 1, 1 if underline[1][0] == "=" else 2, question, [])
            before = ""
            continue
        if section:
            before = section.body[-1] if section.body else ""
            section.body.append(line)
    if section:
        yield section


def _section_rows(section: _Section, next_level: int) -> Iterator[Row | BadRow]:
    values: dict[str, object] = {"question": section.question}
    body = section.body
    first = next((index for index, line in enumerate(body) if line.strip()), None)
    if first is None:
        if next_level <= section.level:
            yield BadRow(section.line, f"the heading {section.question!r} has no answer below it.")
        return
    strange: tuple[str, ...] = ()
    if comment := _COMMENT.match(body[first].strip()):
        try:
            meta = json.loads(comment[1])
        except json.JSONDecodeError as error:
            yield BadRow(section.line + first + 1, f"the comment is not JSON ({error.msg}).")
            return
        body = body[first + 1 :]
        named = _json_row(section.line, meta)
        if isinstance(named, Row):
            strange = named.unknown
            values.update(named.values)
    answer, alternates = _without_alternates(body)
    if alternates:
        values.setdefault("alternates", alternates)
    values.setdefault("answer", "\n".join(answer).strip())
    yield Row(section.line, values, strange)


def _without_alternates(body: list[str]) -> tuple[list[str], list[str]]:
    """Take the list of other questions out of an answer."""
    for index, line in enumerate(body):
        if not _ALSO.match(line.strip()):
            continue
        end = index + 1
        alternates = list[str]()
        while end < len(body) and (not body[end].strip() or _BULLET.match(body[end])):
            if bullet := _BULLET.match(body[end]):
                alternates.append(bullet[1])
            elif alternates:
                break
            end += 1
        if alternates:
            return body[:index] + body[end:], alternates
    return body, []


def _section_text(entry: FaqEntry) -> str:
    """Return an entry as a section; what Markdown would not give back stands in the comment."""
    meta = {
        name: value
        for name, value in as_json(entry).items()
        if name not in ("question", "answer", "alternates")
    }
    plain = _section(entry, meta, entry.question, entry.answer, entry.alternates)
    if _read_back(plain) == {**as_json(entry)}:
        return plain
    heading = " ".join(entry.question.split()).strip("# ") or "?"
    return _section(entry, as_json(entry), heading, "", ())


def _section(
    entry: FaqEntry, meta: Mapping[str, Any], heading: str, answer: str, alternates: Sequence[str]
) -> str:
    comment = json.dumps(meta, ensure_ascii=False).replace("-->", "--\\u003e")
    also = "".join(f"- {each}\n" for each in alternates)
    return (
        f"## {heading}\n<!-- deskhand: {comment} -->\n\n"
        + (f"Also asked as:\n\n{also}\n" if also else "")
        + (f"{answer}\n\n" if answer else "\n")
    )


def _read_back(section: str) -> Mapping[str, object] | None:
    """Return what a section says when another one follows it, None if it is not one entry."""
    document = (section + "## next\n\nnext\n").encode()
    rows = list(Markdown().read(Source("", lambda: io.BytesIO(document))))
    if len(rows) != 2 or not isinstance(rows[0], Row):
        return None
    return {"alternates": [], **rows[0].values}


FORMATS: Mapping[str, Format] = {
    "csv": Csv(),
    "json": Json(),
    "jsonl": JsonLines(),
    "md": Markdown(),
}
"""The formats that need no library."""
