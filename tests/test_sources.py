"""Archives, XML and text without end: what is read is bounded, and damage of any kind is one sentence with the file's name."""

import gzip
import io
import os
import struct
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importers import ARCHIVES, IMPORTERS, members, zipped
from valueshift.core import limits
from valueshift.core.errors import ValueshiftError
from valueshift.core.sources import opened, unpacked_limit
from valueshift.finetune.corpora.importing import import_corpus

each_archive = pytest.mark.parametrize("name", ARCHIVES)


def flagged(content: bytes, mark: bytes, offset: int, value: int) -> bytes:
    """A zip with a field of two bytes set in every header that begins so."""
    changed, at = bytearray(content), -1
    while (at := content.find(mark, at + 1)) >= 0:
        changed[at + offset : at + offset + 2] = struct.pack("<H", value)
    return bytes(changed)


def encrypted(content: bytes) -> bytes:
    return flagged(flagged(content, b"PK\x03\x04", 6, 1), b"PK\x01\x02", 8, 1)


def by_method(content: bytes, method: int) -> bytes:
    return flagged(flagged(content, b"PK\x03\x04", 8, method), b"PK\x01\x02", 10, method)


def cut_in_the_middle(content: bytes) -> bytes:
    """A zip in whose list all is well, and some bytes of whose first member are others."""
    start = content.index(b"PK\x03\x04") + 60
    return content[:start] + bytes(byte ^ 0x55 for byte in content[start : start + 20]) + content[start + 20 :]


