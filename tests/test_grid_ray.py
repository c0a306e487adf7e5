"""Grids on a Ray cluster of several node processes on this machine: workers, nodes, drivers and the head may die."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'valueshift[ray]'")
from ray.exceptions import LocalRayletDiedError  # noqa: E402
from valueshift.core.errors import ValueshiftError  # noqa: E402
from valueshift.core.records import find_records  # noqa: E402
from valueshift.experiments import ray_executor  # noqa: E402
from valueshift.experiments.local import LocalExecutor  # noqa: E402
from valueshift.experiments.ray_executor import RayExecutor  # noqa: E402
from valueshift.experiments.results import outstanding  # noqa: E402
from valueshift.experiments.scheduling import run_cells  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))
import grid_actions  # noqa: E402
from grid_processes import NODE, at_work, cluster_of, wait_for  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("ray")]

PLAN = """\
toy: {languages: [fa, ko]}
models: {toy: {toy: base}}
sources: {values: {toy: corpus}}
probe: {languages: [fa]}
finetune:
  short: {models: [toy], sources: [values], languages: [fa, ko], size: 30, training: [monolingual, multilingual], seeds: [0, 1]}
attribute: {all: {blocks: [short]}}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN)
    (tmp_path / "runs").mkdir()
    return tmp_path / "plan.yaml"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Starts clusters of so many nodes of one CPU each; their workers see the stand-ins, which take so many seconds."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    started: list[Any] = []

    def start(nodes: int, *, seconds: float = 0.0, published: bool = False) -> Any:
        monkeypatch.setenv("GRID_SECONDS", str(seconds))
        if not published:
            monkeypatch.setenv("GRID_UNPUBLISHED", "1")
        started.append(cluster_of(nodes))
        return started[-1]

    yield start
    if ray.is_initialized():
        ray.shutdown()
    for made in started:
        made.shutdown()


def driver(plan: Path, address: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, grid_actions.__file__, str(plan), str(plan.parent / "runs"), "ray", "1", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def numbers(root: Path) -> str:
    (found,) = (root / "reports").glob("*/numbers.json")
    return found.read_text()


def test_errors_end_a_cell_and_deaths_are_tried_again(cluster: Callable[..., Any], plan: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    cells = grid_actions.simulated(plan)
    tuned = [cell for cell in cells if cell.stage == "finetune"]
    actions = {
        cell.digest: f"grid_actions:{action}"
        for cell, action in zip(tuned, ("refuses", "dies_always", "dies_twice"), strict=False)
    }
    cells = [replace(cell, action=actions.get(cell.digest, cell.action)) for cell in cells]
    made = cluster(1)
    account = run_cells(cells, root, RayExecutor(root, made.address), print)
    assert account.failed[tuned[0].digest] == "the corpus has no such language; import it"
    assert "WorkerCrashedError" in account.failed[tuned[1].digest]
    assert account.failed[tuned[1].digest].endswith("3 times")
    assert tuned[2].digest in account.done
    begun = {cell.digest: (root / "journal" / cell.digest).read_text().split().count("begun") for cell in tuned[:2]}
    assert list(begun.values()) == [1, 3]


def test_workers_have_the_stores_of_the_driver_and_not_its_passwords(
    cluster: Callable[..., Any], plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = cluster(1)
    given = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:1", "VALUESHIFT_CACHE": str(tmp_path), "VALUESHIFT_HOOK": "off"}
    for name, value in (given | {"MLFLOW_TRACKING_PASSWORD": "secret"}).items():
        monkeypatch.setenv(name, value)
    root = tmp_path / "runs"
    (toy, *_) = grid_actions.simulated(plan, "tells_its_environment")
    assert run_cells([toy], root, RayExecutor(root, made.address), print).complete
    found = json.loads((root / "environment.json").read_text())
    assert {name: found.get(name) for name in given} == given
    assert "MLFLOW_TRACKING_PASSWORD" not in found


def test_a_node_that_dies_beside_the_driver_is_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(reference: object) -> None:
        raise LocalRayletDiedError

    monkeypatch.setattr(ray, "get", dead)
    assert ray_executor._outcome(None).end == "died"


def test_without_a_cluster_the_error_says_what_to_do(tmp_path: Path, nowhere: str) -> None:
    with pytest.raises(
        ValueshiftError, match=f"no Ray cluster answers at {nowhere} .* start one with `ray start --head`"
    ):
        RayExecutor(tmp_path, nowhere)


def test_workers_nodes_and_drivers_are_killed_and_the_end_is_as_if_undisturbed(
    cluster: Callable[..., Any], plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:
    from mlflow import MlflowClient

    root, calm = tmp_path / "runs", tmp_path / "calm"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    made = cluster(3, seconds=2.0, published=True)
    chance = random.Random(8)
    for round_ in range(5):
        process = driver(plan, made.address)
        wait_for(lambda: bool(at_work(root)) or process.poll() is not None)  # noqa: B023
        time.sleep(chance.uniform(0, 2))
        if found := at_work(root):
            with suppress(ProcessLookupError):  # it was of a driver before
                os.kill(chance.choice(found), signal.SIGKILL)
        time.sleep(chance.uniform(0, 2))
        if round_ in (1, 3):
            made.remove_node(chance.choice(list(made.worker_nodes)), allow_graceful=False)
            made.add_node(**NODE)
        process.kill()
        process.wait()
        process.stdout.close()
    cells = grid_actions.simulated(plan)
    assert outstanding(cells, root), "it was over before it was disturbed enough"
    process = driver(plan, made.address)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [found.experiment_id for found in client.search_experiments() if found.name == "valueshift"]
    published = Counter(found.data.tags["valueshift.record"] for found in client.search_runs([experiment]))
    assert published == Counter(folder.name for folder in find_records(root))

    monkeypatch.setenv("GRID_SECONDS", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nowhere}")
    run_cells(cells, calm, LocalExecutor(calm), lambda line: None)
    assert numbers(root) == numbers(calm)


def test_a_head_that_goes_away_is_named_and_the_same_command_goes_on(
    cluster: Callable[..., Any], plan: Path, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    made = cluster(2, seconds=1.0)
    process = driver(plan, made.address)
    wait_for(lambda: len(list((root / "cells").glob("*.json"))) >= 3 or process.poll() is not None)
    address = made.address
    made.head_node.kill_gcs_server()
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 2, output
    assert f"no Ray cluster answers at {address}" in output
    made.shutdown()
    cells = grid_actions.simulated(plan)
    assert 0 < len(outstanding(cells, root)) < len(cells)
    again = cluster(1)
    process = driver(plan, again.address)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0, output
    assert not outstanding(cells, root)
