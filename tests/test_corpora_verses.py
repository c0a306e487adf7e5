"""Bibles and Qurans: verses are aligned by id or by their English, defects counted, unsound files refused by name."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from corpora_files import texts, write
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora.importing import import_corpus
from valueshift.finetune.corpora.store import corpora, corpus_path, read_corpus

# The Parallel Bible Corpus


def ces(verses: dict[str, str], language: str = "x", header: str = "") -> str:
    segments = "".join(f'<seg id="{key}" type="verse">\n\t\t{text}\n\t</seg>' for key, text in verses.items())
    return (
        f'<?xml version="1.0" ?><cesDoc version="4">{header}<text><body lang="{language}">'
        f'<div id="b.MAT" type="book">{segments}</div></body></text></cesDoc>'
    )


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


# Tanzil, from tanzil.net and from OPUS


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
