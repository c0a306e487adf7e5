"""Facts about survey files, their import, the collapse to two poles and the packaged table."""

import csv
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyreadstat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.core.probes import Item, read_items
from valueshift.core.surveys import collapse, import_survey, survey_truth, tables, write_survey
from valueshift.core.surveys.countries import countries, country_code
from valueshift.core.surveys.importer import SHARES_COLUMNS, registry_codes
from valueshift.core.surveys.labels import Labels, normalised, number
from valueshift.core.surveys.truth import rule, survey_folder

ITEMS = read_items(TASKS / "wvs" / "items.csv")
LABELS = Labels(TASKS / "wvs" / "truth" / "labels.csv")
PRIVATE = Path(os.environ.get("VALUESHIFT_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data") / "wvs7"
TURKEY = PRIVATE / "F00013167-WVS_Wave_7_Turkey_Csv_v5.0.csv"
FIGURES = PRIVATE / "binary_shares_by_country.csv"
CODEBOOK = PRIVATE / "codebook_v5.json"

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


def p_first(path: Path, question: str, **options: object) -> float:
    table = collapse(import_survey([path]).shares, ITEMS, **options)  # type: ignore[arg-type]
    return float(table.set_index("question")["p_first"][question])


# --- the code traps -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "answers", "split", "drop"),
    [
        ("Q94", [0, 0, 0, 1, 2, 2, 2], 3 / 4, 3 / 4),  # 0 is not a member: excluded; 2 active, 1 inactive
        ("Q122", [0, 1, 1, 2, 2, 2], 4 / 6, 3 / 4),  # 2 agree, 0 disagree, 1 hard to say
        ("Q119", [0, 0, 1, 2, 3, 3, 4], 3 / 7, 2 / 5),  # 0 hard to say is the middle, not the low end
        ("Q56", [1, 1, 2, 3, 3], 3 / 5, 2 / 3),  # 3 is the same
        ("Q42", [1, 2, 2, 3, 3, 3], 1 / 3, 1 / 3),  # 3 fits neither pole
        ("Q221", [1, 2, 3, 3, 4, 4], 1.5 / 4, 1 / 3),  # 4 is not allowed to vote
        ("Q254", [1, 2, 3, 5, 5], 2 / 3, 2 / 3),  # 5 is no national
        ("Q241", [0, 0, 1, 6, 10], 2 / 5, 2 / 5),  # the extra 0 stands with the low codes
        ("Q106a", [1, 5, 6, 10, 10], 3 / 5, 3 / 5),
        ("Q106b", [1, 5, 6, 10, 10], 2 / 5, 2 / 5),
        ("Q130c", [1, 2, 3, 3, 4], 2 / 5, 2 / 5),
        ("Q176", [1, 2, 10], 2 / 3, 2 / 3),  # low codes agree here
        ("Q158", [1, 2, 10], 1 / 3, 1 / 3),  # and disagree here
    ],
)
def test_code_traps(tmp_path: Path, question: str, answers: list[int], split: float, drop: float) -> None:
    missing = [-1, -2, -4, -5, ""]
    path = write_csv(tmp_path / "a.csv", survey({ITEMS[question].variable: [*answers, *missing]}))
    assert p_first(path, question, middle="split") == pytest.approx(split)
    assert p_first(path, question, middle="drop") == pytest.approx(drop)


def test_the_denominator_is_counted(tmp_path: Path) -> None:
    imported = import_survey([write_csv(tmp_path / "a.csv", survey({"Q122": [0, 1, 1, 2, -1, -5, ""]}))])
    row = imported.report.set_index("question").loc["Q122"]
    assert (row["respondents"], row["valid"], row["missing"], row["status"]) == (7, 4, 3, "answered")
    assert collapse(imported.shares, ITEMS, middle="split")["n"].tolist() == [4]
    assert collapse(imported.shares, ITEMS, middle="drop")["n"].tolist() == [2]


# --- formats --------------------------------------------------------------------------------------------------------

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


