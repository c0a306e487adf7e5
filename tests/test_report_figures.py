"""The report's figures: equal tables are equal bytes, series and panels are told apart, and a page of hundreds stays small."""

import io
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from valueshift.core.languages import LANGUAGES
from valueshift.core.records import find_records, read_record
from valueshift.tracking.report import marks
from valueshift.tracking.report.arms import Study
from valueshift.tracking.report.exhibit import Exhibit
from valueshift.tracking.report.figures import figures
from valueshift.tracking.report.marks import pages as pages_of
from valueshift.tracking.report.page import Drawing, Run, inlined, page
from valueshift.tracking.report.style import COLOURS, MARKERS, PNG_DPI, panels, save, styled
from valueshift.tracking.report.write import _write_files

pytestmark = pytest.mark.xdist_group("report")  # what its tests share takes long to make


def test_figures_are_equal_bytes_for_equal_tables(made: dict[str, Exhibit], tmp_path: Path) -> None:
    exhibit = made["unchanged"]
    with styled():
        texts = [save(figure, tmp_path, f"{turn}") for turn in (1, 2) for (figure,) in figures(exhibit)]
    assert texts[0] == texts[1]
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert "<dc:date>" not in texts[0]
    assert (tmp_path / "1.svg").read_text(encoding="utf-8") == texts[0]


def arm(place: int = 0) -> dict[str, object]:
    """What names a run."""
    return {
        "model": "small",
        "source": ("pbc", "tanzil")[place % 2],
        "tuning": ("fa", "ko", "hi")[place % 3],
        "size": 2000,
        "training": "5 epochs, lr 5e-05",
        "seed": place // 6,
        "placebo": False,
        "run": f"probe-{place:016d}",
    }


def estimates(name: str, value: float) -> dict[str, float]:
    return {name: value, "low": value - 0.1, "high": value + 0.1}


CEILING = [
    arm() | {"stage": "fine-tuned", "language": language, "ceiling": 0.9, "ceiling_low": 0.8, "ceiling_high": 0.95}
    for language in ("de", "fa")
]
PLANTED = [arm() | {"language": code, "plant": "moved"} | estimates("change", 0.3) for code in ("de", "fa")]


@pytest.mark.parametrize(("name", "value", "rows"), [("ceiling", 0.9, CEILING), ("planted", 0.3, PLANTED)])
def test_exhibits_of_other_studies_are_drawn(name: str, value: float, rows: list[dict[str, object]]) -> None:
    with styled():
        ((figure,),) = figures(Exhibit(name, "A title", "ours", pd.DataFrame(rows)))
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["de", "fa"]
    assert list(axis.get_lines()[-1].get_xdata()) == [value, value]


def svg(figure: Figure) -> str:
    stream = io.StringIO()
    with styled():
        figure.savefig(stream, format="svg")
    return stream.getvalue()


def test_a_table_without_values_has_no_figure() -> None:
    rows = [arm() | {"language": "de", "unchanged": np.nan, "low": np.nan, "high": np.nan}]
    with styled():
        assert not list(figures(Exhibit("unchanged", "", "", pd.DataFrame(rows))))
        assert not list(figures(Exhibit("unchanged", "", "", pd.DataFrame())))


def test_series_differ_in_marker_and_colour_and_seeds_do_not() -> None:
    rows = [
        arm(place) | {"source": "pbc", "language": "de"} | estimates("unchanged", 0.5 + place / 100)
        for place in range(12)
    ]
    with styled():
        ((figure,),) = figures(Exhibit("unchanged", "", "", pd.DataFrame(rows)))
    (axis,) = figure.axes
    dots = [line for line in axis.get_lines() if line.get_marker() != "None" and len(line.get_xdata())]
    assert [(line.get_color(), line.get_marker()) for line in dots] == list(zip(COLOURS[:3], MARKERS[:3], strict=True))
    assert [len(line.get_xdata()) for line in dots] == [4, 4, 4]
    assert sorted(value for line in dots for value in line.get_xdata()) == pytest.approx(
        [0.5 + place / 100 for place in range(12)]
    )


def test_many_panels_are_drawn_in_pages_that_say_which_they_are(study: Study) -> None:
    rows = [
        arm(place) | {"source": f"corpus{place}", "language": "de"} | estimates("unchanged", 0.5) for place in range(32)
    ]
    exhibit = Exhibit("unchanged", "", "", pd.DataFrame(rows))
    with styled():
        pages = [page for drawing in figures(exhibit) for page in drawing]
    assert [len(figure.axes) for figure in pages] == [6, 6, 6]
    titles = [axis.get_title(loc="left") for figure in pages for axis in figure.axes]
    assert titles == [f"corpus{place}" for place in range(18)]
    assert "panels 7 to 12 of 32)" in svg(pages[1])
    assert "panels 13 to 18 of 32; the others are in the table)" in svg(pages[2])
    text = page(study, [exhibit], {"unchanged": [Drawing(svg(pages[0]), 3)]}, [], "valueshift report")
    assert 'href="figures/unchanged_page3.svg"' in text and "panels 7 to 12" not in text


