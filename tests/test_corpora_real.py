"""The real releases, where they are at hand: how many sentences, shared ids and defects each has, in figures."""

from pathlib import Path

import pytest
from corpora_files import FOUR, texts
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora.importing import import_corpus
from valueshift.finetune.corpora.selection import select
from valueshift.finetune.corpora.store import ImportedCorpus, read_corpus


@pytest.fixture(scope="module")
def real_imports(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, ImportedCorpus]]:
    """The cache with all real files imported, and their summaries by corpus."""
    folder = tmp_path_factory.mktemp("real")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALUESHIFT_CACHE", str(folder))
        done = [import_corpus(kind, test_data / kind) for kind in ("pbc", "tanzil")]
        done.append(import_corpus("flores", test_data / "flores101_dataset"))
        done.append(import_corpus("news", test_data / "news", publications=("New York Times",)))
    return folder, {one.name: one for (one,) in done}


@pytest.fixture
def real(
    real_imports: tuple[Path, dict[str, ImportedCorpus]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, ImportedCorpus]:
    folder, done = real_imports
    monkeypatch.setenv("VALUESHIFT_CACHE", str(folder))
    return done


@pytest.mark.parametrize(("name", "shared"), [("pbc", 7949), ("tanzil", 6236)])
def test_real_parallel_corpora_give_the_same_ids_in_every_language(
    real: dict[str, ImportedCorpus], name: str, shared: int
) -> None:
    assert {*FOUR, "en"} <= {one.language for one in real[name].languages}
    corpus = read_corpus(name)
    for size in (2000, 5000):
        chosen = [select(corpus, [code], size) for code in FOUR]
        for examples in chosen:
            assert len(examples) == size and examples["split"].eq("dev").sum() == size // 5
            assert examples[["id", "split"]].equals(chosen[0][["id", "split"]])
    assert select(corpus, FOUR, 10_000)["language"].value_counts().to_dict() == dict.fromkeys(FOUR, 2500)
    with pytest.raises(ValueshiftError, match=f"{name} has {shared:,} sentences in fa, ko, hi, ru, 10,000 are needed"):
        select(corpus, ["fa"], 10_000)


def test_the_real_bibles_defects_are_counted(real: dict[str, ImportedCorpus]) -> None:
    by_language = {one.language: one for one in real["pbc"].languages}
    assert by_language["ko"].left_out == {"empty": 1, "without a letter": 1}
    kept = {"fa": 7957, "ko": 7955, "hi": 7956, "ru": 7955, "en": 7957, "ukr": 7955}
    assert {code: one.kept for code, one in by_language.items()} == kept
    assert by_language["ko"].mended == {"spaces": 7955}
    # Russian ends the fourteenth chapter of Romans with 24-26, which the others have as 16:25-27.
    order = read_corpus("pbc").table["id"].drop_duplicates().tolist()
    place = order.index("b.ROM.14.24")
    assert order[place - 1 : place + 4] == ["b.ROM.14.23", *(f"b.ROM.14.{n}" for n in (24, 25, 26)), "b.ROM.15.1"]
    assert "b.ROM.14.24" in texts("pbc", "ru") and "b.ROM.14.24" not in texts("pbc", "en")


def test_the_real_tanzil_files_are_complete(real: dict[str, ImportedCorpus]) -> None:
    by_language = {one.language: one for one in real["tanzil"].languages}
    assert [one.kept for one in by_language.values()] == [6236] * 5 and real["tanzil"].parallel == 6236
    assert by_language["fa"].noted["with a gloss in brackets"] == 3511
    assert by_language["ru"].noted["same text as an earlier one"] == 135
    ids = list(texts("tanzil", "hi"))
    assert (ids[0], ids[7], ids[-1]) == ("1.1", "2.1", "114.6")
    assert ids == sorted(ids, key=lambda one: tuple(map(int, one.split("."))))


def test_the_real_flores_files_have_1012_lines_in_16_languages(real: dict[str, ImportedCorpus]) -> None:
    assert len(real["flores"].languages) == 16 and real["flores"].parallel == 1012
    corpus = read_corpus("flores")
    assert len(select(corpus, FOUR, 4 * 1012)) == 4048
    with pytest.raises(ValueshiftError, match="has 1,012 sentences in fa, ko, hi, ru, 2,000 are needed"):
        select(corpus, ["fa"], 2000)


def test_the_real_news_file_is_read(real: dict[str, ImportedCorpus]) -> None:
    sentences = texts("news_new_york_times", "en")
    assert len(sentences) == real["news_new_york_times"].languages[0].kept >= 20
    assert list(sentences) == [f"17283.{number}" for number in range(1, len(sentences) + 1)]
    assert not any("  " in text for text in sentences.values())
