"""FLORES: both releases are one corpus, archives are read in place, and only the pinned release is fetched."""

import functools
import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from corpora_files import texts, write
from valueshift.core.errors import ValueshiftError
from valueshift.finetune.corpora import importing
from valueshift.finetune.corpora.importing import fetch_release, import_corpus
from valueshift.finetune.corpora.store import read_corpus

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 7\n"


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
