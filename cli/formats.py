"""File formats that need a library, beside those that the core reads by itself."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import BinaryIO
from xml.etree.ElementTree import ParseError

from openpyxl import Workbook, load_workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.utils.exceptions import InvalidFileException

from core import faq_files
from core.errors import InvalidInput
from core.faq_entries import FIELDS
from core.faq_files import (
    BadRow,
    Format,
    Row,
    Source,
    cells,
    check_header,
    column_name,
)
from core.types import FaqEntry

LONGEST_CELL_CHARACTERS = 32_767
"""What Excel allows; a list of alternates may be longer, and is then refused on export."""


UNPACKED_LIMIT_BYTES = 300_000_000


class Xlsx:
    """The first sheet of an Excel workbook, with the columns of the CSV."""

    media_type = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

    def read(self, source: Source) -> Iterator[Row | BadRow]:
        """Yield the rows of the first sheet; a row's line is its number in the sheet."""
        with source.open() as file:
            try:
                _refuse_bomb(source, file)
                # read-only: rows come one at a time from the archive, and formulas as last shown
                book = load_workbook(file, read_only=True, data_only=True)
                sheet = book.worksheets[0]
                yield from self._rows(source, sheet.iter_rows(values_only=True))
            except (
                zipfile.BadZipFile,
                InvalidFileException,
                ParseError,
                KeyError,
                IndexError,
                OSError,
                ValueError,
            ) as error:
                raise InvalidInput(
                    f"{source.name} is no Excel workbook (.xlsx) that can be read."
                ) from error

    def _rows(self, source: Source, sheet: Iterable[tuple[object, ...]]) -> Iterator[Row | BadRow]:
        columns: list[str] | None = None
        strange: tuple[str, ...] = ()
        for line, row in enumerate(sheet, 1):
            if not any(_shown(cell) for cell in row):
                continue
            if columns is None:
                columns = [column_name(cell) for cell in row]
                strange = check_header(source, line, columns)
                continue
            values = {
                name: _shown(cell)
                for name, cell in zip(columns, row, strict=False)
                if name and name not in strange
            }
            yield Row(line, values, strange)
        if columns is None:
            raise InvalidInput(f"{source.name} is empty; its first row must name the columns.")

    def write(self, entries: Iterable[FaqEntry]) -> Iterator[bytes]:
        """Yield a workbook of one sheet."""
        book = Workbook(write_only=True)
        sheet = book.create_sheet("FAQ")
        sheet.freeze_panes = "A2"
        sheet.append(list(FIELDS))
        for entry in entries:
            row = list[object]()
            shown = cells(entry)
            for name in FIELDS:
                text = shown[name]
                if text and len(text) > LONGEST_CELL_CHARACTERS:
                    raise InvalidInput(
                        f"{name} of entry {entry.id} is too long for a cell of Excel; "
                        "export to CSV or JSONL.",
                        field=name,
                    )
                cell = WriteOnlyCell(sheet, value=text)
                if text:
                    cell.data_type = "s"  # else a text that begins with = would be a formula
                row.append(cell)
            sheet.append(row)
        buffer = io.BytesIO()
        book.save(buffer)
        yield buffer.getvalue()


def _refuse_bomb(source: Source, file: BinaryIO) -> None:
    """Refuse a small archive that unpacks to a huge one, before anything unpacks it."""
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(part.file_size for part in archive.infolist())
    file.seek(0)
    if unpacked > UNPACKED_LIMIT_BYTES:
        raise InvalidInput(
            f"{source.name} unpacks to {unpacked // 1_000_000:,} MB, "
            f"{UNPACKED_LIMIT_BYTES // 1_000_000} are the most; split it, or use CSV."
        )


def _shown(cell: object) -> object:
    """Return a cell's value as a person sees it."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime) and not (cell.hour or cell.minute or cell.second):
        return cell.date()  # Excel keeps a day as its midnight
    if isinstance(cell, str | date | datetime) or cell is None:
        return cell.strip() if isinstance(cell, str) else cell
    return str(cell)


FORMATS: Mapping[str, Format] = {**faq_files.FORMATS, "xlsx": Xlsx()}
"""All formats of FAQ files, by the ending of their names."""