@needs(CODEBOOK)
def test_every_label_of_the_codebook_is_known() -> None:
    codebook = json.loads(CODEBOOK.read_text(encoding="utf-8"))
    wrong = [
        (variable, code, label)
        for variable in registry_codes(ITEMS)
        for code, label in codebook[variable]["choices"].items()
        if LABELS.code(variable, label) != int(code)
    ]
    assert wrong == []


def test_labels_name_only_codes_of_the_registry() -> None:
    codes = registry_codes(ITEMS)
    with (TASKS / "wvs" / "truth" / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 200
    for variable, known in codes.items():
        own = {code for _, code in LABELS._patterns.get(variable, [])}
        assert own, f"{variable} has no labels"
        assert own <= known, variable
    # scales of five codes and fewer have a label for each
    assert all({code for _, code in LABELS._patterns[v]} == known for v, known in codes.items() if len(known) <= 8)


@given(st.integers(-99, 99))
def test_codes_are_read_however_they_are_written(code: int) -> None:
    assert {LABELS.code("Q1", text) for text in (str(code), f" {code} ", f"{code}.0", f"{code},0")} == {code}


@given(st.text())
def test_any_text_is_a_code_or_none(text: str) -> None:
    assert LABELS.code("Q43", text) is None or isinstance(LABELS.code("Q43", text), int)
    assert normalised(normalised(text)) == normalised(text)
    assert number("nan") is number("1.2.3") is number("1e") is None


def test_dont_mind_is_an_answer_and_dont_know_is_not() -> None:
    assert (LABELS.code("Q43", "Don't mind"), LABELS.code("Q43", "Don’t know")) == (2, -1)


# --- weights --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2, 3, 4]), st.floats(0.01, 20)), min_size=1, max_size=40),
    middle=st.sampled_from(["split", "drop"]),
)
def test_shares_and_kish_sizes_agree_with_direct_computation(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]], middle: str
) -> None:
    codes, weights = np.array([code for code, _ in rows]), np.array([weight for _, weight in rows])
    parts = {1: 1.0, 2: 1.0, 3: 0.0, 4: 0.0} | ({0: 0.5} if middle == "split" else {})  # Q119
    used = np.isin(codes, list(parts))
    path = tmp_path_factory.mktemp("kish") / "a.csv"
    write_csv(path, survey({"Q119": codes.tolist(), "Q1": [1] * len(rows)}, weight=weights.tolist()))
    shares = import_survey([path]).shares
    for weighted, mass in ((True, weights), (False, np.ones(len(rows)))):
        table = collapse(shares, ITEMS, middle=middle, weighted=weighted).set_index("question")  # type: ignore[arg-type]
        assert set(table["weight"]) == {"W_WEIGHT" if weighted else "none"}
        assert set(table["middle"]) == {middle}
        if not used.any():
            assert "Q119" not in table.index
            continue
        row, own = table.loc["Q119"], mass[used]
        assert row["p_first"] == pytest.approx(sum(own * [parts[code] for code in codes[used]]) / own.sum())
        assert row["n"] == used.sum()
        assert row["n_effective"] == pytest.approx(own.sum() ** 2 / (own**2).sum())


def test_no_weights_are_said(tmp_path: Path) -> None:
    imported = import_survey([write_csv(tmp_path / "a.csv", survey({"Q1": [1, 1, 4]}))])
    assert any("a.csv has no column W_WEIGHT: its shares are unweighted" in note for note in imported.notes)
    assert set(imported.shares["weight"]) == {"none"} == set(imported.summary()["weight"])
    assert collapse(imported.shares, ITEMS, weighted=True)["weight"].tolist() == ["none"]


@pytest.mark.parametrize("write", [write_csv, lambda path, columns: write_xlsx(path.with_suffix(".xlsx"), columns)])
def test_weights_that_are_text_are_read_and_said(tmp_path: Path, write: Callable[[Path, Columns], Path]) -> None:
    path = write(tmp_path / "a.csv", survey({"Q1": [1, 4, 4]}, weight=["1,5", "0,5", "No weighting"]))
    imported = import_survey([path])
    assert any("column W_WEIGHT: 3 weights are text" in note for note in imported.notes)
    assert collapse(imported.shares, ITEMS)["p_first"].tolist() == [0.5]


