"""Facts about finetune/corpora: what each release becomes, what is refused, and which sentences are selected."""

import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora import importing
from valueshift.finetune.corpora.codes import code_of
from valueshift.finetune.corpora.importing import fetch_release, import_corpus
from valueshift.finetune.corpora.news import corpus_name
from valueshift.finetune.corpora.placebo import permuted_tokens
from valueshift.finetune.corpora.release import tidy
from valueshift.finetune.corpora.selection import select, split_by_id
from valueshift.finetune.corpora.store import Corpus, ImportedCorpus, corpora, corpus_path, merged_order, read_corpus

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 7\n"
FOUR = ("fa", "ko", "hi", "ru")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VALUESHIFT_CACHE", str(folder))
    return folder


@pytest.fixture
def release(tmp_path: Path) -> Path:
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="")
    return file


def texts(name: str, language: str) -> dict[str, str]:
    table = read_corpus(name).table
    own = table[table["language"] == language]
    return dict(zip(own["id"], own["text"], strict=True))


def ces(verses: dict[str, str], language: str = "x", header: str = "") -> str:
    segments = "".join(f'<seg id="{key}" type="verse">\n\t\t{text}\n\t</seg>' for key, text in verses.items())
    return (
        f'<?xml version="1.0" ?><cesDoc version="4">{header}<text><body lang="{language}">'
        f'<div id="b.MAT" type="book">{segments}</div></body></text></cesDoc>'
    )


# --- Parallel Bible Corpus


def test_verses_are_aligned_by_id_and_every_defect_is_counted(release: Path) -> None:
    write(release / "English-NT.xml", ces({"b.MAT.1.1": "One", "b.MAT.1.2": "Two\n\t words", "b.MAT.1.3": "Three"}))
    write(
        release / "Farsi-NT.xml", ces({"b.MAT.1.1": "یک", "b.MAT.1.2": "", "b.MAT.1.3": "سه [گانه]", "b.MAT.2.1": "سه"})
    )
    write(
        release / "Russian-NT.xml", ces({"b.MAT.1.3": "Три", "b.MAT.1.1": "Один", "b.MAT.1.2": "-", "b.MAT.2.1": "Три"})
    )
    write(release / "metadata.csv", "Filename,ISO_639-3\n")

    (done,) = import_corpus("pbc", release)

    assert done.name == "pbc" and done.path == corpus_path("pbc") and done.parallel == 2
    persian, english, russian = done.languages
    assert (persian.language, persian.source, persian.kept, persian.absent) == ("fa", "Farsi-NT.xml", 3, 1)
    assert persian.left_out == {"empty": 1} and persian.noted == {"with a gloss in brackets": 1}
    assert (english.kept, english.absent, english.mended) == (3, 1, {"spaces": 3})
    assert russian.left_out == {"without a letter": 1} and russian.noted == {"same text as an earlier one": 1}
    assert texts("pbc", "en") == {"b.MAT.1.1": "One", "b.MAT.1.2": "Two words", "b.MAT.1.3": "Three"}
    assert texts("pbc", "fa") == {"b.MAT.1.1": "یک", "b.MAT.1.3": "سه [گانه]", "b.MAT.2.1": "سه"}
    # The order is that of the first of the longest, Persian; what it lacks follows its predecessor in the English one.
    order = read_corpus("pbc").table["id"].drop_duplicates().tolist()
    assert order == ["b.MAT.1.1", "b.MAT.1.2", "b.MAT.1.3", "b.MAT.2.1"]


def test_the_language_is_told_by_the_name_or_by_the_header(release: Path) -> None:
    header = '<cesHeader><profileDesc><langUsage><language id="uk" iso639="ukr"/></langUsage></profileDesc></cesHeader>'
    write(release / "Ukranian-NT.xml", ces({"b.MAT.1.1": "Один"}, header=header))
    write(release / "fa.xml", ces({"b.MAT.1.1": "یک"}))
    (done,) = import_corpus("pbc", release)
    assert [language.language for language in done.languages] == ["fa", "ukr"]

    write(release / "Unknown.xml", ces({"b.MAT.1.1": "?a"}))
    with pytest.raises(
        ValueshiftError, match=r"Unknown\.xml: neither its name nor its header tells the language; rename"
    ):
        import_corpus("pbc", release)


