"""Formats of survey files: each gives the same shares, and files that are none, cut or missing are refused."""

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from survey_files import Columns, survey, write_csv, write_dta, write_sav, write_xlsx, write_zip
from valueshift.core.errors import ValueshiftError
from valueshift.core.surveys import import_survey, tables
from valueshift.core.surveys.importer import SHARES_COLUMNS

CODES = survey({"Q1": [1, 2, 4, -1], "Q122": [0, 1, 2, 2], "Q177": [1, 5, 10, -2]}, weight=[0.5, 1.5, 2.0, 1.0])
AS_LABELS = survey(
    {
        "Q1: Important in life: Family": ["Very important", "Rather important", "NOT AT ALL  important", "Don´t know"],
        "Q122: Immigration; jobs, workforce": ["Disagree", "Hard to say", "Agree", "agree "],
        "Q177": ["Never justifiable", "5", "Always justifiable", "No answer"],
    },
    weight=[0.5, 1.5, 2.0, 1.0],
    country="Türkiye",
)


@pytest.mark.parametrize("columns", [CODES, AS_LABELS], ids=["codes", "labels"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", write_csv),
        ("a.csv", lambda path, columns: write_csv(path, columns, delimiter=",", encoding="utf-8")),
        ("a.txt", lambda path, columns: write_csv(path, columns, delimiter="\t")),
        ("a.csv", lambda path, columns: write_csv(path, {name.lower(): values for name, values in columns.items()})),
        ("a.XLSX", write_xlsx),
        ("a.sav", write_sav),
        ("a.zsav", write_sav),
        ("a.dta", write_dta),
        ("a.zip", write_zip),
    ],
    ids=["semicolon", "comma", "tab", "lower-case", "xlsx", "sav", "zsav", "dta", "zip"],
)
def test_every_format_gives_the_same_shares(
    tmp_path: Path, name: str, write: Callable[[Path, Columns], Path], columns: Columns
) -> None:
    if name.endswith(("sav", "dta")):  # these formats allow plain variable names only
        columns = {header.partition(":")[0]: values for header, values in columns.items()}
    shares = import_survey([write(tmp_path / name, columns)]).shares
    assert tuple(shares.columns) == SHARES_COLUMNS
    weighted = shares[shares["weight"] == "W_WEIGHT"].set_index(["question", "code"])
    assert weighted["share"].to_dict() == pytest.approx(
        {
            ("Q1", 1): 0.5 / 4,
            ("Q1", 2): 1.5 / 4,
            ("Q1", 4): 2 / 4,
            ("Q122", 0): 0.5 / 5,
            ("Q122", 1): 1.5 / 5,
            ("Q122", 2): 3 / 5,
            ("Q177", 1): 0.5 / 4,
            ("Q177", 5): 1.5 / 4,
            ("Q177", 10): 2 / 4,
        }
    )
    assert weighted["n"]["Q122", 2] == 2
    assert weighted["n_effective"]["Q122", 2] == pytest.approx(9 / 5)  # (2 + 1)^2 / (4 + 1)
    assert set(shares["country"]) == {"TUR"}


def test_missing_values_of_spss_and_stata_leave_the_denominator(tmp_path: Path) -> None:
    frame = pd.DataFrame(survey({"Q1": [1.0, 3.0, -1.0, np.nan, -5.0]}))
    sav, dta = tmp_path / "a.sav", tmp_path / "a.dta"
    pyreadstat.write_sav(
        frame, sav, missing_ranges={"Q1": [{"lo": -5, "hi": -1}]}, variable_value_labels={"Q1": {1: "x"}}
    )
    pyreadstat.write_dta(frame, dta)
    for path in (sav, dta):
        row = import_survey([path]).report.set_index("question").loc["Q1"]
        assert (row["respondents"], row["valid"], row["missing"]) == (5, 2, 3)


def test_blocks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns = survey({"Q1": [1, 2, 3, 4, -1, 1, 1]}, weight=[1, 2, 3, 4, 5, 6, 7])
    columns["B_COUNTRY_ALPHA"] = ["TUR", "DEU", "TUR", "DEU", "TUR", "TUR", "DEU"]
    path = write_csv(tmp_path / "a.csv", columns)
    whole = import_survey([path]).shares
    monkeypatch.setattr(tables, "_ROWS", 2)
    pd.testing.assert_frame_equal(import_survey([path]).shares, whole)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"<!DOCTYPE html><html></html>", "is a web page"),
        ("a.csv", b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        ("a.csv", b"B_COUNTRY;Q1\n792;1\n792\n", r"a\.csv, line 3: 1 fields, the header has 2"),
        ("a.csv", b"B_COUNTRY;Q1\n", "has a header and no rows"),
        ("a.csv", b"\x00\x01\x02" * 99, "a.csv"),
        ("a.csv", b"recipe,flour\ncake,2\n", "is no WVS wave 7 file"),
        ("a.xlsx", b"not a workbook", "a.xlsx cannot be read"),
        ("a.sav", b"not a data file", "a.sav cannot be read"),
        ("a.dta", b"not a data file", "a.dta cannot be read"),
        ("a.zip", b"PK not an archive", "a.zip is a damaged archive"),
        ("a.rds", b"RDX3", "is of no kind that can be read"),
    ],
)
def test_files_that_are_no_survey_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueshiftError, match=said):
        import_survey([tmp_path / name])


def test_files_that_are_cut_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    columns = survey({f"Q{number}": rng.integers(1, 3, 500).tolist() for number in range(7, 18)})
    for write, name in ((write_sav, "a.sav"), (write_dta, "a.dta"), (write_xlsx, "a.xlsx"), (write_zip, "a.zip")):
        path = write(tmp_path / name, columns)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ValueshiftError, match=name):
            import_survey([path])


def test_an_archive_of_several_surveys_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.csv", "x")
        archive.writestr("two.sav", "x")
    with pytest.raises(ValueshiftError, match=r"a\.zip holds 2 data files"):
        import_survey([tmp_path / "a.zip"])
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("[Content_Types].txt", "x")
    (tmp_path / "b.zip").rename(tmp_path / "b.xlsx")
    with pytest.raises(ValueshiftError, match=r"b\.xlsx is no Excel file"):
        import_survey([tmp_path / "b.xlsx"])
    with pytest.raises(ValueshiftError, match="does not exist"):
        import_survey([tmp_path / "absent.csv"])
