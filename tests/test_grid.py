"""Grids on one machine: what is killed, stopped, refused or done twice ends with the results of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from valueshift.core.records import find_records, read_record
from valueshift.experiments import actions, local
from valueshift.experiments.cells import Cell
from valueshift.experiments.local import LocalExecutor
from valueshift.experiments.results import log_path, outstanding, read_result, result_path
from valueshift.experiments.scheduling import Account, run_cells
from valueshift.experiments.work import Outcome, run_cell

sys.path.insert(0, str(Path(__file__).parent))  # workers import the stand-ins by name, and are handed the path
import grid_actions
from grid_processes import alive, at_work, wait_for, workers_of

PLAN = """\
toy: {languages: [fa, ko]}
models: {toy: {toy: base}}
sources: {values: {toy: corpus}}
probe: {languages: [fa]}
finetune:
  short: {models: [toy], sources: [values], languages: [fa, ko], size: 30, training: [monolingual, multilingual]}
attribute: {all: {blocks: [short]}}
"""
CELLS = {"toy": 1, "probe": 4, "finetune": 3, "compare": 3, "attribute": 3, "report": 1}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN)
    return tmp_path / "plan.yaml"


@pytest.fixture(autouse=True)
def _unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is published, which takes seconds, but in the tests about it."""
    monkeypatch.setenv("GRID_UNPUBLISHED", "1")