def test_of_two_bibles_the_fuller_is_taken_and_of_equals_the_plainer_name(release: Path) -> None:
    write(release / "English-NT.xml", ces({"b.MAT.1.1": "Short"}))
    write(release / "English.xml", ces({"b.GEN.1.1": "First", "b.MAT.1.1": "Full"}))
    write(release / "English-tok.xml", ces({"b.GEN.1.1": "First .", "b.MAT.1.1": "Full ."}))
    (done,) = import_corpus("pbc", release)
    assert texts("pbc", "en")["b.MAT.1.1"] == "Full"
    assert done.notes == (
        "English-tok.xml was left out: en is taken from English.xml",
        "English-NT.xml was left out: en is taken from English.xml",
    )


def test_malformed_xml_and_entity_bombs_are_refused_by_name(release: Path) -> None:
    bible = write(release / "Farsi.xml", ces({"b.MAT.1.1": "یک"})[:-20])
    with pytest.raises(ValueshiftError, match=r"Farsi\.xml is no sound XML .*download it again"):
        import_corpus("pbc", release)
    bomb = '<!DOCTYPE b [<!ENTITY a "xxxxxxxxxx"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    write(bible, bomb + '<cesDoc><seg id="b.MAT.1.1" type="verse">&b;</seg></cesDoc>')
    with pytest.raises(ValueshiftError, match=r"Farsi\.xml is no sound XML .*Entit"):
        import_corpus("pbc", release)
    outside = '<!DOCTYPE b [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    write(bible, outside + '<cesDoc><seg id="b.MAT.1.1" type="verse">&a;</seg></cesDoc>')
    with pytest.raises(ValueshiftError, match=r"Farsi\.xml is no sound XML .*Entit"):
        import_corpus("pbc", release)
    write(bible, "<cesDoc/>")
    with pytest.raises(ValueshiftError, match=r"Farsi\.xml has no verse"):
        import_corpus("pbc", release)
    bible.unlink()
    with pytest.raises(ValueshiftError, match="holds no Bible in CES XML"):
        import_corpus("pbc", release)
    assert corpora() == []


# --- Tanzil

COMMENT = "<!--\r\n\r\n#  Quran Translation\r\n#  ID: fa.made\r\n\r\n-->\n"


def quran(verses: dict[tuple[int, int], str]) -> str:
    suras = "".join(
        f'\t<sura index="{sura}" name="">\n'
        + "".join(f'\t\t<aya index="{aya}" text="{text}"/>\n' for (own, aya), text in verses.items() if own == sura)
        + "\t</sura>\r\n"
        for sura in sorted({sura for sura, _ in verses})
    )
    return f'<?xml version="1.0" encoding="utf-8" ?>\n{COMMENT}<quran>\n{suras}</quran>\r\n'


def test_tanzil_xml_and_numbered_text_are_the_same_corpus(release: Path) -> None:
    verses = {(1, 1): "[و] نخست", (1, 2): "دوم", (2, 1): "دوم", (10, 1): "چهارم"}
    write(release / "xml" / "fa.made.xml", quran(verses))
    numbered = "".join(f"{sura}|{aya}|{text}\n" for (sura, aya), text in verses.items())
    write(release / "text" / "fa.made.txt", f"{numbered}\n\n# a comment\n#  ID: fa.made\n")

    (done,) = import_corpus("tanzil", release / "xml")
    assert texts("tanzil", "fa") == {"1.1": "[و] نخست", "1.2": "دوم", "2.1": "دوم", "10.1": "چهارم"}
    assert done.languages[0].noted == {"with a gloss in brackets": 1, "same text as an earlier one": 1}
    from_xml = read_corpus("tanzil").table
    import_corpus("tanzil", release / "text")
    pd.testing.assert_frame_equal(read_corpus("tanzil").table, from_xml)


def test_a_tanzil_text_without_numbers_needs_all_verses(release: Path) -> None:
    lines = [f"verse {number}" for number in range(6236)]
    file = write(release / "ru.made.txt", "\n".join(lines) + "\n\n# a comment\n")
    import_corpus("tanzil", file)
    verses = texts("tanzil", "ru")
    assert len(verses) == 6236
    # Sura 2 begins after the 7 verses of sura 1 and has 286; the last verse is the sixth of sura 114.
    assert (verses["2.1"], verses["3.1"], verses["114.6"]) == ("verse 7", "verse 293", "verse 6235")
    write(file, "\n".join(lines[:-1]))
    with pytest.raises(ValueshiftError, match=r"ru\.made\.txt has 6235 lines, of which 0 are numbered"):
        import_corpus("tanzil", file)


