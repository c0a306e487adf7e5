"""News become sentences by publication; plain text is aligned by line, JSON by id; what is neither is refused."""

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pysbd
import pytest
from corpora_files import texts, write
from valueshift.core import limits
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora.importing import import_corpus
from valueshift.finetune.corpora.news import corpus_name

# All-the-News


ARTICLE = "Dr. Lee said   hello.\nIt rained — in the U.S. capital, too. ***"


def news_file(file: Path, layout: str, rows: Sequence[tuple[str, str, str]]) -> Path:
    """All-the-News as published, from (id, publication, text)."""
    if layout == "1.0":
        columns = ["", "id", "title", "publication", "author", "date", "year", "month", "url", "content"]
        table = [
            [number, key, "T", name, "A", "2016-12-31", "2016.0", "12.0", "", text]
            for number, (key, name, text) in enumerate(rows)
        ]
    else:
        columns = ["date", "year", "month", "day", "author", "title", "article", "url", "section", "publication"]
        table = [["2016-12-09", 2016, "12.0", 9, "A", "T", text, "http://x", "s", name] for _, name, text in rows]
    pd.DataFrame(table, columns=columns).to_csv(file, index=False)
    return file


@pytest.mark.parametrize("layout", ["1.0", "2.0"])
def test_news_of_both_layouts_is_split_into_sentences_by_publication(release: Path, layout: str) -> None:
    rows = [
        ("17", "Reuters", ARTICLE),
        ("18", "Vox", "Not asked for."),
        ("19", "The New Yorker", "Words."),
        ("20", "Reuters", ""),
    ]
    rows += [("21", "Reuters", 'Last, "quoted", one.'), ("22", "", "From nowhere.")]
    file = news_file(release / "articles1.csv", layout, rows)

    done = {one.name: one for one in import_corpus("news", file)}

    assert set(done) == {"news_reuters", "news_new_yorker"}
    assert done["news_reuters"].notes == ("Fox News was not found",)
    first, last = ("17", "21") if layout == "1.0" else ("1", "5")
    assert texts("news_reuters", "en") == {
        f"{first}.1": "Dr. Lee said hello.",
        f"{first}.2": "It rained — in the U.S. capital, too.",
        f"{last}.1": 'Last, "quoted", one.',
    }
    assert done["news_reuters"].languages[0].left_out == {"article without text": 1, "without a letter": 1}


def test_news_stops_at_the_wanted_number_of_sentences(release: Path) -> None:
    rows = [(str(number), "Reuters", "One here. Two here. Three here.") for number in range(5)]
    file = news_file(release / "a.csv", "2.0", rows)
    (done,) = import_corpus("news", file, publications=("Reuters",), most=7)
    assert done.languages[0].kept == 7 and done.notes == ("only the first 7 sentences were read",)
    assert list(texts("news_reuters", "en"))[-2:] == ["2.3", "3.1"]


def test_news_that_is_none_is_refused(release: Path) -> None:
    file = news_file(release / "a.csv", "2.0", [("1", "Vox", "Words.")])
    with pytest.raises(ValueshiftError, match="holds no article of New Yorker, Reuters, Fox News; it has Vox"):
        import_corpus("news", file)
    with pytest.raises(ValueshiftError, match="news corpora are named by their publication"):
        import_corpus("news", file, name="mine")
    write(file, "publication,words\nReuters,some\n")
    with pytest.raises(ValueshiftError, match=r"a\.csv has not the columns of All-the-News"):
        import_corpus("news", file)
    write(file, 'publication,article\nReuters,"some\n')
    with pytest.raises(ValueshiftError, match=r"a\.csv is no sound CSV"):
        import_corpus("news", file)
    assert [corpus_name(name) for name in ("The New Yorker", "New Yorker", "Fox News")] == [
        "news_new_yorker",
        "news_new_yorker",
        "news_fox_news",
    ]


