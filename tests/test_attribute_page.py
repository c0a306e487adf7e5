"""The page of an attribution: every sentence and ranking is in it, whatever the text says, and the record holds no text."""

import json
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.attribution.attributing import Attributing, attribute, page_folder
from valueshift.attribution.page import in_script, write_page
from valueshift.attribution.scoring import Method
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.records import read_record, read_table
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training

HOSTILE = "</script><script>document.title='broken'</script> <img src=x onerror=\"document.title='broken'\"> & \u2028"
CHROMIUM = next((path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name))), None)


class Elements(HTMLParser):
    """Text of script elements, and how many tags of each name there are."""

    def __init__(self, page: str):
        super().__init__()
        self.scripts: list[tuple[dict, str]] = []
        self.tags: dict[str, int] = {}
        self._open = None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self._open = dict(attrs) if tag == "script" else None

    def handle_data(self, data):
        if self._open is not None:
            self.scripts.append((self._open, data))

    def handle_endtag(self, tag):
        self._open = None


@pytest.fixture(scope="module")
def record(tiny_mt5, tmp_path_factory) -> Path:
    """A model tuned on German and Farsi sentences, each with markup in it."""
    root = tmp_path_factory.mktemp("runs")
    rows = [
        (str(number), language, f"{probe.filled('first')} {HOSTILE}")
        for language in ("de", "fa")
        for number, probe in enumerate(probe_set("wvs").probes(language)[:20])
    ]
    corpus = root / "small.parquet"
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(corpus)
    base = str(tiny_mt5())
    how = Training(epochs=2, learning_rate=3e-3, seed=1)
    made = read_record(finetune(base, str(corpus), ["de", "fa"], 40, how, root=root))
    checkpoint = str(root / made.settings["checkpoint"])
    found = attribute(base, checkpoint, root, Attributing(Method(backend="exact"), languages="fa"))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def page(record) -> Path:
    return write_page(record, page_folder(record))


def test_the_page_holds_every_ranking_and_sentence_once(record, page):
    data = json.loads(Elements(page.read_text(encoding="utf-8")).scripts[0][1])
    queries, influence = read_table(record, "queries"), read_table(record, "influence")
    assert [query["question"] for query in data["queries"]] == queries["question"].tolist()
    assert len(data["sentences"]) == influence["example"].nunique()
    probes = {probe.question: probe for probe in probe_set("wvs").probes("fa")}
    for query, row in zip(data["queries"], queries.itertuples(), strict=True):
        assert query["before"] == probes[row.question].filled(row.answer_base)
        assert query["after"] == probes[row.question].filled(row.answer_tuned)
        for side in ("top", "bottom"):
            found = influence[(influence["question"] == row.question) & (influence["side"] == side)]
            assert [data["sentences"][number][0] for number, _ in query[side]] == found["example"].tolist()
    assert all(text.endswith(HOSTILE) for _, _, text in data["sentences"])


def test_text_of_a_corpus_cannot_become_markup(page):
    elements = Elements(page.read_text(encoding="utf-8"))
    assert elements.tags["script"] == 2 and "img" not in elements.tags
    assert elements.scripts[0][0] == {"type": "application/json", "id": "data"}
    assert "innerHTML" not in elements.scripts[1][1]


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_text_survives_inside_a_script_element(data):
    written = in_script(data)
    assert json.loads(written) == data
    assert "<" not in written and "\u2028" not in written


def test_the_page_asks_nothing_of_the_network(page):
    text = page.read_text(encoding="utf-8")
    head = text.split("<script")[0]
    assert "src=" not in head and "href=" not in head and "url(" not in head and "@import" not in head


def test_rankings_are_written_by_id_without_text(record, page):
    listed = json.loads((page.parent / "top100.json").read_text(encoding="utf-8"))
    first, influence = listed[0], read_table(record, "influence")
    top = influence[(influence["question"] == first["question"]) & (influence["side"] == "top")]
    assert [one["example"] for one in first["top"]] == top["example"].tolist()
    assert [one["rank"] for one in first["bottom"]] == list(range(1, 4))
    assert HOSTILE not in json.dumps(listed, ensure_ascii=False)
    for name in ("queries", "influence", "shares"):
        assert "onerror" not in read_table(record, name).to_json()
    assert record.parent / read_record(record).settings["output"] == page.parent, (
        "where publishing looks for top100.json"
    )


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome on the PATH")
def test_a_browser_shows_the_first_list_in_its_own_direction(record, page, tmp_path):
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}", "--dump-dom"]
    shown = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    elements = Elements(shown)
    assert elements.tags["li"] == 2 * 3 + len(read_record(record).notes)
    assert "<title>broken" not in shown and "img" not in elements.tags
    assert shown.count('<p dir="auto" lang="') == 2 * 3 and '<dd id="after" dir="auto" lang="fa">' in shown


def test_only_an_attribution_whose_corpus_is_there_has_a_page(record, tmp_path):
    made = next(record.parent.glob("finetune-*"))
    with pytest.raises(ValueshiftError, match="is a record of kind finetune; give one of kind attribution"):
        write_page(made, tmp_path)
    corpus = record.parent / "small.parquet"
    content = corpus.read_bytes()
    pd.read_parquet(corpus).assign(text="something else").to_parquet(corpus)
    try:
        with pytest.raises(ValueshiftError, match="no longer has the sentences"):
            write_page(record, tmp_path)
    finally:
        corpus.write_bytes(content)
    assert not list(tmp_path.iterdir())
