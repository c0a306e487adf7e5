"""What all corpora share: codes of languages, tidy sentences, one order of ids, and a store that a failed import leaves alone."""

from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from corpora_files import write
from hypothesis import given
from hypothesis import strategies as st
from valueshift.core import limits
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora.codes import code_of
from valueshift.finetune.corpora.importing import import_corpus
from valueshift.finetune.corpora.release import tidy
from valueshift.finetune.corpora.store import corpus_path, merged_order, read_corpus


def test_codes_and_names_of_the_releases() -> None:
    known = {
        "fas": "fa",
        "pes_Arab": "fa",
        "Farsi": "fa",
        "Persian": "fa",
        "fa": "fa",
        "zsm_Latn": "ms",
        "srp_Cyrl": "sr",
    }
    assert {name: code_of(name) for name in known} == known
    assert code_of("prs_Arab") is None and code_of("Latin") is None


@given(st.text())
def test_a_tidy_sentence_is_one_line_and_stays_as_it_is(text: str) -> None:
    plain, mended = tidy(text)
    assert tidy(plain) == (plain, None)
    assert (mended is None) == (plain == text)
    assert plain == " ".join(plain.split()) and not any(ord(mark) < 32 or 127 <= ord(mark) < 160 for mark in plain)


def test_joiners_and_marks_of_direction_stay() -> None:
    assert tidy("می\u200cروم") == ("می\u200cروم", None)
    assert tidy("a\x98b\ufeff") == ("ab", "control characters")


@given(st.lists(st.lists(st.sampled_from("abcdefgh"), unique=True), max_size=4))
def test_the_merged_order_has_every_id_once_and_keeps_the_longest(sequences: list[list[str]]) -> None:
    order = merged_order(sequences)
    assert Counter(order) == Counter(set().union(*sequences))
    longest = max(sequences, key=len, default=[])
    assert [one for one in order if one in longest] == longest


def test_what_only_a_shorter_sequence_has_follows_its_predecessor_there() -> None:
    assert merged_order([["a", "b", "d", "e"], ["z", "a", "b", "c1", "c2"]]) == ["z", "a", "b", "d", "e", "c1", "c2"]
    assert merged_order([["b", "c1", "c2"], ["a", "b", "d", "e"], ["z", "a"]]) == ["z", "a", "b", "c1", "c2", "d", "e"]


def test_a_failed_import_leaves_the_earlier_corpus(release: Path) -> None:
    write(release / "en.txt", "one\n")
    import_corpus("text", release)
    before = corpus_path("text").read_bytes()
    write(release / "en.txt", "1\n")
    with pytest.raises(ValueshiftError):
        import_corpus("text", release)
    assert corpus_path("text").read_bytes() == before
    assert [file.name for file in corpus_path("text").parent.iterdir()] == ["text.parquet"]


def test_a_corpus_is_found_by_name_or_path_and_damage_is_named(release: Path, tmp_path: Path) -> None:
    write(release / "en.txt", "one\n")
    import_corpus("text", release)
    with pytest.raises(ValueshiftError, match="corpus pbc is not on this machine, which has text; import your copy"):
        read_corpus("pbc")
    toy = tmp_path / "values.parquet"
    table = pd.DataFrame({"id": [1, 2], "language": ["de", "de"], "text": ["a", "b"], "question": ["Q1", "Q2"]})
    table.to_parquet(toy)
    found = read_corpus(str(toy))
    assert (found.name, found.languages, found.table["id"].tolist()) == ("values", ("de",), ["1", "2"])
    table.assign(id=1).to_parquet(toy)
    with pytest.raises(ValueshiftError, match="has sentence 1 in de more than once"):
        read_corpus(str(toy))
    table.assign(text=["a", None]).to_parquet(toy)
    with pytest.raises(ValueshiftError, match="row 2: id, language or text is missing"):
        read_corpus(str(toy))
    table.drop(columns="text").to_parquet(toy)
    with pytest.raises(ValueshiftError, match="is no corpus with id, language and text"):
        read_corpus(str(toy))
    write(toy, "no Parquet")
    with pytest.raises(ValueshiftError, match="is no corpus with id, language and text"):
        read_corpus(str(toy))


SENTENCES = pd.DataFrame({"id": [1, 2], "language": ["de", "fa"], "text": ["a", "b"]})
TEXT = SENTENCES.astype({"id": str})


@pytest.mark.parametrize(
    "table",
    [
        SENTENCES.set_index("id"),
        SENTENCES.set_index(["id", "language"]),
        SENTENCES.drop(columns="id").set_axis(pd.RangeIndex(1, 3, name="id")),
        SENTENCES.astype({"id": "Int64"}),
        SENTENCES.astype({"id": "category", "language": "category"}),
        SENTENCES.astype({"language": "string", "text": pd.ArrowDtype(pa.large_string())}),
        SENTENCES.assign(more=[[1], [2]]),
    ],
    ids=["index", "two indexes", "range", "nullable", "category", "large string", "another column"],
)
def test_a_corpus_is_the_same_however_its_table_was_made(tmp_path: Path, table: pd.DataFrame) -> None:
    table.to_parquet(tmp_path / "a.parquet")
    found = read_corpus(str(tmp_path / "a.parquet")).table
    assert found.astype(object).equals(TEXT.astype(object))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (SENTENCES.assign(text=[["a"], ["b"]]), "column text holds list.*, not text"),
        (SENTENCES.assign(text=[b"a", b"b"]), "column text holds binary, not text"),
        (SENTENCES.assign(id=[1.5, 2.0]), "column id holds double, not text"),
        (SENTENCES.assign(language=[True, False]), "column language holds bool, not text"),
        (SENTENCES.drop(columns="id"), "has no column id"),
        (SENTENCES.assign(id=pd.array([1, None], "Int64")), "row 2: id, language or text is missing"),
    ],
)
def test_a_table_that_is_no_corpus_is_named_by_its_column(tmp_path: Path, table: pd.DataFrame, said: str) -> None:
    table.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueshiftError, match=rf"a\.parquet.*{said}"):
        read_corpus(str(tmp_path / "a.parquet"))


def test_more_rows_than_memory_holds_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SENTENCES.to_parquet(tmp_path / "a.parquet")
    monkeypatch.setattr(limits, "PARQUET_ROWS", 1)
    with pytest.raises(ValueshiftError, match="it has 2 rows, at most 1 are read"):
        read_corpus(str(tmp_path / "a.parquet"))
