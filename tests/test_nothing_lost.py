"""A fault at any step after the first result: what was computed stays whole, what is missing is said, a repeat completes it.

The table is commands x faults; the steps are found by the fault itself, which is injected at the first, second, ... durable write
(`os.fsync`, which every whole file and folder of ours goes through) until the command is undisturbed.
"""

import contextlib
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from valueshift.cli import main
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table

TinyMT5 = Callable[..., Path]

DEAD = "http://127.0.0.1:9"


@dataclass
class Fault:
    """Raises `error` at the durable write number `step` and at all later ones, as a full disk does; counts until then."""

    step: int
    error: BaseException
    met: bool = False
    _count: int = field(default=0, init=False)

    def __call__(self, descriptor: int) -> None:
        self._count += 1
        if self._count >= self.step:
            self.met = True
            raise self.error


FAULTS: dict[str, tuple[Callable[[], BaseException], int, str]] = {
    # name: (what is raised, exit status, what is said)
    "full disk": (lambda: OSError(errno.ENOSPC, "No space left on device"), 2, "No space left on device"),
    "Ctrl-C": (KeyboardInterrupt, 130, "topped"),
}


def run(*arguments: object) -> tuple[int, str]:
    """The command line in this process: exit status, and what was printed."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["valueshift", *map(str, arguments)])
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0), said.getvalue()
    return 0, said.getvalue()


def disturbed(name: str, *arguments: object, stride: int = 1) -> Iterator[tuple[int, str]]:
    """Run the command with the fault at its first, second, ... durable write; ends with the first undisturbed run.

    stride: of the writes that are tried, where a record has many files.
    """
    raised, status, sentence = FAULTS[name]
    for step in range(1, 100, stride):
        fault = Fault(step, raised())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", fault)
            found, said = run(*arguments)
        if not fault.met:
            assert found == 0, said
            return
        assert sentence in said and "Traceback" not in said, (step, said)
        assert found == status or (found == 0 and "valueshift publish" in said), (
            "what is only not sent yet is a warning"
        )
        yield step, said
    raise AssertionError("the command never ends undisturbed")


def assert_whole(root: Path) -> None:
    """Every record can be read with all its tables; nothing half-written lies about."""
    for folder in find_records(root):
        for table in read_record(folder).tables:
            read_table(folder, table)
    assert not list(root.rglob(".*.tmp"))


def tables(root: Path) -> dict[str, pd.DataFrame]:
    """All tables of all records, by record and name."""
    return {
        f"{folder.name}/{table}": read_table(folder, table)
        for folder in find_records(root)
        for table in read_record(folder).tables
    }


def assert_same(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    assert one.keys() == other.keys()
    for name, table in one.items():
        # what was trained or asked twice was so in other batches: float32 keeps about 1e-6 of a log-probability
        pd.testing.assert_frame_equal(table, other[name], rtol=1e-4, atol=1e-6, obj=name)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Languages in the order in which a model was asked in them, as often as it was."""
    from valueshift.harness_ext import probing

    languages: list[str] = []
    score = probing.score_probes

    def counted(*arguments: Any, label: str = "", **named: Any) -> Any:
        found = score(*arguments, label=label, **named)
        languages.append(label)
        return found

    monkeypatch.setattr(probing, "score_probes", counted)
    return languages


@pytest.mark.parametrize("fault", FAULTS)
def test_probe(fault: str, tiny_mt5: TinyMT5, root: Path, asked: list[str]) -> None:
    command = ("probe", tiny_mt5(), "--languages", "de,fa,ko", "--limit", 10, "--output", root)
    for _ in disturbed(fault, *command):
        assert_whole(root)
        scored = len(list((root / "scores").glob("*.parquet")))
        assert scored >= len(set(asked)) - 1, "only the language whose write failed is asked again"
    (record,) = find_records(root, "probe")
    assert set(read_table(record, "scores")["language"]) == {"de", "fa", "ko"}
    assert len(asked) <= 2 * 3


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_compare(fault: str, study_runs: Path, tmp_path: Path) -> None:
    probes = [read_record(folder).name for folder in find_records(study_runs, "probe")][:3]
    for root in (tmp_path / "disturbed", tmp_path / "undisturbed"):
        for name in probes:
            shutil.copytree(study_runs / name, root / name)
    command = ("compare", *(tmp_path / "disturbed" / name for name in probes), "--output", tmp_path / "disturbed")
    kept: set[Path] = set()
    for _ in disturbed(fault, *command, stride=5):
        assert_whole(tmp_path / "disturbed")
        found = set(find_records(tmp_path / "disturbed", "comparison"))
        assert kept <= found
        kept = found
    run("compare", *(tmp_path / "undisturbed" / name for name in probes), "--output", tmp_path / "undisturbed")
    assert_same(tables(tmp_path / "disturbed"), tables(tmp_path / "undisturbed"))
    assert len(find_records(tmp_path / "disturbed", "comparison")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_finetune_and_attribute(fault: str, tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    corpus = pd.DataFrame(
        [(str(number), "de", probe.filled("first")) for number, probe in enumerate(probe_set("wvs").probes("de")[:40])],
        columns=["id", "language", "text"],
    )
    corpus.to_parquet(tmp_path / "small.parquet")
    options = ("--languages", "de", "--size", 40, "--epochs", 2, "--seed", 1, "--learning-rate", 0.003)
    finetune = ("finetune", "--model", tiny_mt5(), "--corpus", tmp_path / "small.parquet", *options, "--save-every", 4)
    for root in (tmp_path / "disturbed", tmp_path / "undisturbed"):
        for _ in disturbed(fault, *finetune, "--output", root) if root.name == "disturbed" else ():
            assert_whole(root)
        run(*finetune, "--output", root)
        (made,) = find_records(root, "finetune")
        tuned = root / str(read_record(made).settings["checkpoint"])
        attribute = ("attribute", "--base", tiny_mt5(), "--tuned", tuned, "--languages", "de", "--output", root)
        for _ in disturbed(fault, *attribute) if root.name == "disturbed" else ():
            assert_whole(root)
        status, said = run(*attribute)
        assert status == 0 and "Record: " in said, said
    assert_same(tables(tmp_path / "disturbed"), tables(tmp_path / "undisturbed"))