def opus(folder: Path, pair: str, rows: Sequence[tuple[str, str]]) -> None:
    """A zip as OPUS offers it."""
    folder.mkdir(exist_ok=True)
    one, two = pair.split("-")
    with zipfile.ZipFile(folder / f"{pair}.txt.zip", "w") as archive:
        archive.writestr("README", "about")
        archive.writestr(f"Tanzil.{pair}.{one}", "".join(f"{left}\n" for left, _ in rows))
        archive.writestr(f"Tanzil.{pair}.{two}", "".join(f"{right}\n" for _, right in rows))
        archive.writestr(f"Tanzil.{pair}.ids", "")


def test_opus_pairs_are_joined_on_identical_english(release: Path) -> None:
    opus(release, "en-fa", [("One", "یک"), ("One", "یکم"), ("Uno", "یک"), ("Two", "دو"), ("Only here", "فقط")])
    opus(release, "en-ru", [("Two", "Два"), ("One ", "Один"), ("Other", "Другое")])
    opus(release, "hi-ru", [("एक", "Один")])
    opus(release, "bn-en", [("এক", "One"), ("দুই", "Two")])

    (done,) = import_corpus("tanzil", release)

    table = read_corpus("tanzil").table.pivot(index="id", columns="language", values="text").set_index("en")
    assert table.loc["One", ["fa", "ru", "bn"]].tolist() == ["یک", "Один", "এক"]
    assert table.loc["Two", ["fa", "ru", "bn"]].tolist() == ["دو", "Два", "দুই"]
    assert set(table.index) == {"One", "Uno", "Two", "Only here", "Other"}
    assert done.parallel == 2 and done.notes == ("Tanzil.hi-ru was not read: pairs are joined on their English side",)
    persian = next(one for one in done.languages if one.language == "fa")
    assert persian.left_out == {"another translation of the same English sentence": 1} and persian.kept == 4


def test_opus_pairs_that_cannot_be_joined_are_refused(release: Path) -> None:
    write(release / "Tanzil.fa-ru.fa", "یک\n")
    write(release / "Tanzil.fa-ru.ru", "Один\n")
    with pytest.raises(ValueshiftError, match="holds no pair with English"):
        import_corpus("tanzil", release)
    write(release / "Tanzil.en-ru.en", "One\nTwo\n")
    write(release / "Tanzil.en-ru.ru", "Один\n")
    with pytest.raises(ValueshiftError, match=r"Tanzil\.en-ru\.ru ends at line 1, its other side goes on"):
        import_corpus("tanzil", release)
    write(release / "fa.made.xml", quran({(1, 1): "یک"}))
    with pytest.raises(ValueshiftError, match=r"holds files of tanzil\.net and of OPUS"):
        import_corpus("tanzil", release)


# --- FLORES


def test_flores_101_and_200_become_the_same_corpus(release: Path) -> None:
    sentences = {"dev": {"fa": ["یک", "دو\u2028گانه"], "ko": ["하나", "둘"]}, "devtest": {"fa": ["سه "], "ko": ["셋"]}}
    for folder, codes in (("flores101_dataset", ("fas", "kor")), ("flores200_dataset", ("pes_Arab", "kor_Hang"))):
        for split, languages in sentences.items():
            for code, lines in zip(codes, languages.values(), strict=True):
                write(release / folder / split / f"{code}.{split}", "".join(f"{line}\n" for line in lines))
        write(release / folder / "README", "about")
    tables = []
    for folder in ("flores101_dataset", "flores200_dataset"):
        (done,) = import_corpus("flores", release / folder)
        tables.append(read_corpus("flores").table)
        assert done.parallel == 3
    pd.testing.assert_frame_equal(*tables)
    assert texts("flores", "fa") == {"dev.1": "یک", "dev.2": "دو گانه", "devtest.1": "سه"}
    with pytest.raises(ValueshiftError, match="holds ko dev twice"):
        import_corpus("flores", release)


def test_flores_files_of_unequal_length_and_lfs_pointers_are_refused_by_name(release: Path) -> None:
    for code in ("fas", "kor", "hin"):
        write(release / "dev" / f"{code}.dev", "a\nb\n")
    write(release / "dev" / "rus.dev", "a\n")
    with pytest.raises(ValueshiftError, match=r"dev/rus\.dev has 1 lines, the other files of its split have 2"):
        import_corpus("flores", release)
    write(release / "dev" / "rus.dev", POINTER)
    with pytest.raises(ValueshiftError, match=r"rus\.dev is a Git LFS pointer, not the data; run `git lfs pull`"):
        import_corpus("flores", release)
    archive = write(release / "flores101_dataset.tar.gz", POINTER)
    with pytest.raises(ValueshiftError, match=r"flores101_dataset\.tar\.gz is a Git LFS pointer"):
        import_corpus("flores", archive)
    (release / "dev" / "rus.dev").write_bytes(b"\xff\xfe\n")
    archive.unlink()
    with pytest.raises(ValueshiftError, match=r"rus\.dev is not UTF-8"):
        import_corpus("flores", release)