def test_a_long_article_is_split_in_pieces_and_nothing_but_an_endless_paragraph_is_lost(
    release: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sentences = [f"Number {n} was said by Dr. Lee." for n in range(9)]
    body = " ".join(sentences[:3]) + "\n" + " ".join(sentences[3:8]) + "\n" + "and so on " * 60 + "\n" + sentences[8]
    file = news_file(release / "a.csv", "1.0", [("7", "Reuters", body)])
    (done,) = import_corpus("news", file)
    assert len(texts("news_reuters", "en")) == 10

    monkeypatch.setattr(limits, "SPLIT_CHARACTERS", 80)
    (done,) = import_corpus("news", file)
    assert list(texts("news_reuters", "en").values()) == sentences
    assert done.languages[0].left_out == {"paragraph without a sentence in 80 characters": 1}


@pytest.mark.parametrize("unit", ["The cat sat on the mat. ", "and then, ", "A line.\n", "a", "\n"])
def test_the_splitter_whose_time_grows_with_the_square_gets_no_long_text(
    release: Path, unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def segment(self: object, text: str) -> list[str]:
        given.append(len(text))
        return text.splitlines(keepends=True) if "\n" in text else [part + ". " for part in text.split(". ") if part]

    monkeypatch.setattr(pysbd.Segmenter, "segment", segment)
    with suppress(ValueshiftError):  # nothing may be left
        import_corpus("news", news_file(release / "a.csv", "1.0", [("7", "Reuters", unit * (100_000 // len(unit)))]))
    assert max(given) <= limits.SPLIT_CHARACTERS and sum(given) < 110_000


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("Reuters\n", "line 2: 1 fields, the header has 2"),
        ("Reuters,a,b\n", "line 2: 3 fields, the header has 2"),
        ('Reuters,"' + "a" * 200 + '"\n', "field larger than field limit .100."),
        ('Reuters,"' + "a\n" * 200 + '"\n', "field larger than field limit .100."),
    ],
)
def test_rows_of_news_that_are_none_are_named(
    release: Path, rows: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "ARTICLE_CHARACTERS", 100)
    before = csv.field_size_limit()
    with pytest.raises(ValueshiftError, match=rf"a\.csv.*{said}"):
        import_corpus("news", write(release / "a.csv", "publication,article\n" + rows))
    assert csv.field_size_limit() == before


# Plain text


def test_plain_text_is_aligned_by_line_and_json_by_id(release: Path) -> None:
    write(release / "lines" / "corpus.fa", "یک\r\n\r\nسه\r\n")
    write(release / "lines" / "corpus.ko.txt", "\ufeff하나\n둘\n셋\n")
    write(release / "lines" / "notes.md", "about\n")
    (done,) = import_corpus("text", release / "lines", name="mine")
    assert texts("mine", "fa") == {"1": "یک", "3": "سه"} and texts("mine", "ko") == {"1": "하나", "2": "둘", "3": "셋"}
    assert done.notes == ("notes.md was not read: its name tells no language",)

    rows = [("b", "ko", "둘"), ("a", "fa", "یک"), ("a", "ko", "하나"), (7, "fa", "هفت"), ("a", "fa", "دوباره")]
    lines = [json.dumps({"id": key, "language": code, "text": text}) for key, code, text in rows]
    write(release / "all.jsonl", "\n".join(lines) + "\n\n")
    (done,) = import_corpus("text", release / "all.jsonl", name="mine")
    assert texts("mine", "fa") == {"a": "یک", "7": "هفت"} and texts("mine", "ko") == {"b": "둘", "a": "하나"}
    assert done.languages[0].left_out == {"id came before": 1}


def test_plain_text_that_is_not_parallel_is_refused(release: Path) -> None:
    write(release / "fa.txt", "یک\nدو\n")
    write(release / "ko.txt", "하나\n")
    with pytest.raises(ValueshiftError, match=r"fa\.txt has 2 lines and ko\.txt 1; parallel files"):
        import_corpus("text", release)
    write(release / "more.jsonl", '{"id": 1, "language": "fa", "text": "x"}\n{"id": 2, "text": "x"}\n')
    with pytest.raises(ValueshiftError, match="holds both text and JSON files"):
        import_corpus("text", release)
    with pytest.raises(ValueshiftError, match=r"more\.jsonl, line 2: an object with id, language and text is needed"):
        import_corpus("text", release / "more.jsonl")
    write(release / "more.jsonl", "{\n")
    with pytest.raises(ValueshiftError, match=r"more\.jsonl, line 1 is damaged"):
        import_corpus("text", release / "more.jsonl")
    write(release / "more.jsonl", '{"id": 1, "language": "../fa", "text": "x"}\n')
    with pytest.raises(ValueshiftError, match=r"more\.jsonl: '\.\./fa' is no language code"):
        import_corpus("text", release / "more.jsonl")
    with pytest.raises(ValueshiftError, match="is no name of a corpus"):
        import_corpus("text", write(release / "en.txt", "one\n"), name="../mine")
    with pytest.raises(ValueshiftError, match="every one was empty or without a letter"):
        import_corpus("text", write(release / "en.txt", "1\n\n"))
    with pytest.raises(ValueshiftError, match="unknown kind of corpus 'bible'; known are pbc, tanzil"):
        import_corpus("bible", release)
