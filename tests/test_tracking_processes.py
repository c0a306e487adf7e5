"""Processes that are killed while they publish, or publish at once: each record becomes one whole run."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracking_stores import Fork, all_runs, is_complete, probe_record, publish_together, sqlite_uri
from valueshift.core.records import read_record
from valueshift.tracking import schema
from valueshift.tracking.client import opened
from valueshift.tracking.experiment import experiment_id
from valueshift.tracking.publish import publish


def process(work: Callable[..., object], *arguments: object) -> int | None:
    """Exit status of `work` in a child of its own; negative is the signal that ended it."""
    child = Fork.Process(target=work, args=arguments)
    child.start()
    child.join(120)
    return child.exitcode


def publish_and_die(folder: Path, root: Path, method: str, after: bool) -> None:
    original = getattr(MlflowClient, method)

    def dying(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        if after:
            original(self, *arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MlflowClient, method, dying)
    publish(folder, root)


@pytest.mark.parametrize(
    ("method", "after"),
    [
        ("create_run", True),
        ("log_batch", True),
        ("log_inputs", True),
        ("create_logged_model", True),
        ("log_artifacts", False),
        ("log_artifacts", True),
        ("set_terminated", True),
    ],
)
def test_a_publication_killed_in_the_middle_is_finished_by_the_next(root: Path, method: str, after: bool) -> None:
    folder, other = probe_record(root), probe_record(root, "other")
    publish(other, root)
    assert process(publish_and_die, folder, root, method, after) == -signal.SIGKILL
    assert sorted(is_complete(run) for run in all_runs(sqlite_uri(root))) == [False, True]

    assert not publish(folder, root).already
    runs = {run.data.tags[schema.RECORD]: run for run in all_runs(sqlite_uri(root))}
    assert set(runs) == {folder.name, other.name}
    client = MlflowClient(sqlite_uri(root))
    run = client.get_run(runs[folder.name].info.run_id)
    assert is_complete(run)
    assert run.data.metrics == schema.metrics(read_record(folder))
    assert run.data.params == schema.params(read_record(folder))
    assert len(run.inputs.dataset_inputs) == len(run.inputs.model_inputs) == 1
    assert len(client.list_artifacts(run.info.run_id)) == 5
    assert len(client.search_logged_models([run.info.experiment_id])) == 2


def test_eight_processes_on_a_new_store(tmp_path: Path) -> None:
    """24 records of their own and one that all publish; without the lock 3 of 24 arrived."""
    shared = probe_record(tmp_path, "shared")
    barrier, uri = Fork.Barrier(8), sqlite_uri(tmp_path)
    own = [[probe_record(tmp_path, f"{worker}-{number}") for number in range(3)] for worker in range(8)]
    children = [
        Fork.Process(target=publish_together, args=(barrier, [(item, tmp_path) for item in [*folders, shared]], uri))
        for folders in own
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
    assert [child.exitcode for child in children] == [0] * 8
    runs = all_runs(uri)
    expected = sorted([shared.name, *(folder.name for folders in own for folder in folders)])
    assert sorted(run.data.tags[schema.RECORD] for run in runs) == expected
    assert all(is_complete(run) for run in runs)
    assert all_runs(uri, "Default") == []


@pytest.mark.parametrize(
    ("status", "smaller", "yields"),
    [("complete", False, True), ("complete", True, True), ("publishing", True, True), ("publishing", False, False)],
)
def test_of_two_processes_without_a_common_lock_one_yields(
    root: Path, monkeypatch: pytest.MonkeyPatch, status: str, smaller: bool, yields: bool
) -> None:
    """While one publishes, a run of the same content appears, as a process with another runs root makes it."""
    original, twins = MlflowClient.log_batch, []

    def with_a_twin(self: MlflowClient, run_id: str, *arguments: Any, **options: Any) -> None:
        ours = self.get_run(run_id)
        tags = {schema.CONTENT: ours.data.tags[schema.CONTENT], schema.STATUS: status}
        while ((twin := self.create_run(ours.info.experiment_id, tags=tags).info.run_id) < run_id) != smaller:
            self.delete_run(twin)
        twins.append(twin)
        original(self, run_id, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", with_a_twin)
    done = publish(probe_record(root), root)
    assert done.already == yields
    assert (done.run_id == twins[0]) == yields
    left = {run.info.run_id for run in all_runs(sqlite_uri(root))}
    assert left == {twins[0], done.run_id}


def test_an_experiment_created_by_another_at_the_same_moment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(root, sqlite_uri(root)) as client:
        theirs = experiment_id(client, "valueshift")
        original, answers = MlflowClient.get_experiment_by_name, iter([None])
        monkeypatch.setattr(
            MlflowClient,
            "get_experiment_by_name",
            lambda self, name: next(answers, "ask") and original(self, name),
        )
        assert experiment_id(client, "valueshift") == theirs
