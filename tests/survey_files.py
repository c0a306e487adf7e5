"""Survey files of every format, written from their columns, and where the real ones are."""

import csv
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyreadstat
import pytest
from openpyxl import Workbook
from valueshift.core.paths import TASKS
from valueshift.core.probes import read_items

ITEMS = read_items(TASKS / "wvs" / "items.csv")
PRIVATE = Path(os.environ.get("VALUESHIFT_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "wvs7"
Columns = Mapping[str, Sequence[object]]


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.is_file(), reason=f"{path.name} is not on this machine")


def survey(
    columns: Columns, *, weight: Sequence[object] | None = None, country: object = "TUR"
) -> dict[str, list[object]]:
    """The columns of a survey file: as given, with country, respondent id and weight before them."""
    rows = len(next(iter(columns.values())))
    before: dict[str, list[object]] = {"B_COUNTRY_ALPHA": [country] * rows, "D_INTERVIEW": list(range(1, rows + 1))}
    if weight is not None:
        before["W_WEIGHT"] = list(weight)
    return before | {name: list(values) for name, values in columns.items()}


def write_csv(path: Path, columns: Columns, *, delimiter: str = ";", encoding: str = "utf-8-sig") -> Path:
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def write_xlsx(path: Path, columns: Columns) -> Path:
    workbook = Workbook()
    workbook.active.title = "About"
    sheet = workbook.create_sheet("Data")
    sheet.append(list(columns))
    for row in zip(*columns.values(), strict=True):
        sheet.append(row)
    workbook.save(path)
    return path


def write_sav(path: Path, columns: Columns) -> Path:
    pyreadstat.write_sav(pd.DataFrame(columns), path)
    return path


def write_dta(path: Path, columns: Columns) -> Path:
    pyreadstat.write_dta(pd.DataFrame(columns), path)
    return path


def write_zip(path: Path, columns: Columns) -> Path:
    inner = write_csv(path.with_suffix(".csv"), columns)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(inner, f"folder/{inner.name}")
        archive.writestr("__MACOSX/folder/._a.csv", b"\x00")
        archive.writestr("folder/readme.pdf", b"%PDF")
    return path
