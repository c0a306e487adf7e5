"""The report as a reader gets it: one page that needs no network, whose every number is that of the files and the record."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from valueshift.core.errors import ValueshiftError
from valueshift.core.languages import LANGUAGES
from valueshift.core.records import find_records, read_record, read_table
from valueshift.tracking.publish import publish
from valueshift.tracking.report.arms import Study
from valueshift.tracking.report.exhibit import Exhibit
from valueshift.tracking.report.exhibits import exhibits
from valueshift.tracking.report.figures import FIGURES, figures
from valueshift.tracking.report.latex import escaped
from valueshift.tracking.report.page import ROWS, Drawing, Run, page
from valueshift.tracking.report.published import published
from valueshift.tracking.report.study import collect
from valueshift.tracking.report.style import save, styled
from valueshift.tracking.report.tables import write_tables
from valueshift.tracking.report.write import write_report

pytestmark = pytest.mark.xdist_group("report_page")  # what its tests share takes long to make

VOID = {"meta", "link", "br", "hr", "img", "input"}


HOSTILE = '<script>alert("x")</script>&$x_1$%#\\{}'


@pytest.fixture(scope="module")
def simulate() -> Callable[..., Path]:
    """The example that writes a simulated study."""
    path = Path(__file__).parents[1] / "docs" / "examples" / "simulated_study.py"
    spec = importlib.util.spec_from_file_location("simulated_study", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[..., Path] = module.simulate
    return found


@pytest.fixture(scope="module")
def runs(simulate: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run records: two pretrained models, one of them tuned on two languages, and a placebo."""
    root = tmp_path_factory.mktemp("report") / "runs"
    return simulate(root, languages=("de", "fa"), tunings=("fa", "ko"), sources=("pbc",), seeds=(0,), placebos=1)


@dataclass(frozen=True)
class Written:
    folder: Path
    runs: Path
    said: str

    @property
    def text(self) -> str:
        return (self.folder / "index.html").read_text(encoding="utf-8")

    @property
    def record(self) -> Path:
        (found,) = find_records(self.runs, "report")
        return found


