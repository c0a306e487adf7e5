"""Columns of a survey file: bad ones are refused by name and row count, what is missing or unknown is reported by country."""

from pathlib import Path

import pytest
from survey_files import ITEMS, survey, write_csv
from valueshift.core.errors import ValueshiftError
from valueshift.core.surveys import collapse, import_survey
from valueshift.core.surveys.importer import registry_codes

GOOD = survey({"Q1": [1, 2, 3, 4, -1], "Q2": [1, 1, 1, 2, 2]}, weight=[1, 1, 1, 1, 1]) | {"A_WAVE": [7] * 5}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"W_WEIGHT": [1, -1, -5, 1, 1]}, r"a\.csv, column W_WEIGHT: 2 rows are negative, such as '-1'"),
        ({"W_WEIGHT": [1, "x", 1, 1, 1]}, r"a\.csv, column W_WEIGHT: 1 rows are empty or no number, such as 'x'"),
        ({"W_WEIGHT": [1, "", "", "", 1]}, r"a\.csv, column W_WEIGHT: 3 rows are empty or no number"),
        ({"W_WEIGHT": [1, "inf", "nan", 1, 1]}, r"column W_WEIGHT: 2 rows are empty or no number"),
        ({"D_INTERVIEW": [1, 2, 2, 2, 3]}, r"a\.csv, column D_INTERVIEW: 2 rows repeat a respondent, such as 2 of TUR"),
        ({"Q1": [1, 7, 7, 2, 2]}, r"a\.csv, column Q1: 2 rows hold code 7 \(known: 1, 2, 3, 4\)"),
        ({"Q1": [0, 1, 1, 2, 2]}, r"column Q1: 1 rows hold code 0"),
        ({"Q1": [1.5, 1, 1, 2, 2]}, r"column Q1: 1 rows hold '1.5', which is no label of its codes"),
        ({"Q1": ["Very big", 1, 1, 2, 2]}, r"a\.csv, column Q1: 1 rows hold 'Very big', which is no label"),
        ({"A_WAVE": [6, 6, 7, 7, 7]}, r"a\.csv, column A_WAVE: 2 rows hold '6', which is not of wave 7"),
        ({"A_WAVE": None, "A_YEAR": [2012] * 5}, r"a\.csv, column A_YEAR: 5 rows hold '2012', which is not of wave 7"),
        (
            {"B_COUNTRY_ALPHA": ["TUR", "TUR", "XYZ", "XYZ", ""]},
            r"B_COUNTRY_ALPHA: 2 rows hold 'XYZ', which is no country",
        ),
        ({"B_COUNTRY_ALPHA": None}, r"a\.csv is no WVS wave 7 file: it has no column B_COUNTRY_ALPHA or B_COUNTRY"),
        ({"Q1": None, "Q2": None}, r"a\.csv is no WVS wave 7 file: it has no variable of the registry"),
        ({"Q1": None, "Q2": None, "V1": [6] * 5, "V2": [1] * 5, "V4": [1] * 5}, r"it is of wave 5 or 6"),
        (
            {"Q1": None, "Q2": None, "A001": [6] * 5, "A002": [1] * 5, "E018": [1] * 5},
            r"it is a time series or joint file",
        ),
        ({"Q1": None, "Q2": None, "Q1P": [6] * 5, "Q2P": [1] * 5, "Q3P": [1] * 5}, r"recoded variables"),
        ({"Q1: Family": [1] * 5}, r"a\.csv, column Q1: the file has it twice"),
        ({"Q1": [-5] * 5, "Q2": [-5] * 5}, r"a\.csv holds no valid answer"),
    ],
)
def test_bad_input_is_refused_by_name(tmp_path: Path, changed: dict[str, list[object] | None], said: str) -> None:
    columns = {name: values for name, values in (GOOD | changed).items() if values is not None}
    assert import_survey([write_csv(tmp_path / "good.csv", GOOD)]).shares["n"].sum() > 0
    with pytest.raises(ValueshiftError, match=said):
        import_survey([write_csv(tmp_path / "a.csv", columns)])


def test_unknown_codes_can_be_dropped_and_are_counted(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", GOOD | {"Q1": [1, 7, 7, 3, "odd"]})
    imported = import_survey([path], unknown_codes="drop")
    row = imported.report.set_index("question").loc["Q1"]
    assert (row["valid"], row["missing"], row["unknown"]) == (2, 0, 3)
    assert "a.csv: 3 answers unknown to the registry were dropped as missing" in imported.notes
    assert collapse(imported.shares, ITEMS)["p_first"][0] == 0.5


def test_what_is_missing_is_reported_for_each_country(tmp_path: Path) -> None:
    columns = survey({"Q1": [1, 2, 3, 4], "Q2": [-5, -5, 1, 2], "Q33_3": [1] * 4, "Q82_EU": [1] * 4})
    columns["B_COUNTRY_ALPHA"] = ["TUR", "TUR", "DEU", "DEU"]
    imported = import_survey([write_csv(tmp_path / "a.csv", columns)])
    status = imported.report.set_index(["country", "question"])["status"]
    assert (status["TUR", "Q1"], status["TUR", "Q2"], status["DEU", "Q2"]) == ("answered", "all missing", "answered")
    assert status["DEU", "Q3"] == "no column"
    assert len(status) == 2 * len(registry_codes(ITEMS))
    summary = imported.summary().set_index("country")
    assert summary["answered"].to_dict() == {"DEU": 2, "TUR": 1}
    assert summary["not_answered"]["TUR"].split()[:2] == ["Q2", "Q3"]
    assert any("a.csv: 2 columns are no variables of the registry: Q33_3, Q82_EU" in note for note in imported.notes)


def test_a_file_without_respondent_ids_is_read_and_it_is_said(tmp_path: Path) -> None:
    columns = {"B_COUNTRY": ["792", "792"], "Q1": ["1", "4"]}
    imported = import_survey([write_csv(tmp_path / "a.csv", columns)])
    assert any("no column D_INTERVIEW: repeated respondents could not be looked for" in note for note in imported.notes)
    assert collapse(imported.shares, ITEMS)["p_first"].tolist() == [0.5]


def test_countries_may_come_from_several_files_but_only_once(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "one.csv", survey({"Q1": [1, 2]}, weight=[1, 3]))
    two = write_csv(tmp_path / "two.csv", survey({"Q1": [4, 4]}, country="276"))
    both = import_survey([one, two])
    table = collapse(both.shares, ITEMS).set_index("country")
    assert table["p_first"].to_dict() == {"DEU": 0.0, "TUR": 1.0}
    assert table["weight"].to_dict() == {"DEU": "none", "TUR": "W_WEIGHT"}
    assert sorted(both.files.values()) == ["one.csv", "two.csv"]
    again = write_csv(tmp_path / "again.csv", survey({"Q1": [4, 4]}, country="TR"))
    with pytest.raises(ValueshiftError, match=r"again.csv: country TUR is also in one.csv"):
        import_survey([one, again])
    with pytest.raises(ValueshiftError, match="no survey file was given"):
        import_survey([])
