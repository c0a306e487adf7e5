"""Survey files that are damaged, planted or absurd: one sentence with the file's name, in bounds, and nothing left behind."""

import json
import re
import tempfile
import zipfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from importers import zipped
from survey_files import survey, write_csv, write_dta, write_sav, write_xlsx
from valueshift.core import limits
from valueshift.core.errors import ValueshiftError
from valueshift.core.surveys import import_survey, survey_folder, survey_truth, write_survey

COLUMNS = survey({"Q1": [1, 2, 4, -1], "Q177": [1, 5, 10, -2]}, weight=[0.5, 1.5, 2.0, 1.0])


SHEET, STRINGS, KINDS = "xl/worksheets/sheet2.xml", "xl/sharedStrings.xml", "[Content_Types].xml"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def parts(path: Path) -> dict[str, bytes]:
    """The parts of an Excel file whose texts are shared between its cells, as Excel writes them."""
    with zipfile.ZipFile(write_xlsx(path, COLUMNS)) as workbook:
        files = {name: workbook.read(name) for name in workbook.namelist()}
    texts: list[str] = []

    def shared(cell: re.Match[str]) -> str:
        texts.append(cell[1])
        return f't="s"><v>{len(texts) - 1}</v>'

    files[SHEET] = re.sub(r't="inlineStr"><is><t>(.*?)</t></is>', shared, files[SHEET].decode()).encode()
    strings = "".join(f"<si><t>{text}</t></si>" for text in texts)
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"
    override = f'<Override PartName="/{STRINGS}" ContentType="{kind}"/></Types>'
    files[KINDS] = files[KINDS].replace(b"</Types>", override.encode())
    return files | {STRINGS: f'<?xml version="1.0"?><sst xmlns="{MAIN}">{strings}</sst>'.encode()}


def test_the_excel_file_that_is_damaged_here_is_sound(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(zipped(parts(tmp_path / "a.xlsx")))
    assert import_survey([tmp_path / "a.xlsx"]).shares["n"].sum() == 12


@pytest.mark.parametrize("part", [SHEET, STRINGS, "xl/workbook.xml", "[Content_Types].xml", "xl/styles.xml"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"><", b">&x;<", 2),
        lambda text: b"",
        lambda text: b"\xff\xfe" + text,
        lambda text: text.replace(b'"', b"'<", 3),
        lambda text: b"<a>" * 5000 + b"</a>" * 5000,
    ],
    ids=["cut", "entity", "empty", "another encoding", "quotes", "deep"],
)
def test_a_damaged_part_of_an_excel_file_is_one_sentence(
    tmp_path: Path, part: str, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.xlsx"
    files = parts(path)
    path.write_bytes(zipped(files | {part: change(files[part])}))
    try:
        import_survey([path])
    except ValueshiftError as error:
        assert path.name in str(error) and len(str(error)) < 600
        assert any(word in str(error) for word in ("download it again", "save it", "give the file", "correct"))
    else:
        assert part == "xl/styles.xml"  # which no number depends on


def far_row(sheet: bytes) -> bytes:
    return sheet.replace(b'<row r="5"', b'<row r="999999999"')


@pytest.mark.parametrize(
    ("bounds", "change", "said"),
    [
        ({}, far_row, "sheet Data has a row beyond 1,048,576"),
        ({"EXCEL_ROWS": 3}, bytes, "sheet2.xml: it has more than 3 rows"),
        ({"EXCEL_ROW_BYTES": 2000}, lambda sheet: sheet.replace(b"</row>", b"<c/>" * 2000 + b"</row>"), "2,000 bytes"),
        ({"UNPACKED_FREE": 9000}, lambda sheet: sheet + b" " * 3_000_000, "unpacks to more than"),
        ({"EXCEL_PART_BYTES": 100}, bytes, "bytes; save it as CSV"),
    ],
)
def test_an_excel_file_is_bounded(
    tmp_path: Path,
    bounds: dict[str, int],
    change: Callable[[bytes], bytes],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "a.xlsx"
    files = parts(path)
    path.write_bytes(zipped(files | {SHEET: change(files[SHEET])}))
    for name, value in bounds.items():
        monkeypatch.setattr(limits, name, value)
    with pytest.raises(ValueshiftError, match=rf"a\.xlsx.*{said}"):
        import_survey([path])


def test_dimensions_that_are_declared_too_large_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.xlsx"
    files = parts(path)
    path.write_bytes(zipped(files | {SHEET: re.sub(rb'(<dimension ref=")[^"]*', rb"\1A1:XFD1048576", files[SHEET])}))
    assert import_survey([path]).report["respondents"].max() == 4


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (["1e308"] * 4, "4 rows are larger than 1,000,000,000"),
        (["1", "2e9", "1", "1"], "1 rows are larger"),
        (["-1", "1", "1", "1"], "1 rows are negative"),
        (["inf", "-inf", "nan", "1"], "3 rows are empty or no number"),
        (["0", "0", "0", "0"], "4 rows of TUR weigh nothing"),
        (["0,0", "0.0", "0", "-0"], "4 rows of TUR weigh nothing"),
    ],
)
def test_weights_that_give_no_shares_are_refused(tmp_path: Path, weights: list[str], said: str) -> None:
    path = write_csv(tmp_path / "a.csv", COLUMNS | {"W_WEIGHT": weights})
    with pytest.raises(ValueshiftError, match=rf"a\.csv, column W_WEIGHT: .*{said}"):
        import_survey([path])
    assert import_survey([path], weighted=False).shares["share"].notna().all()


