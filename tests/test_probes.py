"""Facts about the item registry, the probe files and the import of the release."""

import csv
import shutil
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.core import limits
from valueshift.core.errors import ValueshiftError
from valueshift.core.languages import TEST_LANGUAGES
from valueshift.core.paths import TASKS
from valueshift.core.probe_import import import_release
from valueshift.core.probes import MASK, PROBE_HEADER, Probe, defect, probe_set, read_items, read_probes

Codes = tuple[int, ...]
ITEMS = read_items(TASKS / "wvs" / "items.csv")


def write_release(folder: Path, languages: tuple[str, ...] = TEST_LANGUAGES, extra: tuple[str, ...] = ()) -> Path:
    """A release of our own in the layout of the known one, with its defects."""
    rows = [
        "0\t1\tDas ist [MASK] im Leben\twichtig\tunwichtig",
        "1\t2\tohne Maske\twichtig\tunwichtig",
        "2\t152a\tDas Wachstum ist [MASK]\twichtig\t",
        '3\t3\t"Freunde &#39;n sind [MASK]"\t wichtig.\tunwichtig',
        "4\t128\tEs steigert die Beschäftigung: [MASK]\trichtig\tfalsch",
        *extra,
    ]
    (folder / "wvs").mkdir(parents=True)
    for language in languages:
        text = "\r\n".join(["\t0\t1\t2\t3", *rows]) + "\r\n"
        (folder / "wvs" / f"{language}.csv").write_bytes(text.encode())
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_registry_holds_the_release_and_the_papers_selection() -> None:
    assert len(ITEMS) == 273
    assert sum(item.paper for item in ITEMS.values()) == 238
    assert sum(item.category not in (4, 8) for item in ITEMS.values()) >= 241
    assert {item.category for item in ITEMS.values()} == set(range(1, 14))
    assert not any(item.paper for item in ITEMS.values() if item.category in (4, 8))


@pytest.mark.parametrize(
    ("question", "first", "second", "middle", "excluded"),
    [
        ("Q94", (2,), (1,), (), (0,)),  # 0 = not a member
        ("Q122", (2,), (0,), (1,), ()),  # 0 disagree, 1 hard to say, 2 agree
        ("Q119", (1, 2), (3, 4), (0,), ()),  # 0 = hard to say, not the low end
        ("Q56", (1,), (2,), (3,), ()),  # 1 better, 2 worse, 3 same
        ("Q42", (1,), (2,), (), (3,)),  # 3 fits neither pole
        ("Q221", (1,), (3,), (2,), (4,)),  # 4 = not allowed to vote
        ("Q254", (1, 2), (3, 4), (), (5,)),  # 5 = not a national
        ("Q241", (6, 7, 8, 9, 10), (0, 1, 2, 3, 4, 5), (), ()),  # the extra 0 stands below 1
    ],
)
def test_code_traps(question: str, first: Codes, second: Codes, middle: Codes, excluded: Codes) -> None:
    item = ITEMS[question]
    assert (item.first_codes, item.second_codes, item.middle_codes, item.excluded_codes) == (
        first,
        second,
        middle,
        excluded,
    )


def test_lettered_items_of_one_bipolar_variable_mirror_each_other() -> None:
    for number in (106, 107, 108, 109, 110, 111):
        a, b = ITEMS[f"Q{number}a"], ITEMS[f"Q{number}b"]
        assert a.variable == b.variable == f"Q{number}"
        assert (a.first_codes, a.second_codes) == (b.second_codes, b.first_codes)


@given(st.text(max_size=40), st.text(max_size=40), st.text(min_size=1, max_size=10), st.text(min_size=1, max_size=10))
def test_a_sound_row_can_be_filled_and_split(before: str, after: str, first: str, second: str) -> None:
    text = before + MASK + after
    if defect(text, first, second):
        return
    probe = Probe(probe_set="x", question="Q1", category=None, language="de", text=text, first=first, second=second)
    assert probe.prefix + first + probe.suffix == probe.filled("first")
    assert MASK not in probe.prefix + probe.suffix