def tar(file: Path, members: dict[str, str]) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return file


def test_archives_are_read_in_place_and_members_that_lead_out_are_refused(tmp_path: Path, release: Path) -> None:
    good = tar(
        release / "flores.tar.gz", {"./set/dev/fas.dev": "یک\n", "./set/dev/._fas.dev": "\0", "set/dev/kor.dev": "둘\n"}
    )
    (done,) = import_corpus("flores", good)
    assert done.parallel == 1 and texts("flores", "ko") == {"dev.1": "둘"}
    for name in ("../dev/fas.dev", "/dev/fas.dev", "set/../../fas.dev"):
        with pytest.raises(ValueshiftError, match="leads out of the archive; do not trust it"):
            import_corpus("flores", tar(release / "bad.tar.gz", {name: "یک\n"}))
    for name in ("../fas.dev", "..\\fas.dev"):
        with zipfile.ZipFile(release / "bad.zip", "w") as archive:
            archive.writestr(name, "یک\n")
        with pytest.raises(ValueshiftError, match="leads out of the archive; do not trust it"):
            import_corpus("flores", release / "bad.zip")
    assert not list(tmp_path.rglob("fas.dev"))
    good.write_bytes(good.read_bytes()[:60])
    with pytest.raises(ValueshiftError, match=r"flores\.tar\.gz is a damaged archive"):
        import_corpus("flores", good)
    with pytest.raises(ValueshiftError, match=r"nowhere does not exist"):
        import_corpus("flores", release / "nowhere")


# --- All-the-News

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


# --- Plain text


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
    with pytest.raises(ValueshiftError, match=r"more\.jsonl, line 1 is no JSON"):
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


# --- What all share


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