@pytest.mark.parametrize("value", [10**300, datetime(2020, 1, 1), True, "9" * 5000, "1e400", "x" * 40_000])
@pytest.mark.parametrize("column", ["W_WEIGHT", "Q1", "B_COUNTRY_ALPHA", "D_INTERVIEW"])
def test_a_cell_of_any_kind_is_read_or_named(tmp_path: Path, column: str, value: object) -> None:
    path = tmp_path / "a.xlsx"
    if isinstance(value, str) and len(value) > 32_000:
        path = write_csv(tmp_path / "a.csv", COLUMNS | {column: [value, *COLUMNS[column][1:]]})
    else:
        write_xlsx(path, COLUMNS | {column: [value, *COLUMNS[column][1:]]})
    try:
        import_survey([path])
    except ValueshiftError as error:
        assert f"{path.name}, column {column}" in str(error) and len(str(error)) < 1000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"B_COUNTRY;Q1\n792;1\n792;1;2\n", r"line 3: 3 fields, the header has 2"),
        (b'B_COUNTRY;Q1\n792;"1\n792;1\n', r"line 3: |cannot be read|hold"),
        (b"B_COUNTRY;Q1\n792;" + b"1" * 140_000 + b"\n", "field larger than field limit"),
        (b"B_COUNTRY;Q1\n792;" + b"1" * 300_000 + b"\n", "line 2 has more than 200,000 characters"),
        (b"B_COUNTRY;Q1" + b";X" * 20_000 + b"\n792;1\n", "has 20,002 columns"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "or one with a password"),
        ("B_COUNTRY;Q1\n792;1\n".encode("utf-16"), "is no WVS wave 7 file"),
    ],
)
def test_text_that_is_no_table_is_named(
    tmp_path: Path, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LINE_CHARACTERS", 200_000)
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueshiftError, match=rf"a\.csv.*({said})"):
        import_survey([tmp_path / "a.csv"])


@pytest.mark.parametrize("write", [write_csv, write_xlsx, write_sav, write_dta])
@pytest.mark.parametrize("sound", [True, False])
def test_a_zip_of_any_format_leaves_no_temporary_file(
    tmp_path: Path, write: Callable[..., Path], sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"a.{write.__name__.removeprefix('write_')}"
    content = write(tmp_path / name, COLUMNS).read_bytes()
    (tmp_path / "a.zip").write_bytes(zipped({name: content if sound else content[: len(content) // 3]}))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    if sound:
        assert import_survey([tmp_path / "a.zip"]).shares["n"].sum() > 0
    else:
        with pytest.raises(ValueshiftError, match=r"a\.zip"):
            import_survey([tmp_path / "a.zip"])
    assert not list((tmp_path / "temporary").iterdir())


DESCRIPTION = {"survey": "WVS-7", "created": "2026-01-01", "files": {"0": "a.csv"}, "notes": []}
SHARES = {"country": ["TUR"], "question": ["Q1"], "code": [1], "share": [1.0], "n": [4], "n_effective": [3.0]}
SHARES |= {"weight": ["none"]}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[" * 10_000,
        b"null",
        b"[]",
        b"\xff",
        json.dumps(DESCRIPTION | {"files": 1}).encode(),
        json.dumps(DESCRIPTION | {"files": ["a"]}).encode(),
        b'{"survey": "\\ud800", "created": "", "files": {}}',
        b"{}",
    ],
)
def test_an_imported_survey_whose_description_was_damaged_is_named(cache: Path, tmp_path: Path, damage: bytes) -> None:
    folder = write_survey(import_survey([write_csv(tmp_path / "a.csv", COLUMNS)]))
    (folder / "import.json").write_bytes(damage)
    with pytest.raises(ValueshiftError, match=r"import\.json.*run `valueshift survey import` again"):
        survey_truth("wvs")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"share": [float("inf")]}, "share: one is not between 0 and 1"),
        ({"share": [-1.0]}, "share: one is not between 0 and 1"),
        ({"share": ["x"]}, "column share holds .*string, not number"),
        ({"code": [None]}, "column code|is missing"),
        ({"question": [["Q1"]]}, "column question holds list"),
        ({"country": None}, "has no column country"),
    ],
)
def test_imported_shares_that_were_damaged_are_named(
    cache: Path, changed: dict[str, list[object] | None], said: str
) -> None:
    folder = survey_folder("WVS-7")
    folder.mkdir(parents=True)
    (folder / "import.json").write_text(json.dumps(DESCRIPTION))
    columns = {name: values for name, values in (SHARES | changed).items() if values is not None}
    pd.DataFrame(columns).to_parquet(folder / "shares.parquet")
    with pytest.raises(ValueshiftError, match=rf"shares\.parquet.*({said}).*run `valueshift survey import` again"):
        survey_truth("wvs")
    pd.DataFrame(SHARES).to_parquet(folder / "shares.parquet")
    assert survey_truth("wvs").profile["TUR"].to_dict() == {"Q1": 1.0}