def test_rows_that_cannot_be_asked_are_named(tmp_path: Path) -> None:
    def read(*rows: tuple[str, ...]) -> list[Probe]:
        path = tmp_path / "de.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows([PROBE_HEADER, *rows])
        return read_probes(path, "wvs", "de", ITEMS)

    with pytest.raises(ValueshiftError, match="de.csv, line 2, question Q1: no .MASK. in the text"):
        read(("Q1", "nichts", "a", "b", "", ""))
    with pytest.raises(ValueshiftError, match="line 3, question Q2: second option is empty"):
        read(("Q1", "[MASK] ist", "a", "b", "", ""), ("Q2", "[MASK] ist", "a", " ", "", ""))
    with pytest.raises(ValueshiftError, match="the two options are equal"):
        read(("Q1", "[MASK] ist", "a", "a", "", ""))
    with pytest.raises(ValueshiftError, match="question Q999: not in the item registry"):
        read(("Q999", "[MASK] ist", "a", "b", "", ""))
    with pytest.raises(ValueshiftError, match="appears twice"):
        read(("Q1", "[MASK] ist", "a", "b", "", ""), ("Q1", "[MASK] war", "a", "b", "", ""))


def test_the_columns_of_a_probe_file_are_checked(tmp_path: Path) -> None:
    (tmp_path / "de.csv").write_text("question,text\nQ1,x\n")
    with pytest.raises(ValueshiftError, match="the columns are question,text; they must be question,text,first"):
        read_probes(tmp_path / "de.csv", "wvs", "de", ITEMS)
    (tmp_path / "de.csv").write_bytes(b"question,text,first,second,reviewed,note\nQ1,\xff,a,b,,\n")
    with pytest.raises(ValueshiftError, match="no UTF-8 CSV"):
        read_probes(tmp_path / "de.csv", "wvs", "de", ITEMS)


def test_the_release_is_imported_and_its_defects_are_counted(cache: Path, tmp_path: Path) -> None:
    report = import_release(write_release(tmp_path / "release"))
    assert [done.language for done in report if done.probe_set == "wvs_arora"] and {done.kept for done in report} == {3}
    done = report[0]
    assert done.left_out == {"no [MASK] in the text, one is needed": ["Q2"], "second option is empty": ["Q152a"]}
    assert +done.mended == {"HTML entities": 1, "spaces": 1, "final punctuation": 1, "options swapped": 1}
    probes = {probe.question: probe for probe in probe_set("wvs_arora").probes("de")}
    assert probes["Q3"].text == "Freunde 'n sind [MASK]" and probes["Q3"].first == "wichtig"
    assert (probes["Q128"].first, probes["Q128"].second) == ("falsch", "richtig")
    assert probes["Q1"].category == 1