@pytest.fixture(scope="module")
def written(runs: Path) -> Written:
    """The report of the runs, by the command as installed."""
    command = [str(Path(sys.executable).with_name("valueshift")), "report", str(runs), "--output", "report"]
    done = subprocess.run(
        [*command, "--runs", str(runs)], cwd=runs.parent, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return Written(runs.parent / "report", runs, done.stdout)


class Page(HTMLParser):
    """Tags, attributes and the cells of tables; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.words = ""
        self._exhibit = ""
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section" and ("class", "exhibit") in attrs:
            self._exhibit = dict(attrs)["aria-labelledby"] or ""
        if tag == "table":
            self.tables[self._exhibit] = []
        if tag == "tr":
            self.tables[self._exhibit].append([])
        if tag in ("td", "th"):
            self.tables[self._exhibit][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[self._exhibit][-1][-1] += data
        if "style" not in self.open:
            self.words += data

    def values(self, name: str) -> list[str]:
        return [value for _, found, value in self.attributes if found == name]


def test_the_command_says_where_the_report_is_and_what_next(written: Written) -> None:
    assert "Report: report/index.html" in written.said
    assert f"Record: {written.record}" in written.said
    runs = shlex.quote(str(written.runs))
    assert f"Next: open it in a browser, or see the runs: valueshift ui --output {runs}" in written.said


def test_one_page_that_needs_no_network(written: Written) -> None:
    assert len(written.text.encode()) < 5_000_000
    parsed = Page(written.text)
    loading = [
        (tag, name, value) for tag, name, value in parsed.attributes if name in ("src", "data", "poster", "srcset")
    ]
    assert not loading
    assert not {tag for tag, _, _ in parsed.attributes} & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"@import|url\((?!#)", written.text)
    assert {tag for tag, name, value in parsed.attributes if "href" in name and "://" in value} <= {"a"}
    assert ("meta", "content", "width=device-width, initial-scale=1") in parsed.attributes
    assert "@media (prefers-color-scheme: dark)" in written.text


def test_ids_are_unique_and_every_link_leads_somewhere(written: Written) -> None:
    parsed = Page(written.text)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    inside = {value[1:] for name in ("href", "xlink:href") for value in parsed.values(name) if value.startswith("#")}
    assert inside <= set(ids)
    files = {value for value in parsed.values("href") if not value.startswith(("#", "http"))}
    assert files == {
        str(path.relative_to(written.folder)) for path in written.folder.rglob("*.*") if path.name != "index.html"
    }


def test_numbers_are_the_same_in_page_files_and_record(written: Written) -> None:
    tables = Page(written.text).tables
    listed = read_table(written.record, "exhibits").set_index("name")
    assert set(tables) == set(listed.index[listed["rows"] > 0])
    for name, (_, *rows) in tables.items():
        csv = pd.read_csv(written.folder / "tables" / f"{name}.csv")
        parquet = pd.read_parquet(written.folder / "tables" / f"{name}.parquet")
        pd.testing.assert_frame_equal(parquet, read_table(written.record, name))
        for column in parquet.select_dtypes("number"):
            np.testing.assert_allclose(csv[column].astype(float), parquet[column].astype("float64"), rtol=1e-9)
        assert len(csv) == len(parquet) == listed["rows"][name] == (len(rows) if len(rows) < ROWS else len(parquet))
        for row, cells in zip(csv.to_dict("records"), rows, strict=False):
            numbers = [
                float(text.replace("−", "-"))
                for cell in cells
                for text in re.findall(r"(?<![\w<.−-])[−]?\d+\.\d{3}\b", cell)
            ]
            ours = np.array([value for value in row.values() if isinstance(value, (int, float)) and np.isfinite(value)])
            assert all(np.abs(ours - number).min() <= 0.0005001 for number in numbers), (name, cells)


def test_every_row_leads_to_its_run(written: Written) -> None:
    parsed = Page(written.text)
    table = read_table(written.record, "unchanged")
    assert {f"#{name}" for name in table["run"]} <= set(parsed.values("href"))
    names = {record.name for folder in find_records(written.runs) if (record := read_record(folder)).kind != "report"}
    assert names <= set(parsed.values("id"))
    assert all(record.partition("-")[2] in parsed.words for record in names)
    assert set(read_record(written.record).inputs["runs"]) == names


def test_the_report_has_a_record_of_its_own(written: Written) -> None:
    record, listed = read_record(written.record), read_table(written.record, "exhibits")
    assert Path(str(record.settings["report"])) == written.folder.resolve()
    assert record.metrics == {
        "exhibits": float((listed["rows"] > 0).sum()),
        "missing": float((listed["rows"] == 0).sum()),
    }
    assert list(listed.columns) == ["name", "title", "paper", "rows", "missing"]


def test_what_cannot_be_made_is_listed_with_its_reason(written: Written) -> None:
    listed = read_table(written.record, "exhibits")
    words = Page(written.text).words
    lacking = listed[listed["rows"] == 0]
    assert {"ceiling", "planted"} <= set(lacking["name"])
    assert lacking["missing"].ne("").all()
    for reason in lacking["missing"]:
        assert reason.replace("`", "") in words


def test_names_of_languages_are_native_and_right_to_left_in_the_page_only(written: Written) -> None:
    assert '<bdi lang="fa" dir="rtl">فارسی</bdi>' in written.text
    assert '<bdi lang="ko">한국어</bdi>' in written.text
    native = {language.native for language in LANGUAGES.values() if language.native != language.english}
    for file in (written.folder / "figures").glob("*.svg"):
        text = file.read_text(encoding="utf-8")
        assert not any(name in text for name in native)


def test_a_report_replaces_a_report_and_nothing_else(runs: Path, written: Written, tmp_path: Path) -> None:
    for content in ("notes.txt", "index.html"):
        folder = tmp_path / content
        folder.mkdir()
        (folder / content).write_text("mine")
        with pytest.raises(ValueshiftError, match="holds something else than a report"):
            write_report([runs], folder, root=runs)
        assert (folder / content).read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueshiftError, match="holds something else"):
        write_report([runs], tmp_path / "file", root=runs)


def test_an_older_report_is_replaced_whole(runs: Path, written: Written, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    shutil.copytree(written.folder, folder)
    one = find_records(runs, "probe")[0]
    record = write_report([one], folder, root=tmp_path)
    assert {path.name for path in folder.iterdir()} == {"index.html", "figures", "tables"}
    listed = read_table(record, "exhibits").set_index("name")["rows"]
    assert listed["unchanged"] == 0 < listed["alignment"]
    assert {path.stem for path in (folder / "tables").iterdir()} == set(listed.index[listed > 0])
    assert read_record(record).inputs["runs"] == [one.name]
    assert "1 pretrained model, 2 test languages; from 1 run record." in Page((folder / "index.html").read_text()).words


@pytest.fixture(scope="module")
def simulated(runs: Path) -> Study:
    return collect([runs])


@pytest.fixture(scope="module")
def shown(simulated: Study) -> list[Exhibit]:
    return exhibits(simulated)


def test_every_exhibit_with_values_is_drawn_but_the_list_of_questions(shown: list[Exhibit], written: Written) -> None:
    drawn = {path.stem for path in (written.folder / "figures").glob("*.svg")}
    first = {name for name in drawn if "_page" not in name}
    assert {path.stem for path in (written.folder / "figures").glob("*.png")} == first
    valued = {"unchanged": "unchanged", "alignment": "spearman", "direction": "x", "placebo": "unchanged"}
    valued |= {"language_share": "share", "parallel_overlap": "overlap", "cross_test_overlap": "overlap"}
    for exhibit in shown:
        if exhibit.name in valued:
            assert (exhibit.name in drawn) == exhibit.table[valued[exhibit.name]].notna().any()
    assert len(drawn & set(valued)) >= 6
    assert set(FIGURES) | {"influence"} >= {one.name for one in shown}


def test_hostile_names_stay_text(simulated: Study, shown: list[Exhibit], tmp_path: Path, runs: Path) -> None:
    exhibit = next(one for one in shown if one.name == "unchanged")
    table = exhibit.table.assign(tuning=HOSTILE, source=[HOSTILE, *["pbc"] * (len(exhibit.table) - 1)])
    hostile = replace(exhibit, table=table, title=HOSTILE, caption=HOSTILE, missing=HOSTILE)
    record = read_record(find_records(runs, "probe")[0])
    named = record.model_copy(update={"settings": {"model": HOSTILE}, "notes": (HOSTILE,)})
    with styled():
        drawings = {
            "unchanged": [Drawing(save(first, tmp_path, "x"), 1 + len(more)) for first, *more in figures(hostile)]
        }
    absent = Exhibit("absent", HOSTILE, HOSTILE, pd.DataFrame(), missing=HOSTILE)
    text = page(replace(simulated, notes=(HOSTILE,)), [hostile, absent], drawings, [Run(Path(HOSTILE), named)], HOSTILE)
    parsed = Page(text)
    assert "script" not in {tag for tag, _, _ in parsed.attributes}
    assert "<script" not in text
    assert parsed.words.count(HOSTILE) >= 9
    write_tables(table, tmp_path, "unchanged")
    assert pd.read_csv(tmp_path / "unchanged.csv")["source"].iloc[0] == HOSTILE
    assert escaped(HOSTILE) in (tmp_path / "unchanged.tex").read_text(encoding="utf-8")


def test_published_runs_are_known_by_their_mlflow_id(runs: Path, tmp_path: Path) -> None:
    folders = find_records(runs, "probe")[:2]
    found = [Run(folder, read_record(folder)) for folder in folders]
    assert published(found, tmp_path) == found
    assert not list(tmp_path.iterdir())
    sent = publish(folders[0], tmp_path)
    first, second = published(found, tmp_path)
    assert (first.run_id, first.href, second.run_id) == (sent.run_id, "", "")
