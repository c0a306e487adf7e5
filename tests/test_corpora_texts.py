"""News become sentences by publication; plain text is aligned by line, JSON by id; what is neither is refused."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from corpora_files import texts, write
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