@pytest.fixture
def published(release: Path) -> Iterator[str]:
    """Address of a web server on this machine that publishes the folder `release`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(release)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_release_is_fetched_once_and_only_if_it_is_the_pinned_one(
    release: Path, published: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tar(release / "flores101_dataset.tar.gz", {"set/dev/fas.dev": "یک\n"})
    address, sha256 = f"{published}/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(importing._PUBLISHED, "flores", {address: "0" * 64})
    with pytest.raises(ValueshiftError, match="cannot be fetched .*SHA|hash"):
        fetch_release("flores")
    monkeypatch.setitem(importing._PUBLISHED, "flores", {address: sha256})
    folder = fetch_release("flores")
    file.unlink()
    assert fetch_release("flores") == folder
    assert import_corpus("flores", folder)[0].parallel == 1
    with pytest.raises(
        ValueshiftError, match=r"tanzil has no lasting public address; .*\(pbc and flores can be fetched\)"
    ):
        fetch_release("tanzil")


# --- Selection


def made_corpus(
    number: int, languages: Sequence[str] = (*FOUR, "en"), lacking: dict[str, set[int]] | None = None
) -> Corpus:
    rows = [
        (f"s{sentence}", code, f"{code} {sentence}")
        for sentence in range(number)
        for code in languages
        if sentence not in (lacking or {}).get(code, set())
    ]
    return Corpus("made", pd.DataFrame(rows, columns=["id", "language", "text"]))


def test_a_selection_is_the_first_sentences_that_all_languages_have() -> None:
    corpus = made_corpus(60, lacking={"ko": {0, 3}, "ru": {5}, "en": {1}})
    chosen = {code: select(corpus, [code], 50) for code in FOUR}
    ids = [f"s{number}" for number in range(60) if number not in (0, 3, 5)][:50]
    for code, examples in chosen.items():
        assert list(examples.columns) == ["example", "id", "language", "text", "split"]
        assert examples["id"].tolist() == ids
        assert examples["text"].tolist() == [f"{code} {one[1:]}" for one in ids]
        assert examples["example"].tolist() == [f"made:{code}:{one}" for one in ids]
        assert examples["split"].tolist() == chosen["fa"]["split"].tolist()
        assert examples["split"].value_counts().to_dict() == {"train": 40, "dev": 10}


def test_languages_outside_the_papers_are_needed_only_where_they_are_chosen() -> None:
    corpus = made_corpus(20, lacking={"en": {1}})
    assert "s1" in select(corpus, ["fa"], 10)["id"].tolist()
    assert "s1" not in select(corpus, ["en"], 10)["id"].tolist()
    assert "s1" not in select(corpus, ["fa"], 10, parallel=["en"])["id"].tolist()
    assert select(made_corpus(10, ["en"]), ["en"], 10)["language"].unique().tolist() == ["en"]


def test_a_multilingual_selection_has_the_same_few_sentences_from_each_language() -> None:
    corpus = made_corpus(100)
    one = select(corpus, FOUR, 80, seed=1)
    by_language = {code: set(group["id"]) for code, group in one.groupby("language")}
    assert set(by_language) == set(FOUR) and set(map(frozenset, by_language.values())) == {
        frozenset(f"s{n}" for n in range(20))
    }
    assert one.groupby("id")["split"].nunique().eq(1).all()
    assert one.groupby(["language", "split"]).size().to_dict() == {
        (code, split): number for code in FOUR for split, number in (("dev", 4), ("train", 16))
    }
    # Shuffled by the seed alone: same rows, same split, another order.
    two = select(corpus, FOUR, 80, seed=2)
    assert one["example"].tolist() == select(corpus, FOUR, 80, seed=1)["example"].tolist() != two["example"].tolist()
    assert dict(zip(one["example"], one["split"], strict=True)) == dict(zip(two["example"], two["split"], strict=True))
    assert one["language"].tolist()[:20] != ["fa"] * 20


def test_impossible_selections_say_what_is_possible() -> None:
    corpus = made_corpus(30, lacking={"ko": {2}})
    with pytest.raises(ValueshiftError, match="has 29 sentences in fa, ko, hi, ru, 40 are needed; ask for 29 at most"):
        select(corpus, ["fa"], 40)
    with pytest.raises(ValueshiftError, match="ask for 116 at most"):
        select(corpus, FOUR, 400)
    with pytest.raises(ValueshiftError, match="has no language 'de'; it has fa, ko, en, hi, ru"):
        select(corpus, ["de"], 10)
    with pytest.raises(ValueshiftError, match="10 sentences cannot be shared evenly by 4 languages"):
        select(corpus, FOUR, 10)
    with pytest.raises(ValueshiftError, match="0 sentences cannot be shared"):
        select(corpus, ["fa"], 0)
    with pytest.raises(ValueshiftError, match="2 sentences per language leave the dev split empty; take 5 or more"):
        select(corpus, ["fa"], 2)


@given(st.integers(3, 300), st.randoms())
def test_dev_is_a_fifth_of_the_ids_in_whatever_order_they_come(number: int, random: Random) -> None:
    ids = [f"s{one}" for one in range(number)]
    splits = split_by_id(ids)
    assert sum(split == "dev" for split in splits.values()) == round(0.2 * number) >= 1
    random.shuffle(ids)
    assert split_by_id(ids) == splits


def test_dev_is_spread_over_the_corpus() -> None:
    places = [
        place
        for place, split in enumerate(split_by_id([f"b.MAT.1.{n}" for n in range(1000)]).values())
        if split == "dev"
    ]
    # 200 of 1,000 without replacement: the mean place has a standard deviation of 18.3.
    assert abs(np.mean(places) - 499.5) < 4 * 18.3


@given(st.lists(st.lists(st.integers(0, 250_000), max_size=12), max_size=12), st.integers(0, 2**32))
def test_a_placebo_keeps_tokens_and_lengths(sentences: list[list[int]], seed: int) -> None:
    permuted = permuted_tokens(sentences, seed)
    assert [len(one) for one in permuted] == [len(one) for one in sentences]
    assert Counter(np.concatenate([[], *permuted]).tolist()) == Counter(token for one in sentences for token in one)
    assert all((one == two).all() for one, two in zip(permuted, permuted_tokens(sentences, seed), strict=True))


def test_a_placebo_moves_tokens_between_sentences() -> None:
    sentences = [[sentence * 10 + place for place in range(10)] for sentence in range(100)]
    stayed = [sum(token // 10 == place for token in one) for place, one in enumerate(permuted_tokens(sentences, 0))]
    # Expected 10 x 10 / 1000 tokens of its own in each sentence: 10 in all, with a standard deviation of about 3.
    assert sum(stayed) < 25


# --- The real files


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
