"""The acceptance of grids: real work, killed at random points, ends with the same tables and the same MLflow runs."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from valueshift.core.records import find_records, read_record, read_table
from valueshift.experiments.cells import expand
from valueshift.experiments.plan import Plan, find_plan
from valueshift.experiments.results import outstanding

PLAN = """\
models: {{tiny: {model}}}
sources: {{own: own.parquet}}
probe: {{languages: [de]}}
finetune:
  short: {{models: [tiny], sources: [own], languages: [de, tr], size: 160, training: [multilingual], epochs: 3}}
"""


def begun(plan: str, root: Path, workers: int) -> "subprocess.Popen[bytes]":
    code = "from valueshift.cli import main; main()"
    arguments = ["grid", "run", plan, "--workers", str(workers), "--output", str(root)]
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def workers_of(driver: int) -> list[int]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(driver)], capture_output=True, text=True, check=False
    )
    return [int(line.split()[0]) for line in listed.stdout.splitlines() if "spawn_main" in line]


def disturbed(plan: str, root: Path, workers: int, kills: int, seconds: float, cells: float) -> int:
    """Run a grid to its end, killing in turn a worker and the driver: after so many more cells, and up to so many seconds.

    Returns:
        how often it was killed.
    """
    chance = random.Random(8)
    killed = 0
    process = begun(plan, root, workers)
    while killed < kills:
        while len(list((root / "cells").glob("*.json"))) < int(killed * cells) and process.poll() is None:
            time.sleep(0.1)
        time.sleep(chance.uniform(0.2, 1) * seconds)
        if process.poll() is not None:
            break
        victims = workers_of(process.pid) if killed % 2 == 0 else [process.pid]
        if victims:
            os.kill(chance.choice(victims), signal.SIGKILL)
            killed += 1
        if killed % 2 == 0:
            process.wait()
            process = begun(plan, root, workers)
    assert process.wait() == 0
    return killed


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
    assert disturbed(plan, tmp_path / "disturbed", 1, kills=5, seconds=10, cells=0.5) >= 3
    assert begun(plan, tmp_path / "calm", 1).wait() == 0
    same(tmp_path / "disturbed", tmp_path / "calm")


@pytest.mark.full
def test_the_toy_grid_is_killed_ten_times(tmp_path: Path) -> None:
    began = time.monotonic()
    assert begun("toy", tmp_path / "calm", 2).wait() == 0
    minutes = (time.monotonic() - began) / 60
    print(f"undisturbed, two workers: {minutes:.1f} minutes")
    assert disturbed("toy", tmp_path / "disturbed", 2, kills=10, seconds=20, cells=6) == 10
    same(tmp_path / "disturbed", tmp_path / "calm")
    assert not outstanding(expand(Plan.read(find_plan("toy"))), tmp_path / "disturbed")
