"""How a table of estimates is printed: one layout for HTML and LaTeX, and the files CSV, Parquet and TeX."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ...core.shown import NO_INTERVAL, written_out
from . import latex
from .words import label

DECIMALS = 3
P_VALUES = ("p", "adjusted", "rank_p")
"""Columns whose smallest values are printed as a bound."""
CSV_FORMAT = "%.10g"
LATEX_ROWS = 200
"""Rows of a table for LaTeX, which is read on paper; the CSV has all."""
_FORMULA = tuple("=+-@＝＋－＠")
"""What makes a spreadsheet take a cell for a formula (OWASP, CSV injection)."""


@dataclass(frozen=True)
class Column:
    """One printed column: an estimate with its interval, or a plain column."""

    name: str
    """Column of the table, or what the ends of an interval that stands alone begin with."""
    ends: tuple[str, str] | None
    """Columns of the interval."""
    numeric: bool

    @property
    def label(self) -> str:
        """The heading."""
        return label(self.name)


def layout(table: pd.DataFrame) -> list[Column]:
    """The columns to print, in the table's order; those without any value are left out.

    `low` and `high` are the interval of the column before them, `x_low` and `x_high` that of `x`; where there is no `x`
    they are printed as an interval of that name.
    """
    columns: dict[str, Column] = {}
    before = ""
    for name in map(str, table.columns):
        stem, low, _ = name.rpartition("low")
        if low == "low" and f"{stem}high" in table.columns and name == f"{stem}low":
            owner = stem.removesuffix("_") or before
            if owner in columns or not _empty(table[name]):
                columns[owner] = replace(columns.get(owner, Column(owner, None, True)), ends=(name, f"{stem}high"))
        elif not (name.endswith("high") and f"{name.removesuffix('high')}low" in table.columns):
            before = name
            if not _empty(table[name]):
                columns[name] = Column(name, None, _numeric(table[name]))
    return list(columns.values())


def _empty(column: "pd.Series[Any]") -> bool:
    missing = column.isna()
    return bool((missing if pd.api.types.is_numeric_dtype(column) else missing | (column.astype("string") == "")).all())


def _numeric(column: "pd.Series[Any]") -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def parts(row: dict[str, Any], column: Column) -> tuple[str, str]:
    """A cell as printed: the value, and its interval in brackets, or why it has none; empty where there is no value."""
    value = printed(row.get(column.name), column.name)
    if column.ends is None or _missing(row[column.ends[0]]):
        return value, f"[{NO_INTERVAL}]" if column.ends and value else ""
    return value, f"[{printed(row[column.ends[0]])}, {printed(row[column.ends[1]])}]"


def printed(value: Any, name: str = "") -> str:
    """One value: numbers with three decimals and a true minus sign, counts as they are, tiny p-values as a bound."""
    if _missing(value):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) > 1):  # counts that stand beside missing ones
        return f"{int(value)}".replace("-", "−")
    if name in P_VALUES and value < 10**-DECIMALS:
        return f"<{10**-DECIMALS:.{DECIMALS}f}"
    return f"{round(value, DECIMALS) + 0.0:.{DECIMALS}f}".replace("-", "−")


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries of Python values."""
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def write_tables(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write `<name>.csv`, `<name>.parquet` and `<name>.tex`."""
    without_formulas(table).to_csv(folder / f"{name}.csv", index=False, float_format=CSV_FORMAT)
    table.to_parquet(folder / f"{name}.parquet", index=False)
    (folder / f"{name}.tex").write_text(_tex(table, name), encoding="utf-8")


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """The table for a spreadsheet: text that one would take for a formula begins with an apostrophe, and is of one line; numbers
    stay."""

    def text(value: str) -> str:
        return written_out(f"'{value}" if value.startswith(_FORMULA) else value)

    def column(values: "pd.Series[Any]") -> "pd.Series[Any]":
        changed = {value: text(value) for value in values.unique() if isinstance(value, str) and text(value) != value}
        return values.map(lambda value: changed.get(value, value)) if changed else values

    columns = table.select_dtypes(exclude="number").columns
    return table.assign(**{name: column(table[name]) for name in columns}).rename(columns=text)


def _tex(table: pd.DataFrame, name: str) -> str:
    columns = layout(table)
    rows = [[" ".join(filter(None, parts(row, column))) for column in columns] for row in records(table[:LATEX_ROWS])]
    text = latex.tabular([column.label for column in columns], [column.numeric for column in columns], rows)
    if len(table) <= LATEX_ROWS:
        return text
    return f"% The first {LATEX_ROWS} of {len(table)} rows; {name}.csv has all\n{text}"
