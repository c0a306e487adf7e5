"""Facts about core/files.py: what is written is whole for every reader at every moment, and paths stay in their folder."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from valueshift.core import files
from valueshift.core.errors import ValueshiftError
from valueshift.core.exchange import exchange
from valueshift.core.files import from_root, inside, whole_file, whole_folder

Fork = multiprocessing.get_context("fork")
STEPS = {"fcntl.flock", "open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir", "shutil.rmtree"}
PARTS = ("a", "b")


def put(folder: Path, content: str) -> None:
    """A folder of two files that say the same."""
    with whole_folder(folder) as temporary:
        for name in PARTS:
            (temporary / name).write_text(content)


def said(folder: Path) -> str:
    one, other = ((folder / name).read_text() for name in PARTS)
    assert one == other
    return one


def cannot_exchange(one: Path, other: Path) -> bool:
    return False


@pytest.fixture(params=["exchange", "renames"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "renames":
        monkeypatch.setattr(files, "exchange", cannot_exchange)
        return "renames"
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    if not exchange(tmp_path / "one", tmp_path / "other"):
        pytest.skip("this system cannot exchange two folders")
    for name in ("one", "other"):
        (tmp_path / name).rmdir()
    return "exchange"


def _put_often(folder: Path, process: int, times: int) -> None:
    for number in range(times):
        put(folder, f"{process}.{number}")


def test_eight_writers_of_one_folder_all_succeed_and_a_reader_always_finds_it(tmp_path: Path, way: str) -> None:
    target = tmp_path / "out"
    put(target, "first")
    writers = [Fork.Process(target=_put_often, args=(target, number, 20)) for number in range(8)]
    for writer in writers:
        writer.start()
    missing = looks = 0
    while any(writer.is_alive() for writer in writers):
        looks += 1
        missing += not target.is_dir()
    assert [writer.exitcode for writer in writers] == [0] * 8
    assert looks > 100 and (missing == 0 or way == "renames")
    assert said(target).endswith(".19")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _killed_at(step: int, work: Callable[[], None]) -> bool:
    """Do work in another process that is killed right before its system call of this number; False if it has fewer."""

    def working() -> None:
        count = 0

        def hook(event: str, _: object) -> None:
            nonlocal count
            count += event in STEPS
            if event in STEPS and count == step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        work()
        os._exit(0)

    process = Fork.Process(target=working)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_killed_at_any_step_the_folder_is_the_old_or_the_new_and_nothing_stays_behind(tmp_path: Path, way: str) -> None:
    target, step, found = tmp_path / "out", 0, set()
    put(target, "old")
    while True:
        step += 1
        killed = _killed_at(step, lambda: put(target, "new"))
        if way == "exchange":
            found.add(said(target))
        with whole_file(tmp_path / "other") as temporary:  # whoever writes there next tidies up
            temporary.write_text("")
        assert said(target) in ("old", "new")
        assert {path.name for path in tmp_path.iterdir()} == {"out", "other"}
        if not killed:
            break
        put(target, "old")
    assert step > 15 and said(target) == "new"
    assert way == "renames" or found == {"old", "new"}


def test_what_a_living_process_writes_is_not_swept(tmp_path: Path) -> None:
    def writing() -> None:
        with whole_file(tmp_path / "slow") as temporary:
            temporary.write_text("half")
            (tmp_path / "begun").touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.01)
            temporary.write_text("whole")

    process = Fork.Process(target=writing)
    process.start()
    while not (tmp_path / "begun").exists():
        time.sleep(0.01)
    put(tmp_path / "out", "x")
    (tmp_path / "go").touch()
    process.join()
    assert process.exitcode == 0 and (tmp_path / "slow").read_text() == "whole"


def test_a_name_as_long_as_the_system_allows_can_be_written(tmp_path: Path) -> None:
    put(tmp_path / ("n" * 255), "x")
    assert said(tmp_path / ("n" * 255)) == "x"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A runs root with checkpoints on another disk, beside a folder that is none of its business."""
    root, outside, disk = tmp_path / "runs", tmp_path / "private", tmp_path / "disk"
    for folder in (root / "pages", outside, disk):
        folder.mkdir(parents=True)
    (outside / "key").write_text("secret")
    (root / "checkpoints").symlink_to(disk)
    (disk / "link").symlink_to(outside)
    for link, to in {
        "link": outside,
        "pages/link": outside / "key",
        "loop": root / "loop",
        "within": root / "pages",
    }.items():
        (root / link).symlink_to(to)
    return root


LEAVING = "../private ../private/key pages/../../private checkpoints/../../private checkpoints/link/key link link/key"


@pytest.mark.parametrize(
    "stated",
    [*LEAVING.split(), "pages/link", "loop", "/", "/etc/passwd", "n" * 300, "/x" * 5000, "a\0b", "..", "../runs2"],
)
def test_a_stated_path_that_leaves_the_root_is_refused(root: Path, stated: str) -> None:
    with pytest.raises(ValueshiftError, match="remove what states it"):
        inside(root, stated)


@pytest.mark.parametrize("stated", ["pages", "checkpoints/abc", "within/x", "toys", "new/thing", "."])
def test_a_stated_path_within_the_root_is_taken(root: Path, stated: str) -> None:
    assert inside(root, stated) == (root / stated).resolve() == inside(root, str(root.resolve() / stated))


def test_a_path_is_stated_from_the_root_where_it_lies_there(root: Path) -> None:
    assert from_root(root, root / "pages" / "x") == "pages/x"
    assert from_root(root, root.parent / "report") == str(root.parent / "report")