@pytest.fixture
def driver(plan: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts drivers of the plan as processes, and ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def start(root: Path, *, seconds: float = 0.0, workers: int = 2) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, grid_actions.__file__, str(plan), str(root), "local", str(workers)],
            env={**os.environ, "GRID_SECONDS": str(seconds)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # tests that run in the background of a script inherit that Ctrl-C is ignored
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(cells: list[Cell], root: Path, workers: int = 1) -> Account:
    return run_cells(cells, root, LocalExecutor(root, workers), lambda line: None)


class InThisProcess:
    """Does a cell where a test can reach into it."""

    slots = 1

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ended: list[tuple[Cell, Outcome]] = []

    def submit(self, cell: Cell) -> None:
        self.ended.append((cell, run_cell(cell, self.root)))

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        return [self.ended.pop()]

    def close(self) -> None:
        pass


def numbers(root: Path) -> str:
    """The report: every number of the grid by record."""
    (found,) = (root / "reports").glob("*/numbers.json")
    return found.read_text()


def journal(root: Path, what: str) -> Counter[str]:
    return Counter({path.name: path.read_text().split().count(what) for path in (root / "journal").iterdir()})


def test_a_grid_is_done_once_and_kept(plan: Path, tmp_path: Path) -> None:
    cells = grid_actions.simulated(plan)
    assert Counter(cell.stage for cell in cells) == CELLS
    first = run(cells, tmp_path / "runs", workers=2)
    assert first.complete and len(first.done) == sum(CELLS.values())
    second = run(cells, tmp_path / "runs")
    assert second.complete and not second.done and len(second.there) == sum(CELLS.values())
    assert set(journal(tmp_path / "runs", "begun").values()) == {1}
    logged = log_path(tmp_path / "runs", cells[-1].digest).read_text()
    assert "report every table and figure" in logged and "working on every table" in logged


@pytest.fixture
def checkpointed(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str) -> tuple[list[Cell], Path]:
    """A grid that is done, with checkpoints, and its runs root."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nowhere}")
    cells = grid_actions.simulated(plan, "makes_checkpoints")
    run(cells, tmp_path / "runs")
    return cells, tmp_path / "runs"


def test_a_checkpoint_that_is_deleted_is_made_again_only_where_it_is_needed(
    checkpointed: tuple[list[Cell], Path],
) -> None:
    cells, root = checkpointed
    tuned = next(cell for cell in cells if cell.stage == "finetune")
    result = read_result(root, tuned.digest)
    assert result
    result.path(root, "model").unlink()
    assert outstanding(cells, root) == set()
    asked = next(cell for cell in cells if cell.stage == "probe" and tuned.digest in cell.needs)
    probed = read_result(root, asked.digest)
    assert probed
    (probed.path(root, "record") / "record.json").unlink()
    assert outstanding(cells, root) == {tuned.digest, asked.digest}


def test_a_report_that_is_made_again_needs_no_checkpoints(
    checkpointed: tuple[list[Cell], Path],
) -> None:
    cells, root = checkpointed
    for path in (root / "checkpoints").iterdir():
        path.unlink()
    result_path(root, cells[-1].digest).unlink()
    assert cells[-1].stage == "report" and outstanding(cells, root) == {cells[-1].digest}
    again = run(cells, root)
    assert again.complete and again.done == {cells[-1].digest}


def test_without_mlflow_all_is_done_and_is_published_once_when_it_is_back(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("GRID_UNPUBLISHED")
    root = tmp_path / "runs"
    cells = grid_actions.simulated(plan)
    records = sum(CELLS.values()) - 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nowhere}")
    away = run(cells, root)
    assert away.complete and len(away.unpublished) == records
    assert all("cannot be reached" in reason for reason in away.unpublished.values())

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for _ in range(2):
        back = run(cells, root)
        assert back.complete and not back.done and not back.unpublished
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [found.experiment_id for found in client.search_experiments() if found.name == "valueshift"]
    published = Counter(found.data.tags["valueshift.record"] for found in client.search_runs([experiment]))
    assert published == Counter(folder.name for folder in find_records(root)) and len(published) == records


def test_a_cell_is_done_whatever_happens_while_it_is_published(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from valueshift.tracking import publish

    def broken(*_: object) -> None:
        raise RuntimeError("a fault in MLflow")

    monkeypatch.setattr(publish, "publish", broken)
    monkeypatch.delenv("GRID_UNPUBLISHED")
    root = tmp_path / "runs"
    toy, probe = grid_actions.simulated(plan)[:2]
    account = run_cells([toy, probe], root, InThisProcess(root), lambda line: None)
    assert account.done == {toy.digest, probe.digest} and account.complete
    assert list(account.unpublished) == [probe.digest]
    assert account.unpublished[probe.digest].startswith("MLflow: RuntimeError: a fault in MLflow; the record is kept")


def test_a_failed_cell_is_not_retried_and_the_rest_is_done(plan: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    cells = grid_actions.simulated(plan)
    bad = next(cell for cell in cells if cell.stage == "finetune")
    cells = [replace(cell, action="grid_actions:refuses") if cell == bad else cell for cell in cells]
    account = run(cells, root)
    assert account.failed == {bad.digest: "the corpus has no such language; import it"}
    assert {cell.stage for cell in cells if cell.digest in account.skipped} == {"probe", "compare", "attribute"}
    assert set(account.skipped.values()) == {bad.digest}
    assert len(account.done) == sum(CELLS.values()) - 5
    assert journal(root, "begun")[bad.digest] == 1
    report = next(cell for cell in cells if cell.stage == "report")
    assert account.partial == {report.digest}, "the report is made of what there is, and is to be made again"
    assert numbers(root).count("probe") == 3
    mended = run([replace(cell, action="grid_actions:work") for cell in cells], root)
    assert mended.complete and len(mended.done) == 5
    assert numbers(root).count("probe") == 4


def test_a_fault_in_the_code_is_an_error_of_the_cell_with_its_traceback_in_the_log(plan: Path, tmp_path: Path) -> None:
    cells = grid_actions.simulated(plan, "breaks")
    account = run(cells, tmp_path / "runs")
    toy, report = account.failed  # the report is tried, of nothing
    assert account.failed[toy] == account.failed[report] == "ZeroDivisionError: a fault in the code"
    assert "in breaks" in log_path(tmp_path / "runs", toy).read_text()
    assert len(account.skipped) == sum(CELLS.values()) - 2


def test_a_worker_does_nothing_more_after_an_error_that_nobody_foresaw(plan: Path, tmp_path: Path) -> None:
    toy = grid_actions.simulated(plan)[0]
    executor = LocalExecutor(tmp_path / "runs")
    lived = {}
    for action in ("refuses", "breaks"):
        executor.submit(replace(toy, action=f"grid_actions:{action}"))
        (worker,) = workers_of(os.getpid())
        ((_, outcome),) = executor.wait(60)
        assert outcome.end == "failed"
        lived[action] = alive(worker)
    assert lived == {"refuses": True, "breaks": False}
    executor.submit(toy)
    assert [outcome.end for _, outcome in executor.wait(60)] == ["done"]
    executor.close()


@pytest.mark.parametrize(
    ("given", "seen"), [({}, "1"), ({"CUDA_VISIBLE_DEVICES": ""}, ""), ({"CUDA_VISIBLE_DEVICES": "4,7"}, "7")]
)
def test_workers_share_the_gpus_and_cores_that_there_are_for_them(
    given: dict[str, str], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", given)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setattr(local, "_gpus", lambda: 2)
    local._share_machine(place=1, workers=2)
    assert given["CUDA_VISIBLE_DEVICES"] == seen
    assert given["OMP_NUM_THREADS"] == given["MKL_NUM_THREADS"] == "3"


def test_a_killed_worker_is_tried_again_twice_and_no_more(plan: Path, tmp_path: Path) -> None:
    cells = grid_actions.simulated(plan)
    unlucky = [cell for cell in cells if cell.stage == "finetune"]
    actions = {unlucky[0].digest: "grid_actions:dies_twice", unlucky[1].digest: "grid_actions:dies_always"}
    cells = [replace(cell, action=actions.get(cell.digest, cell.action)) for cell in cells]
    account = run(cells, tmp_path / "runs", workers=2)
    assert account.failed == {unlucky[1].digest: "its process was killed by signal SIGKILL, 3 times"}
    assert unlucky[0].digest in account.done
    assert journal(tmp_path / "runs", "begun")[unlucky[1].digest] == 3


def test_two_drivers_at_once_do_each_cell_once(
    driver: Callable[..., subprocess.Popen[str]], plan: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    both = [driver(root, seconds=0.3, workers=1) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert set(journal(root, "begun").values()) == {1} and len(journal(root, "begun")) == sum(CELLS.values())
    done = [output.count(": done in") for output in outputs]
    assert all(done), "both had a share"


def test_ctrl_c_leaves_whole_cells_and_ends_the_workers(
    driver: Callable[..., subprocess.Popen[str]], plan: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    root.mkdir()
    for number in (signal.SIGINT, signal.SIGTERM):
        process = driver(root, seconds=4.0)  # more than it takes a second worker to start
        wait_for(lambda: len({*at_work(root)} & {*workers_of(process.pid)}) == 2)  # noqa: B023
        workers = workers_of(process.pid)
        process.send_signal(number)
        process.communicate(timeout=30)
        wait_for(lambda: not any(alive(worker) for worker in workers))  # noqa: B023
        _only_whole(root)
    done = len(list((root / "cells").glob("*.json")))
    assert 0 < done < sum(CELLS.values())
    assert driver(root).wait(60) == 0
    assert set(journal(root, "finished").values()) == {1}


def test_a_full_disk_is_a_failed_cell_that_says_so(plan: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    cells = grid_actions.simulated(plan)
    log = log_path(root, cells[0].digest)
    log.parent.mkdir(parents=True)
    log.symlink_to("/dev/full")
    account = run(cells, root)
    assert "No space left on device; free the disk" in account.failed[cells[0].digest]
    assert not list((root / "cells").glob("*.json"))
    log.unlink()
    assert run(cells, root).complete


def test_a_folder_of_the_runs_root_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    for folder in (root, elsewhere):
        folder.mkdir()
    (root / "toys").symlink_to(elsewhere)
    assert actions._from(root, root / "toys" / "made") == "toys/made"


@pytest.mark.slow
def test_killed_at_random_ten_times_it_ends_as_if_undisturbed(
    driver: Callable[..., subprocess.Popen[str]], plan: Path, tmp_path: Path
) -> None:
    plan.write_text(PLAN.replace("size: 30", "size: 30, seeds: [0, 1, 2]"))
    disturbed, calm = tmp_path / "disturbed", tmp_path / "calm"
    disturbed.mkdir()
    chance = random.Random(8)
    for _ in range(10):
        process = driver(disturbed, seconds=1.0)
        wait_for(lambda: _beating(disturbed, process))  # noqa: B023
        time.sleep(chance.uniform(0, 1.0))
        os.kill(chance.choice(workers_of(process.pid)), signal.SIGKILL)
        time.sleep(chance.uniform(0, 1.0))
        workers = workers_of(process.pid)
        process.kill()
        process.wait()
        wait_for(lambda: not any(alive(worker) for worker in workers))  # noqa: B023
    cells = grid_actions.simulated(plan)
    assert outstanding(cells, disturbed), "it was over before it was disturbed enough"
    assert driver(disturbed).wait(120) == 0
    calm.mkdir()
    assert driver(calm).wait(120) == 0
    assert numbers(disturbed) == numbers(calm)
    _only_whole(disturbed)


def _only_whole(root: Path) -> None:
    for folder in find_records(root):
        read_record(folder)
    for path in (root / "cells").glob("*.json"):
        result = read_result(root, path.stem)
        assert result and result.usable(root)


def _beating(root: Path, driver: subprocess.Popen[str]) -> bool:
    """Whether a worker of this driver is at work."""
    workers = workers_of(driver.pid)
    return any(
        f'"pid": {worker}' in path.read_text() for path in (root / "running").glob("*.json") for worker in workers
    )
