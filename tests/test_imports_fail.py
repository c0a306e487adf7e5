"""An import that fails, wherever it does, leaves what was imported before as it was, and nothing of its own."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from importers import IMPORTERS, Importer, make_own, members
from valueshift.core import files
from valueshift.core.errors import ValueshiftError

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
each_importer = pytest.mark.parametrize("importer", IMPORTERS.values(), ids=list(IMPORTERS))


class Failing:
    """A function that raises at its `call`-th call."""

    def __init__(self, function: Callable[..., object], fault: BaseException, call: int = 0) -> None:
        self.function, self.fault, self.call, self.calls = function, fault, call, 0

    def __call__(self, *args: object) -> object:
        self.calls += 1
        if self.calls == self.call:
            raise self.fault
        return self.function(*args)


@pytest.mark.parametrize("fault", [FULL, KeyboardInterrupt()], ids=["full disk", "Ctrl-C"])
@each_importer
def test_a_fault_at_any_write_leaves_the_earlier_import_or_the_new_one(
    cache: Path, tmp_path: Path, importer: Importer, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = importer.files(tmp_path / "input")
    counting = Failing(files._fsync, fault)
    monkeypatch.setattr(files, "_fsync", counting)
    importer.run(folder)
    before = set(members(cache))
    for call in {1, 2, counting.calls - 1, counting.calls}:
        monkeypatch.setattr(files, "_fsync", Failing(counting.function, fault, call))
        with pytest.raises((ValueshiftError, KeyboardInterrupt)):
            importer.run(folder)
        assert set(members(cache)) == before


@each_importer
def test_what_cannot_be_written_is_said(tmp_path: Path, importer: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file in the place of the folder")
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueshiftError, match="cannot write .*; free the disk or choose another folder"):
        importer.run(importer.files(tmp_path / "input"))


HEADERS = {
    "survey": "B_COUNTRY_ALPHA;D_INTERVIEW;W_WEIGHT;Q1\n",
    "corpus": "",
    "release": "\t0\t1\t2\t3\n",
    "own set": "question,text,first,second,reviewed,note\n",
}


@pytest.mark.parametrize("name", IMPORTERS)
def test_nothing_empty_replaces_something_whole(cache: Path, tmp_path: Path, name: str) -> None:
    importer = IMPORTERS[name]
    folder = importer.files(tmp_path / "input")
    importer.run(folder)
    before = members(cache)
    for file in folder.rglob("*.*"):
        if file.is_file() and file.name not in ("items.csv", "shares.csv"):
            file.write_text(HEADERS[name])
    with pytest.raises(ValueshiftError):
        importer.run(folder)
    assert members(cache) == before


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("items.csv", "HEADER\n", "has a header and no question"),
        ("shares.csv", "question,DEU\n", "holds no share"),
        ("shares.csv", "question,DEU\nT1,\n", "holds no share"),
        ("shares.csv", "question,DEU,DEU\nT1,.5,.5\n", "column DEU is there twice"),
        ("shares.csv", "question,DEU\nT1,.5\nT1,.4\n", "question T1 is there twice"),
        ("shares.csv", "question,DEU\nT1,nan\nT2,inf\n", "question T2, DEU: inf is no share"),
        ("shares.csv", "question,DEU\nT1,1e400\n", "1e400 is no share"),
        ("shares.csv", "question,DEU\nT1,.5,.6,.7\n", "is no table of shares"),
        ("shares.csv", "question,ÄÖÜ\nT1,.5\n", "column 'ÄÖÜ' is no country"),
        ("shares.csv", "\xff\xfe", "is no table of shares"),
        ("probes/de.csv", "\x00" * 9, "the columns are"),
        ("probes/de.csv", 'HEADER\nT1,"' + "a" * 140_000 + '",b,c,,\n', "field larger than field limit"),
        ("probes/de.csv", "HEADER\nT1,a\x00[MASK],b,c,,\n", "line 2, text: there is a control character"),
        ("probes/de.csv", "HEADER\nT1,[MASK],b,c,,\nT1,x [MASK],b,c,,\n", "the question appears twice"),
        ("probes/de.csv", "question,text,first,second,reviewed,note,note\n", "they must be"),
    ],
)
def test_an_own_set_is_checked_before_the_older_one_is_replaced(
    cache: Path, tmp_path: Path, file: str, content: str, said: str
) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    make_own(folder)
    before = members(cache)
    header = (folder / file).read_text(encoding="utf-8").splitlines()[0]
    (folder / file).write_bytes(content.replace("HEADER", header).encode("latin-1" if "\xff" in content else "utf-8"))
    with pytest.raises(ValueshiftError, match=said):
        make_own(folder)
    assert members(cache) == before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("file", ["items.csv", "probes/de.csv", "shares.csv"])
def test_a_byte_order_mark_is_read_over_and_another_encoding_is_refused(
    cache: Path, tmp_path: Path, file: str, encoding: str
) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    (folder / file).write_text((folder / file).read_text(encoding="utf-8"), encoding=encoding)
    if encoding == "utf-8-sig":
        make_own(folder)
    else:
        with pytest.raises(ValueshiftError, match=f"{Path(file).name} is no"):
            make_own(folder)


@pytest.mark.parametrize("kind", ["folder", "pipe", "missing", "large"])
@pytest.mark.parametrize("file", ["items.csv", "probes/de.csv", "shares.csv"])
def test_what_is_no_file_of_a_usual_size_is_not_read(cache: Path, tmp_path: Path, file: str, kind: str) -> None:
    folder = IMPORTERS["own set"].files(tmp_path / "input")
    (folder / file).unlink()
    if kind == "folder":
        (folder / file).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / file)
    elif kind == "large":
        with (folder / file).open("wb") as stream:
            stream.truncate(1 << 34)
    if kind == "missing" and file == "probes/de.csv":
        make_own(folder)  # English alone
        return
    with pytest.raises(ValueshiftError, match=Path(file).name):
        make_own(folder)
    assert not (cache / "probe_sets").exists()