DAMAGED = {
    "encrypted": (encrypted, "is encrypted; unpack it with its password"),
    "deflate64": (lambda content: by_method(content, 9), "is packed by an unusual method .9."),
    "lzma": (lambda content: by_method(content, 14), "is packed by an unusual method .14."),
    "damaged member": (cut_in_the_middle, "cannot be read .*; download it again"),
    "cut": (lambda content: content[: len(content) // 2], "a.zip"),
    "no list": (lambda content: content[:-30], "a.zip"),
    "empty": (lambda content: b"", "a.zip"),
}


@pytest.mark.parametrize("damage", DAMAGED)
@each_archive
def test_a_damaged_or_unusual_zip_is_named(cache: Path, tmp_path: Path, name: str, damage: str) -> None:
    importer, (change, said) = IMPORTERS[name], DAMAGED[damage]
    content = zipped({inside: text * 20 for inside, text in members(importer.files(tmp_path / "input")).items()})
    (tmp_path / "a.zip").write_bytes(change(content))
    with pytest.raises(ValueshiftError, match=said):
        importer.run(tmp_path / "a.zip")
    assert not cache.exists()


LIMITS = {
    "ratio": ({"UNPACKED_FREE": 1000, "UNPACKED_RATIO": 20}, "unpacks to more than"),
    "bytes": ({"UNPACKED_FREE": 1000, "UNPACKED_BYTES": 2000}, "unpacks to more than"),
    "files": ({"FILES": 0}, "holds more than 0 files"),
    "list": ({"ZIP_LIST_BYTES": 50}, "lists its files in"),
}


@pytest.mark.parametrize("limit", LIMITS)
@each_archive
def test_no_more_is_unpacked_than_the_limits_say(
    cache: Path, tmp_path: Path, name: str, limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    importer, (smaller, said) = IMPORTERS[name], LIMITS[limit]
    files = members(importer.files(tmp_path / "input"))
    (tmp_path / "a.zip").write_bytes(zipped(files | {next(iter(files)) + ".more": b"\n" * 300_000}))
    for bound, value in smaller.items():
        monkeypatch.setattr(limits, bound, value)
    with pytest.raises(ValueshiftError, match=f"a.zip.* {said}"):
        importer.run(tmp_path / "a.zip")


@each_archive
def test_a_zip_that_a_person_made_is_read(cache: Path, tmp_path: Path, name: str) -> None:
    importer = IMPORTERS[name]
    files = members(importer.files(tmp_path / "input"))
    (tmp_path / "a.zip").write_bytes(zipped(files | {"__MACOSX/._x": b"\0", ".DS_Store": b"\0"}))
    importer.run(tmp_path / "a.zip")
    assert members(cache)


@each_archive
def test_a_member_that_is_there_twice_is_refused(cache: Path, tmp_path: Path, name: str) -> None:
    importer = IMPORTERS[name]
    first, *_ = files = members(importer.files(tmp_path / "input"))
    (tmp_path / "a.zip").write_bytes(zipped(files | {f"./{first}": b"other"}))
    with pytest.raises(ValueshiftError, match=f"a.zip holds the member '{first}' twice"):
        importer.run(tmp_path / "a.zip")


def tar(path: Path, *infos: tuple[tarfile.TarInfo, bytes], packed: bool = True) -> Path:
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        for info, content in infos:
            info.size = info.size or len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def test_links_devices_and_folders_of_a_tar_are_no_files(tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    members = [(special(f"{kind.decode()}.txt", kind), b"") for kind in kinds]
    path = tar(tmp_path / "a.tar.gz", *members, (tarfile.TarInfo("fa.txt"), b"x"))
    with opened(path) as sources:
        assert [str(source.name) for source in sources] == ["fa.txt"]


@pytest.mark.parametrize("packed", [True, False])
def test_a_tar_is_bounded_before_a_large_member_is_skipped(
    tmp_path: Path, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "UNPACKED_FREE", 100_000)
    large = (tarfile.TarInfo("large.bin"), b"\0" * 10_000_000)
    path = tar(tmp_path / "a.tar.gz", large, (tarfile.TarInfo("fa.txt"), b"x"), packed=packed)
    if not packed:  # nothing in it is larger than it is
        with opened(path) as sources:
            assert len(sources) == 2
        return
    with pytest.raises(ValueshiftError, match=r"a\.tar\.gz unpacks to more than"), opened(path):
        pass


def test_a_tar_header_that_promises_gigabytes_takes_none(tmp_path: Path) -> None:
    pax = special("long", tarfile.XHDTYPE)
    pax.size = 1 << 33
    content = pax.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + b"\0" * 4096
    for name, text in (("a.tar", content), ("a.tar.gz", gzip.compress(content))):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(ValueshiftError, match=rf"{name} "), opened(tmp_path / name):
            pass


def test_what_is_no_file_among_the_files_is_left_out_and_never_waited_for(release: Path) -> None:
    (release / "fa.txt").write_text("یک\n", encoding="utf-8")
    (release / "en.txt").symlink_to(release / "fa.txt")
    (release / "de.txt").symlink_to("/dev/zero")
    (release / "ko.txt").symlink_to(release / "nowhere")
    (release / "tr.txt").symlink_to("tr.txt")
    os.mkfifo(release / "ru.txt")
    (release / "hi.txt").mkdir()
    (done,) = import_corpus("text", release)
    assert {language.language for language in done.languages} == {"fa", "en"}
    for name in ("ru.txt", "de.txt"):
        with pytest.raises(ValueshiftError, match="is neither a folder nor a file"):
            import_corpus("text", release / name)


@pytest.mark.parametrize("path", ["a" * 300, "a\0b", "x/" * 3000])
@pytest.mark.parametrize("importer", IMPORTERS.values(), ids=list(IMPORTERS))
def test_a_path_that_cannot_be_one_is_said(cache: Path, importer: object, path: str) -> None:
    with pytest.raises(ValueshiftError):
        importer.run(Path(path))  # type: ignore[attr-defined]


def test_a_name_that_is_not_utf8_can_be_stored(release: Path) -> None:
    content = b"one\n"
    Path(os.fsdecode(os.fsencode(release) + b"/caf\xe9.en.txt")).write_bytes(content)
    (done,) = import_corpus("text", release)
    assert [language.source for language in done.languages] == ["caf\\udce9.en.txt"]


XML = {
    "pbc": ("Farsi.xml", '<cesDoc><text>FILL<seg id="b.GEN.1.1" type="verse">یک</seg></text></cesDoc>'),
    "tanzil": ("fa.x.xml", '<quran>FILL<sura index="1"><aya index="1" text="یک"/></sura></quran>'),
}


@pytest.mark.parametrize(
    ("limit", "value", "fill", "said"),
    [
        ("XML_ELEMENTS", 100, "<a/>" * 200, "has more than 100 elements"),
        ("XML_DEPTH", 20, "<a>" * 30 + "</a>" * 30, "or 20 within each other"),
        ("XML_BYTES", 5000, "<a>" + "x" * 9000 + "</a>", "unpacks to more than"),
        ("XML_BYTES", 5000, f'<a b="{"x" * 9000}"/>', "unpacks to more than"),
    ],
)
@pytest.mark.parametrize("kind", XML)
def test_xml_is_bounded(
    release: Path, kind: str, limit: str, value: int, fill: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text = XML[kind]
    (release / name).write_text(text.replace("FILL", fill), encoding="utf-8")
    import_corpus(kind, release)
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(ValueshiftError, match=f"{name} .*{said}"):
        import_corpus(kind, release)


def test_xml_that_is_not_wanted_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<cesDoc>" + "<a/>" * 60_000 + "<seg/></cesDoc>")
    tracemalloc.start()
    with opened(path) as (source,):
        assert [element.tag for element in source.elements("seg")] == ["seg"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6  # as a tree they take 5 MB


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [("LINE_CHARACTERS", 1000, "fa.txt, line 2 has more than 1,000 characters"), ("TEXT_BYTES", 1000, "MB of text")],
)
def test_text_is_bounded(release: Path, limit: str, value: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (release / "fa.txt").write_text("یک\n" + "x" * 2000 + "\n", encoding="utf-8")
    import_corpus("text", release)
    monkeypatch.setattr(limits, limit, value)
    with pytest.raises(ValueshiftError, match=said):
        import_corpus("text", release)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 5000, "nested deeper"),
        ('{"id": ' + "9" * 5000 + ', "language": "fa", "text": "x"}', "an integer of 5000 digits"),
        ('{"id": 1, "language": "fa", "text": "\\ud800"}', "half a surrogate pair"),
        ('{"id": 1, "language": "fa", "text": NaN}', "an object with id, language and text is needed"),
        ('{"id": true, "language": "fa", "text": "x"}', "an object with id, language and text is needed"),
        ('{"id": 1, "language": ["fa"], "text": "x"}', "an object with id, language and text is needed"),
    ],
)
def test_json_that_no_table_can_hold_is_named_by_its_line(release: Path, line: str, said: str) -> None:
    (release / "a.jsonl").write_text('{"id": 1, "language": "fa", "text": "x"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(ValueshiftError, match=rf"a\.jsonl, line 2.*{said}"):
        import_corpus("text", release)


def test_a_ratio_of_text_is_far_from_that_of_a_bomb() -> None:
    assert unpacked_limit(1 << 10) == 64 << 20
    assert unpacked_limit(1 << 30) == 16 << 30
    assert unpacked_limit(1 << 20) == 200 << 20


def tarred() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return tar(Path(folder) / "a.tar.gz", (tarfile.TarInfo("fa.txt"), b"one\n" * 50)).read_bytes()


SOUND = {
    "a.zip": zipped({f"{code}.txt": b"one\ntwo\n" * 20 for code in ("fa", "ko")}),
    "a.tar.gz": tarred(),
}


@given(st.sampled_from(sorted(SOUND)), st.data())
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_an_archive_of_any_damage_is_read_or_refused(name: str, data: st.DataObject) -> None:
    content = bytearray(SOUND[name])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            with opened(path) as sources:
                for source in sources:
                    list(source.lines())
        except ValueshiftError as error:
            assert name in str(error)
