"""`valueshift grid run`: what it refuses before any work, and what it prints after it."""

import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from valueshift.cli import main
from valueshift.experiments import scheduling
from valueshift.experiments.cells import Cell
from valueshift.experiments.results import Result, write_result
from valueshift.experiments.scheduling import Account

PLAN = "models: {small: google/mt5-small}\nprobe: {languages: [de]}\n"


class NoCredentialsError(Exception):
    """As botocore's: a class of a backend's own."""


class Locked(MemoryFileSystem):
    """A store without rights."""

    protocol = "locked"

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")

    def put_file(self, lpath: str, rpath: str, **kwargs: object) -> None:
        raise NoCredentialsError("Unable to locate credentials")


def probed(cell: Cell) -> Result:
    """The result of a cell whose record is `probe-1`."""
    return Result(
        stage="probe",
        label=cell.label,
        model=cell.model,
        made={"record": "probe-1"},
        seconds=1,
        units=1,
        host="here",
        finished=0,
        published=True,
    )


fsspec.register_implementation("locked", Locked, clobber=True)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs `valueshift grid run` on a plan of a probe and a report; gives the status."""
    (tmp_path / "plan.yaml").write_text(PLAN)

    def run(*options: str) -> int:
        arguments = ["valueshift", "grid", "run", str(tmp_path / "plan.yaml"), "--output", str(tmp_path / "runs")]
        monkeypatch.setattr(sys, "argv", [*arguments, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cell", ""], "2 cells have digests that begin with ''"),
        (["--cell", "xyz"], "no cell has the digest 'xyz'; `valueshift grid plan FILE --list` shows all"),
        (["--address", "host:6379"], "--address is of the executor ray; leave it out, or add --executor ray"),
        (["--executor", "ray", "--workers", "1"], "--workers is of the executor local; leave it out"),
        (
            ["--copy-to", "locked://bucket/runs"],
            "locked://bucket/runs (Unable to locate credentials); mend its address",
        ),
        (["--copy-to", "s4://bucket/runs"], "cannot copy to s4://bucket/runs (Protocol not known: s4)"),
        (["--copy-to", "file:///proc/runs"], "cannot copy to file:///proc/runs ("),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    run: Callable[..., int],
    options: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(scheduling, "run_cells", lambda *_: pytest.fail("it was run"))
    assert run(*options) == 2
    assert message in capsys.readouterr().err


def test_a_copy_that_fails_hides_no_account(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(cells: list[Cell], root: Path, *_: object) -> Account:
        (root / "probe-1").mkdir(parents=True, exist_ok=True)
        (root / "probe-1" / "record.json").write_text("{}")
        write_result(root, cells[0].digest, probed(cells[0]))
        return Account(done={cells[0].digest}, failed={cells[1].digest: "no figures"})

    monkeypatch.setattr(scheduling, "run_cells", work)
    monkeypatch.setattr(Locked, "pipe_file", MemoryFileSystem.pipe_file)
    assert run("--copy-to", "locked://bucket/runs") == 2
    printed = capsys.readouterr()
    assert "1 of 2 cells are done" in printed.out and "no figures" in printed.out
    assert "cannot copy to locked://bucket/runs (Unable to locate credentials)" in printed.err
    assert run("--copy-to", f"file://{tmp_path}/there") == 1, "copied, but one cell failed"
    assert (tmp_path / "there" / "probe-1" / "record.json").is_file()
