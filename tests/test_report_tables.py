"""The report's tables: printed numbers are within half a unit of the last place, and LaTeX has no active character."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.analysis.intervals import FEWEST
from valueshift.core.errors import ValueshiftError
from valueshift.core.shown import NO_INTERVAL
from valueshift.tracking.report.latex import escaped, tabular
from valueshift.tracking.report.rows import Rows
from valueshift.tracking.report.tables import (
    LATEX_ROWS,
    layout,
    parts,
    printed,
    records,
    write_tables,
)


def test_latex_tables_use_booktabs_and_escape() -> None:
    text = tabular(
        ["a_b", "ρ"],
        [False, True],
        [["50% & $1", "−0.310 [−0.400, −0.200]"], ["x\\y~^{}#", "[1, 2]"], ["*a", " *b\x1b"]],
    )
    assert text.splitlines()[1:] == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & $\rho$ \\",
        r"\midrule",
        r"50\% \& \$1 & $-$0.310 [$-$0.400, $-$0.200] \\",
        r"x\textbackslash{}y\textasciitilde{}\textasciicircum{}\{\}\# & {[1, 2]} \\",
        r"{*a} & { *b\textbackslash{}x1b} \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


@given(st.text())
def test_escaped_text_has_no_active_character(text: str) -> None:
    bare = re.sub(r"\\(text\w+\{\}|[{}&%$#_])|\$(<|>|-|\\\w+)\$", "", escaped(text))
    assert not set(bare) & set("\\{}&%$#_~^<>\n\r")


def test_intervals_stand_beside_their_estimates() -> None:
    table = pd.DataFrame(
        {
            "language": ["de"],
            "spearman": [0.5],
            "low": [0.4],
            "high": [0.6],
            "turned_low": [-0.1],
            "turned_high": [0.1],
            "within": [0.25],
            "within_low": [-0.00004],
            "within_high": [0.5],
            "p": [0.0001],
            "n": [40],
            "reason": [""],
        }
    )
    (row,) = records(table)
    assert [(column.name, *parts(row, column)) for column in layout(table)] == [
        ("language", "de", ""),
        ("spearman", "0.500", "[0.400, 0.600]"),
        ("turned", "", "[−0.100, 0.100]"),
        ("within", "0.250", "[0.000, 0.500]"),
        ("p", "<0.001", ""),
        ("n", "40", ""),
    ]


def test_a_value_without_an_interval_says_why() -> None:
    table = pd.DataFrame(
        {"country": ["DEU", "IRN"], "spearman": [0.5, np.nan], "low": [np.nan] * 2, "high": [np.nan] * 2, "n": [10, 3]}
    )
    assert f"fewer than {FEWEST} batteries" == NO_INTERVAL
    found = [[parts(row, column) for column in layout(table)] for row in records(table)]
    assert found[0] == [("DEU", ""), ("0.500", f"[{NO_INTERVAL}]"), ("10", "")]
    assert found[1] == [("IRN", ""), ("", ""), ("3", "")]
    nothing = layout(table.assign(spearman=np.nan))
    assert [column.name for column in nothing] == ["country", "n"], "there is no interval of nothing"


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "＝"])
def test_no_cell_of_a_csv_is_a_formula(begin: str, tmp_path: Path) -> None:
    table = pd.DataFrame({"model": [f"{begin}HYPERLINK(1)", "plain = 1", None], "change": [-0.5, 1.0, np.nan]})
    table[f"{begin}x"] = pd.array(["a", pd.NA, f"{begin}1"], dtype="string")
    write_tables(table, tmp_path, "t")
    read = pd.read_csv(tmp_path / "t.csv")
    assert read.iloc[0, 0] == f"'{begin}HYPERLINK(1)" and read.iloc[2, 2] == f"'{begin}1"
    assert read.iloc[1, 0] == "plain = 1" and read["change"].iloc[0] == -0.5 and read.isna().sum().sum() == 3
    assert pd.read_parquet(tmp_path / "t.parquet")["model"].iloc[0] == f"{begin}HYPERLINK(1)"


def test_a_cell_of_a_csv_is_of_one_line(tmp_path: Path) -> None:
    write_tables(pd.DataFrame({"model": ["a\rb\n\x1b[2J", "\t=1"]}), tmp_path, "t")
    assert (tmp_path / "t.csv").read_bytes() == b"model\na\\rb\\n\\x1b[2J\n\\t=1\n"


@pytest.mark.parametrize("rows", [LATEX_ROWS, LATEX_ROWS + 1])
def test_a_long_table_for_latex_ends_and_names_the_file_that_does_not(rows: int, tmp_path: Path) -> None:
    write_tables(
        pd.DataFrame({"n": range(rows), "p": [*[0.5] * LATEX_ROWS, *[None] * (rows - LATEX_ROWS)]}), tmp_path, "t"
    )
    lines = (tmp_path / "t.tex").read_text(encoding="utf-8").splitlines()
    assert sum(line.endswith(r"\\") for line in lines) == 1 + LATEX_ROWS
    note = f"% The first {LATEX_ROWS} of {rows} rows; t.csv has all"
    assert (lines[0] == note) == (rows > LATEX_ROWS) and lines.count("% Needs \\usepackage{booktabs}") == 1
    assert len(pd.read_csv(tmp_path / "t.csv")) == len(pd.read_parquet(tmp_path / "t.parquet")) == rows


@given(st.floats(-1, 1))
def test_printed_numbers_are_within_half_a_unit_of_the_last_place(value: float) -> None:
    text = printed(value)
    assert re.fullmatch(r"−?\d\.\d{3}", text)
    assert text != "−0.000"
    assert abs(float(text.replace("−", "-")) - value) <= 0.0005 + 1e-12


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (-3, "−3"), (238.0, "238"), (True, "yes"), (None, ""), (pd.NA, ""), (np.nan, "")]
)
def test_printed_values_that_are_no_fractions(value: object, text: str) -> None:
    assert printed(value) == text


def test_what_is_refused_for_one_case_of_many_costs_no_other_its_rows() -> None:
    def lengths(names: list[str]) -> list[pd.DataFrame]:
        if "bad" in names:
            raise ValueshiftError("bad is refused")
        return [pd.DataFrame({"length": [len(name)]}) for name in names]

    rows = Rows()
    rows.add_each([({"model": name}, [f"probe-{name}"], name) for name in ("one", "bad", "three")], lengths)
    assert rows.joined().to_dict("list") == {"model": ["one", "three"], "length": [3, 5]}
    assert list(rows.failed) == ["bad is refused"] and list(rows.runs) == ["probe-one", "probe-three"]
