"""Survey files as people download them, in blocks of rows: CSV, Excel, SPSS, Stata, or a ZIP archive of one of them."""

import csv
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import numpy as np
import pandas as pd

from ..errors import ValueshiftError

_ROWS = 5_000
_DELIMITERS = ";,\t"
_NOT_DATA = {
    b"version https://git-lfs": "a Git LFS pointer instead of the data; fetch it with `git lfs pull`",
    b"<!doctype html": "a web page; download the data file again, the site may have asked for a login",
    b"<html": "a web page; download the data file again, the site may have asked for a login",
}


@dataclass(frozen=True)
class SurveyFile:
    """An open survey file: its variables and a way to read some of them."""

    name: str
    variables: tuple[str, ...]
    """The variable of each column, in upper case: `Q1` for the headers `Q1`, `q1` and `Q1: Important in life`."""
    typed: bool
    """Whether the format tells numbers from text."""
    read: Callable[[Sequence[int]], Iterator[pd.DataFrame]]
    """Blocks of rows with only the columns at these positions, in this order."""

    def blocks(self, variables: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Blocks of rows with one column a variable: text or numbers, None or NaN where empty.

        Raises:
            ValueshiftError: two columns hold the same variable, or a row is cut short.
        """
        if twice := [variable for variable in variables if self.variables.count(variable) > 1]:
            raise ValueshiftError(f"{self.name}, column {twice[0]}: the file has it twice; remove one of the two")
        positions = [self.variables.index(variable) for variable in variables]
        for block in self.read(positions):
            yield block.set_axis(list(variables), axis=1)


@contextmanager
def survey_file(path: Path) -> Iterator[SurveyFile]:
    """Open a survey file by its suffix.

    Raises:
        ValueshiftError: the file is missing, of an unknown kind, damaged, or holds no data. Errors that appear while
            the blocks are read are turned into `ValueshiftError` here, too.
    """
    kind = path.suffix.lower()
    if not path.is_file():
        raise ValueshiftError(f"{path} does not exist or is no file; give the survey file that you downloaded")
    if kind not in _OPENERS and kind != ".zip":
        raise ValueshiftError(
            f"{path} is of no kind that can be read ({', '.join((*_OPENERS, '.zip'))}); download or save it as CSV"
        )
    try:
        with path.open("rb") as stream:
            start = stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    except OSError as error:
        raise ValueshiftError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    for mark, description in _NOT_DATA.items():
        if start.startswith(mark):
            raise ValueshiftError(f"{path} is {description}")
    if not start:
        raise ValueshiftError(f"{path} is empty; download it again")
    with _damage_explained(path):
        if kind == ".zip":
            with _unpacked(path) as inner, survey_file(inner) as file:
                yield replace(file, name=path.name)
        else:
            with _OPENERS[kind](path) as file:
                yield file


@contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    from openpyxl.utils.exceptions import InvalidFileException
    from pyreadstat import PyreadstatError, ReadstatError

    try:
        yield
    except (
        csv.Error,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        ParseError,
        UnicodeDecodeError,
        InvalidFileException,
        PyreadstatError,
        ReadstatError,
    ) as error:
        raise ValueshiftError(f"{path} cannot be read ({error}); the file is damaged, download it again") from error


@contextmanager
def _unpacked(path: Path) -> Iterator[Path]:
    """The one data file of an archive, unpacked to a temporary folder."""
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryDirectory(prefix="valueshift-") as folder:
        files = [name for name in archive.namelist() if not Path(name).name.startswith(".")]  # macOS adds such
        members = [name for name in files if Path(name).suffix.lower() in _OPENERS]
        if len(members) != 1:
            raise ValueshiftError(f"{path} holds {len(members)} data files; unpack it and give the one you want")
        inner = Path(folder) / Path(members[0]).name
        with archive.open(members[0]) as packed, inner.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        yield inner


def _variables(header: Iterable[object]) -> tuple[str, ...]:
    """The variable that each header cell begins with, `` where it holds none."""
    matches = (re.match(r"\s*([A-Za-z]\w*)\s*(?::|$)", str(cell)) for cell in header)
    return tuple(match[1].upper() if match else "" for match in matches)


def _framed(rows: Iterator[Sequence[Any]], positions: Sequence[int]) -> Iterator[pd.DataFrame]:
    pick = itemgetter(*positions, positions[0])  # at least two positions: always a tuple
    while block := [pick(row)[:-1] for row in islice(rows, _ROWS)]:
        yield pd.DataFrame({at: np.array(column, dtype=object) for at, column in enumerate(zip(*block, strict=True))})


@contextmanager
def _csv(path: Path) -> Iterator[SurveyFile]:
    delimiter, variables = _csv_layout(path)
    # Only codes, labels and ids are read: bytes that are not UTF-8 make an unknown label, which is then named.
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter)
        next(reader)

        def rows() -> Iterator[list[str]]:
            for row in reader:
                if not row:
                    continue
                if len(row) != len(variables):
                    raise ValueshiftError(
                        f"{path.name}, line {reader.line_num}: {len(row)} fields, the header has {len(variables)}; "
                        f"the file is cut or damaged, download it again"
                    )
                yield row

        yield SurveyFile(path.name, variables, False, lambda positions: _framed(rows(), positions))


def _csv_layout(path: Path) -> tuple[str, tuple[str, ...]]:
    """The delimiter under which the header holds most variables, and those."""
    headers = {}
    for delimiter in _DELIMITERS:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            headers[delimiter] = _variables(next(csv.reader(stream, delimiter=delimiter), []))
    delimiter = max(_DELIMITERS, key=lambda candidate: sum(map(bool, headers[candidate])))
    return delimiter, headers[delimiter]


@contextmanager
def _excel(path: Path) -> Iterator[SurveyFile]:
    from openpyxl import load_workbook

    try:
        workbook = load_workbook(path, read_only=True, data_only=True)
    except (KeyError, ValueError) as error:
        raise ValueshiftError(f"{path} is no Excel file ({error}); save it as .xlsx or CSV again") from error
    try:
        sheets = []
        for sheet in workbook.worksheets:
            sheet.reset_dimensions()  # some programs write wrong ones
            rows = sheet.iter_rows(values_only=True)
            sheets.append((_variables(next(rows, ())), rows))
        if not sheets:
            raise ValueshiftError(f"{path} has no sheet; give the survey file that you downloaded")
        variables, rows = max(sheets, key=lambda sheet: sum(map(bool, sheet[0])))

        def full_rows() -> Iterator[tuple[object, ...]]:
            for row in rows:
                if any(cell is not None for cell in row):
                    yield row + (None,) * (len(variables) - len(row))

        yield SurveyFile(path.name, variables, True, lambda positions: _framed(full_rows(), positions))
    finally:
        workbook.close()


@contextmanager
def _spss_or_stata(path: Path) -> Iterator[SurveyFile]:
    import pyreadstat

    reader = pyreadstat.read_dta if path.suffix.lower() == ".dta" else pyreadstat.read_sav
    names = reader(path, metadataonly=True)[1].column_names

    def read(positions: Sequence[int]) -> Iterator[pd.DataFrame]:
        columns = [names[position] for position in positions]
        for block, _ in pyreadstat.read_file_in_chunks(reader, path, chunksize=_ROWS * 4, usecols=columns):
            yield block[columns]

    yield SurveyFile(path.name, _variables(names), True, read)


_OPENERS = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".xlsx": _excel,
    ".sav": _spss_or_stata,
    ".zsav": _spss_or_stata,
    ".dta": _spss_or_stata,
}