def test_zip_and_folder_give_the_same(cache: Path, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release")
    import_release(folder)
    digest = probe_set("wvs_arora").digest("fa")
    with zipfile.ZipFile(tmp_path / "probes.zip", "w") as archive:
        for file in folder.rglob("*.csv"):
            archive.write(file, f"probes/{file.relative_to(folder)}")
        archive.writestr("../evil.csv", "nothing is ever written from a member's path")
        archive.writestr("__MACOSX/probes/wvs/._de.csv", b"\x00\xff")
    import_release(tmp_path / "probes.zip")
    assert probe_set("wvs_arora").digest("fa") == digest
    assert not (tmp_path / "evil.csv").exists()


def test_bad_releases_are_refused(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueshiftError, match=r"has no wvs/ro.csv \(12 of 13 languages are missing\)"):
        import_release(write_release(tmp_path / "few", ("de",)))
    with pytest.raises(ValueshiftError, match="does not exist"):
        import_release(tmp_path / "nowhere")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(ValueshiftError, match="neither a folder nor a zip"):
        import_release(tmp_path / "text.zip")
    with pytest.raises(ValueshiftError, match="line 7: an index, a question, a text and two options"):
        import_release(write_release(tmp_path / "short", extra=("5\t4\tx",)))
    assert not list(cache.rglob("*.csv"))


def test_a_set_that_is_not_here_says_both_ways_to_get_it(cache: Path) -> None:
    with pytest.raises(ValueshiftError, match="probes import PATH.*your copy.*--fetch"):
        probe_set("wvs_arora").probes("de")
    with pytest.raises(ValueshiftError, match="unknown probe set 'wvs_x'"):
        probe_set("wvs_x")
    with pytest.raises(ValueshiftError, match="has no language 'xx'"):
        probe_set("wvs").probes("xx")


def test_the_real_release(cache: Path, test_data: Path) -> None:
    report = import_release(test_data / "arora2023" / "probes.zip")
    kept = {done.language: done.kept for done in report if done.probe_set == "wvs_arora"}
    assert kept == {language: {"sr": 252, "bn": 253}.get(language, 254) for language in TEST_LANGUAGES}
    release = probe_set("wvs_arora")
    common = set.intersection(*[{probe.question for probe in release.probes(code)} for code in TEST_LANGUAGES])
    assert len([q for q in common if ITEMS[q].category not in (4, 8)]) == 241
    assert {q for q in common if ITEMS[q].paper} == {q for q, item in ITEMS.items() if item.paper}
    assert {done.kept for done in report if done.probe_set == "hofstede_arora"} == {24}
    assert len(probe_set("hofstede_arora").probes("ko")) == 24


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "wvs/de.csv has no probe that can be asked"),
        (b"\t0\t1\t2\t3\r\n", "wvs/de.csv has no probe that can be asked"),
        (b"\t0\t1\t2\t3\r\n0\t1\tno mask\tx\ty\r\n", "wvs/de.csv has no probe that can be asked"),
        (
            b"h\n0\t1\t" + b"a" * 140_000 + b"[MASK]\tx\ty\n",
            "wvs/de.csv is no sound table .field larger than field limit",
        ),
        (b"h\n0\t1\t\xff[MASK]\tx\ty\n", "de.csv.* is not UTF-8"),
        ("h\n0\t1\t[MASK]\tx\ty\n".encode("utf-16"), "de.csv.* is not UTF-8"),
        (b"x" * 3000, "de.csv.* has more than 2,000 bytes"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_damaged_release_leaves_the_earlier_one(
    cache: Path, tmp_path: Path, content: bytes, said: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_release(tmp_path / "release")
    import_release(folder)
    before = probe_set("wvs_arora").digest("de")
    (folder / "wvs" / "de.csv").write_bytes(content)
    if content.startswith(b"x"):
        monkeypatch.setattr(limits, "CSV_BYTES", 2000)
    if packed:
        with zipfile.ZipFile(tmp_path / "probes.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in folder.rglob("*.csv"):
                archive.write(file, f"probes/{file.relative_to(folder)}")
    with pytest.raises(ValueshiftError, match=said):
        import_release(tmp_path / "probes.zip" if packed else folder)
    assert probe_set("wvs_arora").digest("de") == before


def test_two_copies_of_a_release_in_one_folder_are_refused(cache: Path, tmp_path: Path) -> None:
    write_release(tmp_path / "both" / "one")
    write_release(tmp_path / "both" / "two")
    with pytest.raises(ValueshiftError, match=r"holds wvs/\w\w.csv twice; give one copy"):
        import_release(tmp_path / "both")


def test_of_two_sets_of_a_release_neither_is_replaced_where_one_is_damaged(cache: Path, tmp_path: Path) -> None:
    folder = write_release(tmp_path / "release")
    shutil.copytree(folder / "wvs", folder / "hofstede")
    import_release(folder)
    before = probe_set("wvs_arora").digest("de")
    for file in (folder / "wvs").iterdir():
        file.write_text(file.read_text(encoding="utf-8").replace("Das ist", "Dies ist"), encoding="utf-8")
    (folder / "hofstede" / "ko.csv").write_text("")
    with pytest.raises(ValueshiftError, match="hofstede/ko.csv has no probe"):
        import_release(folder)
    assert probe_set("wvs_arora").digest("de") == before