def test_weights_can_be_left_out(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", survey({"Q1": [1, 4, 4]}, weight=[-5, -5, -5]))
    assert set(import_survey([path], weighted=False).shares["weight"]) == {"none"}


def test_a_file_without_respondent_ids_is_read_and_it_is_said(tmp_path: Path) -> None:
    columns = {"B_COUNTRY": ["792", "792"], "Q1": ["1", "4"]}
    imported = import_survey([write_csv(tmp_path / "a.csv", columns)])
    assert any("no column D_INTERVIEW: repeated respondents could not be looked for" in note for note in imported.notes)
    assert collapse(imported.shares, ITEMS)["p_first"].tolist() == [0.5]


def test_a_weight_of_zero_counts_nobody(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", survey({"Q1": [1, 4, 4]}, weight=[0, 2, 2]))
    table = collapse(import_survey([path]).shares, ITEMS)
    assert (table["p_first"][0], table["n_effective"][0]) == (0.0, 2.0)


# --- bad input ------------------------------------------------------------------------------------------------------

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
        ("a.zip", b"PK not an archive", "a.zip cannot be read"),
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


# --- the collapse ---------------------------------------------------------------------------------------------------


def test_a_researcher_can_change_the_rules(tmp_path: Path) -> None:
    shares = import_survey([write_csv(tmp_path / "a.csv", survey({"Q43": [1, 2, 2, 3]}))]).shares

    def with_rules(**codes: tuple[int, ...]) -> dict[str, Item]:
        return {"Q43": ITEMS["Q43"].model_copy(update=codes)}

    kept = with_rules(first_codes=(1, 2), second_codes=(3,), middle_codes=())
    assert collapse(shares, kept)["p_first"].tolist() == [0.75]
    out = with_rules(middle_codes=(), excluded_codes=(2,))
    assert collapse(shares, out)[["p_first", "n"]].to_numpy().tolist() == [[0.5, 2]]
    with pytest.raises(ValueshiftError, match="question Q43 do not place code 2"):
        collapse(shares, with_rules(middle_codes=()))


def test_shares_of_a_question_add_up_to_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = survey({"Q177": rng.integers(-2, 11, 200).clip(1).tolist()}, weight=rng.random(200).tolist())
    shares = import_survey([write_csv(tmp_path / "a.csv", columns)]).shares
    assert shares.groupby("weight")["share"].sum().tolist() == pytest.approx([1, 1])


# --- countries ------------------------------------------------------------------------------------------------------


def test_countries_are_known_by_every_code_and_name() -> None:
    assert len(countries()) == 249
    assert len({country.alpha2 for country in countries().values()}) == 249
    assert len({country.numeric for country in countries().values()}) == 249
    for country in countries().values():
        for text in (
            country.alpha3,
            country.alpha2,
            str(country.numeric),
            f"{country.numeric:03}",
            country.name.upper(),
        ):
            assert country_code(text) == country.alpha3
    assert [country_code(text) for text in ("909", "Great Britain", "Hong Kong SAR", "Viet Nam", "MOR", "826")] == [
        "NIR",
        "GBR",
        "HKG",
        "VNM",
        "MAR",
        "GBR",
    ]
    assert country_code("Atlantis") is country_code("") is country_code("0") is None


@needs(CODEBOOK)
def test_the_codebook_names_each_country_alike() -> None:
    codebook = json.loads(CODEBOOK.read_text(encoding="utf-8"))
    for variable in ("B_COUNTRY", "B_COUNTRY_ALPHA"):
        for code, name in codebook[variable]["choices"].items():
            assert country_code(code) == country_code(name) is not None, (code, name)


# --- survey truth ---------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


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
