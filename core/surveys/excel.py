"""Excel files as sheets of rows. A file is looked through first: openpyxl holds whole parts, and whole rows, in memory."""

import re
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO

from .. import limits
from ..errors import ValueshiftError
from ..shown import piece
from ..sources import opened_zip, sound, unpacked_limit

_ROW = re.compile(rb"<(?:\w{1,9}:)?row[\s/>]")
_STRING = re.compile(rb"<(?:\w{1,9}:)?si[\s/>]")
_LONGEST_TAG = 16
_CHUNK = 1 << 20


@contextmanager
def sheets(stream: IO[bytes], where: str) -> Iterator[list[Iterator[tuple[object, ...]]]]:
    """The rows of each sheet, as values: text, numbers, dates, None where empty.

    Raises:
        ValueshiftError: it is no Excel file, or holds more than one that a person made; a row, when it is read, is damaged.
    """
    from openpyxl import load_workbook

    with ExitStack() as stack:
        _check_sizes(opened_zip(stream, where, stack), stream.seek(0, 2), where)
        try:
            workbook = load_workbook(stream, read_only=True, data_only=True)
        except Exception as error:
            raise ValueshiftError(
                f"{where} is no Excel file ({piece(repr(error))}); save it as .xlsx or CSV again"
            ) from error
        stack.callback(workbook.close)
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()  # some programs write wrong ones
        yield [
            _rows(sheet.iter_rows(values_only=True), f"{where}, sheet {piece(sheet.title)}")
            for sheet in workbook.worksheets
        ]


def _rows(rows: Iterator[tuple[object, ...]], where: str) -> Iterator[tuple[object, ...]]:
    for number, row in enumerate(sound(rows, where), start=1):
        if (
            number > limits.EXCEL_ROWS
        ):  # a row's number is text in the file: between two of them openpyxl makes empty ones
            raise ValueshiftError(f"{where} has a row beyond {limits.EXCEL_ROWS:,}; save it as .xlsx or CSV again")
        yield row


def _check_sizes(archive: zipfile.ZipFile, packed: int, where: str) -> None:
    """Raises ValueshiftError if the parts are larger than memory holds, in all or one by one."""
    if sum(part.file_size for part in archive.infolist()) > unpacked_limit(packed):
        raise ValueshiftError(f"{where} unpacks to more than {unpacked_limit(packed):,} bytes; save it as CSV")
    for part in archive.infolist():
        name, size = part.filename, part.file_size
        if name.endswith(".xml") and name.startswith(("xl/worksheets/", "xl/sharedStrings")):
            _check_rows(archive, part, _ROW if "worksheets" in name else _STRING, where)
        elif name.endswith((".xml", ".rels")) and size > limits.EXCEL_PART_BYTES:
            raise ValueshiftError(f"{where}, {name}: it has {size:,} bytes; save it as CSV")


def _check_rows(archive: zipfile.ZipFile, part: zipfile.ZipInfo, row: re.Pattern[bytes], where: str) -> None:
    """Raises ValueshiftError if there are more rows than Excel has, or more bytes between two than memory holds."""
    count = end = last = 0
    rest = b""
    with archive.open(part) as stream:
        while chunk := stream.read(_CHUNK):
            starts = [match.start() for match in row.finditer(rest + chunk) if match.end() > len(rest)]
            count += len(starts)
            last = end - len(rest) + starts[-1] if starts else last
            end += len(chunk)
            rest = (rest + chunk)[-_LONGEST_TAG:]
            if count > limits.EXCEL_ROWS or end - last > limits.EXCEL_ROW_BYTES:
                most = f"{limits.EXCEL_ROWS:,} rows, or one of more than {limits.EXCEL_ROW_BYTES:,} bytes"
                raise ValueshiftError(f"{where}, {part.filename}: it has more than {most}; save it as CSV")
