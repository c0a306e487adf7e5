"""Survey files as people download them, in blocks of rows: CSV, Excel, SPSS, Stata, or a ZIP archive of one of them."""

import csv
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from io import TextIOWrapper
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from .. import limits
from ..errors import ValueshiftError
from ..files import explained
from ..shown import written_out
from ..sources import bounded_lines, damage_explained, is_file, opened, sound
from .excel import sheets

_ROWS = 5_000
_DELIMITERS = ";,\t"
_NOT_DATA = {
    b"version https://git-lfs": "a Git LFS pointer instead of the data; fetch it with `git lfs pull`",
    b"<!doctype html": "a web page; download the data file again, the site may have asked for a login",
    b"\xd0\xcf\x11\xe0": "an Excel file of the old kind, or one with a password; save it as .xlsx without one",
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
        ValueshiftError: the file is missing, of an unknown kind, damaged, too large to be read, or holds no data; so do the
            blocks, where damage appears when they are read.
    """
    kind, where = path.suffix.lower(), written_out(str(path))
    if not is_file(path):
        raise ValueshiftError(f"{where} does not exist or is no file; give the survey file that you downloaded")
    if kind not in _OPENERS and kind != ".zip":
        raise ValueshiftError(
            f"{where} is of no kind that can be read ({', '.join((*_OPENERS, '.zip'))}); download or save it as CSV"
        )
    with ExitStack() as stack:
        try:
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            start = stream.read(64).lstrip(b"\xef\xbb\xbf \r\n\t").lower()
        except OSError as error:
            raise ValueshiftError(f"cannot read {where}: {error.strerror}; check its permissions") from error
        for mark, description in _NOT_DATA.items():
            if start.startswith(mark):
                raise ValueshiftError(f"{where} is {description}")
        if not start:
            raise ValueshiftError(f"{where} is empty; download it again")
        if kind == ".zip":
            kind, stream = _unpacked(path, where, stack)
        stream.seek(0)
        with damage_explained(f"{where} cannot be read"):
            file = stack.enter_context(_OPENERS[kind](stream, where))
        yield replace(file, name=written_out(path.name))


def _unpacked(path: Path, where: str, stack: ExitStack) -> tuple[str, IO[bytes]]:
    """Suffix and content of the one data file of an archive; the file that holds it has no name, and so is never left behind."""
    with opened(path) as sources:
        members = [source for source in sources if source.name.suffix.lower() in _OPENERS]
        if len(members) != 1:
            raise ValueshiftError(f"{where} holds {len(members)} data files; unpack it and give the one you want")
        unpacked: IO[bytes] = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        with members[0].stream() as packed, explained(Path(tempfile.gettempdir())):
            shutil.copyfileobj(packed, unpacked)
    return members[0].name.suffix.lower(), unpacked


def _variables(header: Iterable[object]) -> tuple[str, ...]:
    """The variable that each header cell begins with, `` where it holds none."""
    matches = (re.match(r"\s*([A-Za-z]\w*)\s*(?::|$)", str(cell)) for cell in header)
    return tuple(match[1].upper() if match else "" for match in matches)


def _framed(rows: Iterator[Sequence[Any]], positions: Sequence[int]) -> Iterator[pd.DataFrame]:
    pick = itemgetter(*positions, positions[0])  # at least two positions: always a tuple
    while block := [pick(row)[:-1] for row in islice(rows, _ROWS)]:
        yield pd.DataFrame({at: np.array(column, dtype=object) for at, column in enumerate(zip(*block, strict=True))})


@contextmanager
def _csv(stream: IO[bytes], where: str) -> Iterator[SurveyFile]:
    # Only codes, labels and ids are read: bytes that are not UTF-8 make an unknown label, which is then named.
    text = TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    delimiter, variables = _csv_layout(text, where)
    text.seek(0)
    reader = csv.reader(bounded_lines(text, where), delimiter=delimiter)
    next(reader)

    def rows() -> Iterator[list[str]]:
        for row in sound(reader, where):
            if not row:
                continue
            if len(row) != len(variables):
                raise ValueshiftError(
                    f"{where}, line {reader.line_num}: {len(row)} fields, the header has {len(variables)}; "
                    f"the file is cut or damaged, download it again"
                )
            yield row

    yield SurveyFile(where, variables, False, lambda positions: _framed(rows(), positions))


def _csv_layout(text: TextIOWrapper, where: str) -> tuple[str, tuple[str, ...]]:
    """The delimiter under which the header holds most variables, and those."""
    headers = {}
    for delimiter in _DELIMITERS:
        text.seek(0)
        header = next(csv.reader(bounded_lines(text, where), delimiter=delimiter), [])
        if len(header) > limits.SURVEY_COLUMNS:
            raise ValueshiftError(f"{where} has {len(header):,} columns; give the file as it was downloaded")
        headers[delimiter] = _variables(header)
    delimiter = max(_DELIMITERS, key=lambda candidate: sum(map(bool, headers[candidate])))
    return delimiter, headers[delimiter]


@contextmanager
def _excel(stream: IO[bytes], where: str) -> Iterator[SurveyFile]:
    with sheets(stream, where) as found:
        if not found:
            raise ValueshiftError(f"{where} has no sheet; give the survey file that you downloaded")
        headed = [(_variables(next(rows, ())), rows) for rows in found]
        variables, rows = max(headed, key=lambda sheet: sum(map(bool, sheet[0])))

        def full_rows() -> Iterator[tuple[object, ...]]:
            for row in rows:
                if any(cell is not None for cell in row):
                    yield row + (None,) * (len(variables) - len(row))

        yield SurveyFile(where, variables, True, lambda positions: _framed(full_rows(), positions))


@contextmanager
def _spss_or_stata(stream: IO[bytes], where: str, *, stata: bool) -> Iterator[SurveyFile]:
    import pyreadstat

    def reader(stream: IO[bytes], **options: Any) -> Any:
        stream.seek(0)  # which only its reader of SPSS does
        return (pyreadstat.read_dta if stata else pyreadstat.read_sav)(stream, **options)

    names = reader(stream, metadataonly=True)[1].column_names

    def read(positions: Sequence[int]) -> Iterator[pd.DataFrame]:
        columns = [names[position] for position in positions]
        blocks = pyreadstat.read_file_in_chunks(reader, stream, chunksize=_ROWS * 4, usecols=columns)
        for block, _ in sound(blocks, where):
            yield block[columns]

    yield SurveyFile(where, _variables(names), True, read)


_OPENERS: dict[str, Callable[[IO[bytes], str], AbstractContextManager[SurveyFile]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".txt": _csv,
    ".xlsx": _excel,
    ".sav": partial(_spss_or_stata, stata=False),
    ".zsav": partial(_spss_or_stata, stata=False),
    ".dta": partial(_spss_or_stata, stata=True),
}
