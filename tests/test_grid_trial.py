"""The acceptance of grids: real work, killed at random points, ends with the same tables and the same MLflow runs."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
from valueshift.core.records import find_records, read_record, read_table
from valueshift.experiments.cells import expand
from valueshift.experiments.plan import Plan, find_plan
from valueshift.experiments.results import outstanding

sys.path.insert(0, str(Path(__file__).parent))
from grid_processes import NODE, at_work, cluster_of, workers_of

CHANCE = random.Random(8)
PLAN = """\
models: {{tiny: {model}}}
sources: {{own: own.parquet}}
probe: {{languages: [de]}}
finetune:
  short: {{models: [tiny], sources: [own], languages: [de, tr], size: 160, training: [multilingual], epochs: 3}}
"""


def begun(plan: str, root: Path, *options: str) -> "subprocess.Popen[bytes]":
    code = "from valueshift.cli import main; main()"
    arguments = ["grid", "run", plan, "--output", str(root), *options]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


Strike = Callable[["subprocess.Popen[bytes]"], bool]
"""Kills something of a running driver, and says whether there was anything to kill."""


def disturbed(
    start: Callable[[], "subprocess.Popen[bytes]"], root: Path, blows: list[Strike], seconds: float, cells: float
) -> None:
    """Run a grid to its end under blows: each after so many more cells, and up to so many seconds.

    A killed driver is replaced.
    """
    process = start()
    for number, strike in enumerate(blows):
        while len(list((root / "cells").glob("*.json"))) < int(number * cells):
            assert process.poll() is None, f"it was over after {number} of {len(blows)} blows"
            time.sleep(0.1)
        time.sleep(CHANCE.uniform(0.2, 1) * seconds)
        while not strike(process):
            assert process.poll() is None, f"it was over after {number} of {len(blows)} blows"
            time.sleep(0.1)
        if strike is kill_driver:
            process = start()
    assert process.wait() == 0


def kill_driver(driver: "subprocess.Popen[bytes]") -> bool:
    driver.kill()
    return driver.wait() == -signal.SIGKILL


def kill_worker(driver: "subprocess.Popen[bytes]") -> bool:
    return kill_one(workers_of(driver.pid))


def kill_one(processes: list[int]) -> bool:
    if not processes:
        return False
    with suppress(ProcessLookupError):  # it had just ended
        os.kill(CHANCE.choice(processes), signal.SIGKILL)
        return True
    return False


def published(database: Path) -> dict[str, dict[str, float]]:
    """Metrics by record of all runs in MLflow, which hold each record once."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    (experiment,) = [found.experiment_id for found in client.search_experiments() if found.name == "valueshift"]
    runs = client.search_runs([experiment], max_results=1000)
    found = {run.data.tags["valueshift.record"]: run.data.metrics for run in runs}
    assert len(found) == len(runs) and all(run.data.tags["valueshift.status"] == "complete" for run in runs)
    return found


def same(one: Path, other: Path) -> None:
    """Two runs roots hold the same records: names (and so the weights of models), tables to 1e-6, MLflow's runs."""
    names = [sorted(folder.name for folder in find_records(root)) for root in (one, other)]
    assert names[0] == names[1]
    for name in names[0]:
        for table in read_record(one / name).tables:
            pd.testing.assert_frame_equal(
                read_table(one / name, table), read_table(other / name, table), rtol=0, atol=1e-6
            )
    runs = [published(root / "mlflow.db") for root in (one, other)]
    assert sorted(runs[0]) == sorted(runs[1]) == names[0]
    for name in names[0]:
        assert runs[0][name] == pytest.approx(runs[1][name], abs=1e-6)


@pytest.mark.slow
def test_real_cells_that_are_killed_end_as_if_undisturbed(tiny_mt5, sentences: list[str], tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    rows = [
        (str(n), language, sentences[160 * place + n])
        for n in range(160)
        for place, language in enumerate(("de", "tr"))
    ]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(tmp_path / "own.parquet")
    (tmp_path / "plan.yaml").write_text(PLAN.format(model=tiny_mt5()))
    plan = str(tmp_path / "plan.yaml")
    blows: list[Strike] = [kill_worker, kill_driver, kill_worker, kill_driver]
    disturbed(lambda: begun(plan, tmp_path / "disturbed"), tmp_path / "disturbed", blows, seconds=10, cells=0.5)
    assert begun(plan, tmp_path / "calm").wait() == 0
    same(tmp_path / "disturbed", tmp_path / "calm")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's grid undisturbed, on two workers."""
    root = tmp_path_factory.mktemp("calm")
    began = time.monotonic()
    assert begun("toy", root, "--workers", "2").wait() == 0
    print(f"undisturbed, two workers: {(time.monotonic() - began) / 60:.1f} minutes")
    return root


@pytest.mark.full
def test_the_toy_grid_is_killed_ten_times(calm: Path, tmp_path: Path) -> None:
    blows: list[Strike] = [kill_worker, kill_driver] * 5
    disturbed(lambda: begun("toy", tmp_path, "--workers", "2"), tmp_path, blows, seconds=20, cells=6)
    same(tmp_path, calm)
    assert not outstanding(expand(Plan.read(find_plan("toy"))), tmp_path)


@pytest.mark.full
def test_the_toy_grid_is_killed_ten_times_on_ray(calm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'valueshift[ray]'")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cluster = cluster_of(2)

    def kill_cell(driver: "subprocess.Popen[bytes]") -> bool:
        return kill_one(at_work(tmp_path))

    def kill_node(driver: "subprocess.Popen[bytes]") -> bool:
        cluster.remove_node(CHANCE.choice(list(cluster.worker_nodes)), allow_graceful=False)
        cluster.add_node(**NODE)
        return True

    try:
        blows: list[Strike] = [kill_cell, kill_driver, kill_node] * 3 + [kill_driver]
        on_ray = ("--executor", "ray", "--address", cluster.address)
        disturbed(lambda: begun("toy", tmp_path, *on_ray), tmp_path, blows, seconds=20, cells=6)
    finally:
        cluster.shutdown()
    same(tmp_path, calm)
    assert not outstanding(expand(Plan.read(find_plan("toy"))), tmp_path)