def test_further_pages_are_vector_graphics_alone(study: Study, tmp_path: Path) -> None:
    rows = [arm() | {"source": f"corpus{n}", "language": "de"} | estimates("unchanged", 0.5) for n in range(7)]
    exhibit = Exhibit("unchanged", "", "", pd.DataFrame(rows))
    drawings = _write_files([exhibit], tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {
        "unchanged.svg",
        "unchanged.png",
        "unchanged_page2.svg",
    }
    linked = re.findall(r'href="(figures/[^"]*)"[^>]*>([^<]*)<', page(study, [exhibit], drawings, [], ""))
    assert linked == [
        ("figures/unchanged.svg", "SVG"),
        ("figures/unchanged.png", "PNG"),
        ("figures/unchanged_page2.svg", "SVG, page 2"),
    ]


def test_a_drawing_of_very_many_panels_ends_and_says_that_the_others_are_in_the_table() -> None:
    *_, (last, note) = pages_of(pd.Series([f"corpus{place}" for place in range(400)]))
    assert last[-1] == "corpus17"
    assert note == " (panels 13 to 18 of 400; the others are in the table)"


def test_a_page_is_made_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Sequence[str]] = []
    monkeypatch.setattr(marks, "panels", lambda titles, *rest: made.append(titles) or panels(titles, *rest))
    rows = [arm() | {"source": f"corpus{n}", "language": "de"} | estimates("unchanged", 0.5) for n in range(13)]
    with styled():
        (pages,) = figures(Exhibit("unchanged", "", "", pd.DataFrame(rows)))
        assert (next(pages), len(made))[1] == 1
        assert [len(made) for _ in pages] == [2, 3]


def test_heat_maps_print_what_the_table_says() -> None:
    rows = [
        {**arm(), "stage": "fine-tuned", "language": code, "country": country, "spearman": value, "adjusted": p}
        for code, country, value, p in (
            ("de", "DEU", 0.456, 0.01),
            ("de", "IRN", -0.004, 0.9),
            ("fa", "DEU", -0.31, 0.2),
        )
    ]
    with styled():
        ((figure,),) = figures(Exhibit("alignment", "", "", pd.DataFrame(rows)))
    found = {
        text: (float(x), float(y))
        for x, y, text in re.findall(r'text-anchor: middle[^>]* x="(.*?)" y="(.*?)"[^>]*>([^<]*)<', svg(figure))
    }
    assert [text for text in found if text.lstrip("−").startswith(".")] == [".46*", ".00", "−.31"]
    for text, row, column in ((".46*", ".00", "DEU"), (".00", ".46*", "IRN"), ("−.31", "−.31", "DEU")):
        assert found[text] == (pytest.approx(found[column][0]), found[row][1]), (
            "in the middle of its column, on its line"
        )
    assert found[".46*"][1] < found["−.31"][1]


def test_nothing_is_cut_off_and_nothing_overlaps(tmp_path: Path) -> None:
    """Long labels, and titles of one and of three lines."""
    words = " ".join(["corpus"] * 17)
    rows = [
        arm() | {"source": source, "category_name": name} | estimates("unchanged", 0.5)
        for source in (words, "short", "$dollar$")
        for name in ("a long line label label 2", "another", words)
    ]
    with styled():
        ((figure,),) = figures(Exhibit("unchanged_category", "", "", pd.DataFrame(rows)))
        save(figure, tmp_path, "x")
        figure.set_dpi(PNG_DPI)
        boxes = [axis.get_tightbbox() for axis in figure.axes]
    assert [axis.get_title(loc="left").count("\n") for axis in figure.axes] == [2, 0, 0]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert all(box.y0 >= 0 and box.y1 <= figure.bbox.height for box in boxes)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_inlined_figures_share_no_ids() -> None:
    drawn = '<!-- .825 --><g id="a"/><text x="1.23456" transform="rotate(-0 1 1)">0.825 id="#1B1B1D"</text>'
    drawn += '<use xlink:href="#a" fill="url(#a)" style="fill: #1b1b1d"/></svg>'
    svg = f'<?xml?><svg width="504pt" height="1pt" viewBox="0 0 504 1">{drawn}'
    text = str(inlined(svg, "one", 'A "title"'))
    assert text.count('id="one-a"') == text.count('"#one-a"') == text.count("url(#one-a)") == 1
    assert 'aria-label="A &#34;title&#34;"' in text
    assert '<text x="1.23">0.825 id="#1B1B1D"</text>' in text
    assert "currentColor" in text
    assert "--width: 672px" in text


@pytest.mark.slow
def test_the_page_of_hundreds_of_runs_stays_small(study: Study, study_runs: Path, tmp_path: Path) -> None:
    """Tables and figures of 200 runs in 13 languages and countries, and the records of both sides of each."""
    generator = np.random.default_rng(0)
    arms = pd.DataFrame([arm(place) | {"stage": "fine-tuned", "source": f"corpus{place}"} for place in range(200)])
    codes = pd.DataFrame({"language": list(LANGUAGES)[:13]})
    pairs = codes.merge(
        pd.DataFrame({"country": [language.country for language in LANGUAGES.values()][:13]}), how="cross"
    )
    cells = arms.merge(pairs, how="cross")
    one = cells[cells["country"] == "DEU"]

    def filled(table: pd.DataFrame, value: str) -> pd.DataFrame:
        numbers = {
            name: generator.uniform(-1, 1, len(table))
            for name in (value, "low", "high", "plain_low", "plain_high", "p")
        }
        return table.assign(**numbers, adjusted=0.01, n=238, dropped=0, reason="")

    wide = {name: filled(cells, value) for name, value in (("alignment", "spearman"), ("alignment_change", "change"))}
    narrow = {name: filled(one, "unchanged") for name in ("unchanged", *(f"other{place}" for place in range(20)))}
    many = [Exhibit(name, name, "ours", table) for name, table in (wide | narrow).items()]
    with styled():
        drawings = {
            one.name: [Drawing(save(first, tmp_path, one.name), 1 + len(more)) for first, *more in figures(one)]
            for one in many
        }
    drawings |= {f"other{place}": drawings["unchanged"] for place in range(20)}
    record = read_record(find_records(study_runs, "probe")[0])
    records_of = [Run(study_runs, record.model_copy(update={"digest": f"{place:016x}"})) for place in range(400)]
    assert len(page(study, many, drawings, records_of, "valueshift report").encode()) < 5_000_000
