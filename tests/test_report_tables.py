"""The report's tables: printed numbers are within half a unit of the last place, and LaTeX has no active character."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.tracking.report.latex import escaped, tabular
from valueshift.tracking.report.tables import layout, parts, printed, records


def test_latex_tables_use_booktabs_and_escape() -> None:
    text = tabular(["a_b", "ρ"], [False, True], [["50% & $1", "−0.310 [−0.400, −0.200]"], ["x\\y~^{}#", "[1, 2]"]])
    assert text.splitlines()[1:] == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"a\_b & $\rho$ \\",
        r"\midrule",
        r"50\% \& \$1 & $-$0.310 [$-$0.400, $-$0.200] \\",
        r"x\textbackslash{}y\textasciitilde{}\textasciicircum{}\{\}\# & {[1, 2]} \\",
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
