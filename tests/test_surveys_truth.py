"""The survey truth: the packaged table follows the registry and the real files, until a survey is imported."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from survey_files import ITEMS, PRIVATE, needs, survey, write_csv
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.core.surveys import import_survey, survey_truth, write_survey
from valueshift.core.surveys.countries import countries, country_code
from valueshift.core.surveys.truth import rule, survey_folder

TURKEY = PRIVATE / "F00013167-WVS_Wave_7_Turkey_Csv_v5.0.csv"
FIGURES = PRIVATE / "binary_shares_by_country.csv"


def test_the_packaged_table_serves_until_a_survey_is_imported(cache: Path, tmp_path: Path) -> None:
    packaged = survey_truth("wvs")
    assert packaged.source == "packaged"
    assert packaged.profile.shape == (71, 65)
    assert f"71 of {len(ITEMS)} questions, 65 countries" in packaged.provenance
    assert "doi:10.14281/18241.20" in packaged.provenance
    assert survey_truth("wvs_arora").profile.equals(packaged.profile)
    with pytest.raises(ValueshiftError, match="weighted shares only"):
        survey_truth("wvs", weighted=False)

    imported = import_survey([write_csv(tmp_path / "a.csv", survey({"Q1": [1, 4], "Q43": [1, 2]}, weight=[3, 1]))])
    folder = write_survey(imported)
    assert folder == cache / "surveys" / "WVS-7"
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "shares.parquet"), imported.shares)
    truth = survey_truth("wvs")
    assert truth.source == "imported"
    assert truth.profile["TUR"].to_dict() == {"Q1": 0.75, "Q43": (3 + 0.5) / 4}
    for said in ("a.csv", "W_WEIGHT (1 countries)", "split", f"2 of {len(ITEMS)} questions, 1 countries"):
        assert said in truth.provenance
    plain = survey_truth("wvs", middle="drop", weighted=False)
    assert plain.profile["TUR"].to_dict() == {"Q1": 0.5, "Q43": 1.0}
    assert "dropped" in plain.provenance
    assert "none (1 countries)" in plain.provenance

    (folder / "import.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueshiftError, match="is damaged"):
        survey_truth("wvs")
    with pytest.raises(ValueshiftError, match="no survey truth for 'hofstede"):
        survey_truth("hofstede_arora")


def test_the_packaged_table_follows_the_registry() -> None:
    with (TASKS / "wvs" / "truth" / "shares.csv").open(encoding="utf-8") as stream:
        rows = {row.pop("question"): row for row in csv.DictReader(stream)}
    assert len({ITEMS[question].variable for question in rows}) == 68
    for question, row in rows.items():
        assert row.pop("rule") == rule(ITEMS[question]), question
        assert not ITEMS[question].middle_codes
        assert all(country in countries() for country in row)
        assert all(0 <= float(share) <= 1 for share in row.values() if share)
    assert sum(not share for row in rows.values() for share in row.values()) == 66
    for letter in ("Q106", "Q107", "Q108"):
        both = zip(rows[f"{letter}a"].values(), rows[f"{letter}b"].values(), strict=True)
        assert all(float(a) + float(b) == pytest.approx(1) for a, b in both)
    assert float(rows["Q164"]["EGY"]) > 0.99 > 0.2 > float(rows["Q164"]["CHN"])  # importance of God
    assert float(rows["Q57"]["NLD"]) > 0.5 > 0.1 > float(rows["Q57"]["GRC"])  # most people can be trusted


@needs(FIGURES)
def test_the_packaged_table_holds_the_figures(cache: Path) -> None:
    profile = survey_truth("wvs").profile
    with FIGURES.open(encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    compared = 0
    for row in rows:
        variable = row["notes"].partition("=")[2].partition(";")[0]
        question = variable if variable in profile.index else f"{variable}a"
        for column, figure in row.items():
            if column.startswith("target_"):
                packaged = profile.loc[question, country_code(column.removeprefix("target_")) or ""]
                assert np.isnan(packaged) if not figure else packaged == pytest.approx(float(figure), abs=6e-5)
                compared += 1
    assert compared == 68 * 65


@needs(TURKEY)
def test_the_turkish_file_agrees_with_the_packaged_table_to_three_decimals(cache: Path) -> None:
    imported = import_survey([TURKEY])
    summary = imported.summary().iloc[0]
    assert (summary["country"], summary["respondents"], summary["answered"]) == ("TUR", 2415, 248)
    assert summary["not_answered"].split() == ["Q192", "Q194", "Q237", "Q245"]
    status = imported.report.set_index("question")["status"]
    assert (status["Q192"], status["Q245"]) == ("all missing", "no column")

    packaged = survey_truth("wvs").profile["TUR"]
    write_survey(imported)
    official = survey_truth("wvs").profile["TUR"]
    assert len(official) == 269
    common = packaged.dropna().index.intersection(official.index)
    assert len(common) == 69
    assert (packaged[common] - official[common]).abs().max() < 1e-4
    # Nothing disagrees; what only one of the two has are the questions that the table does not cover, and the two
    # that Turkey did not ask are missing from both.
    assert set(packaged.index) - set(common) == {"Q192", "Q194"}
    assert not {"Q192", "Q194"} & set(official.index)
    assert survey_folder("WVS-7").is_relative_to(cache)
