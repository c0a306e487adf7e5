"""Runs that the user has started: records go into them, they stay open, and those of another store are left alone."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from tracking_stores import all_runs, contents, is_complete, probe_record, sqlite_uri
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import read_record
from valueshift.tracking import schema
from valueshift.tracking.client import opened
from valueshift.tracking.experiment import experiment_id
from valueshift.tracking.publish import publish, publish_missing


@pytest.fixture
def own_store(root: Path, empty_store: Path) -> Iterator[str]:
    """The store that the user has chosen in this process."""
    uri = f"sqlite:///{shutil.copy(empty_store, root / 'mine.db')}"
    mlflow.set_tracking_uri(uri)
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def test_an_active_run_receives_the_records_and_goes_on(root: Path, own_store: str) -> None:
    thesis = mlflow.create_experiment("thesis", artifact_location=(root / "files").as_uri())
    probe, second = probe_record(root), probe_record(root, "second")
    with mlflow.start_run(experiment_id=thesis) as active:
        mlflow.log_param("dtype", "mine")
        done = [publish(folder, root) for folder in (probe, second)]
        mlflow.log_metric("later", 1.0)
        assert [item.run_id for item in done] == [active.info.run_id] * 2
        assert mlflow.active_run().info.run_id == active.info.run_id
        assert MlflowClient().get_run(active.info.run_id).info.status == "RUNNING"
        before = contents(root / "mine.db")
        assert [publish(folder, root).already for folder in (probe, second)] == [True, True]
        assert contents(root / "mine.db") == before
    (run,) = all_runs(own_store, "thesis")
    assert run.data.params["dtype"] == "mine"
    assert run.data.params["format"] == "encoder-decoder"
    assert run.data.metrics["first_share/de"] == schema.metrics(read_record(probe))["first_share/de"]
    assert run.data.tags[schema.STATUS] == "complete"
    assert {item.path for item in MlflowClient().list_artifacts(run.info.run_id)} == {probe.name, second.name}
    assert MlflowClient(sqlite_uri(root)).get_experiment_by_name("valueshift") is None


def test_an_active_run_of_another_store_is_left_alone(root: Path, own_store: str) -> None:
    uri = sqlite_uri(root)
    with mlflow.start_run() as active:
        done = publish(probe_record(root), root, uri)
        assert done.run_id != active.info.run_id
    assert [is_complete(run) for run in all_runs(uri)] == [True]


def test_missing_records_never_go_into_an_active_run(root: Path, own_store: str) -> None:
    probe_record(root)
    with mlflow.start_run() as active:
        (sent,) = publish_missing(root)
    assert sent.run_id != active.info.run_id


def test_the_run_of_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, uri = probe_record(root), sqlite_uri(root)
    with opened(root, uri) as client:
        theirs = client.create_run(experiment_id(client, "harness")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    assert publish(folder, root).run_id == theirs
    assert publish(folder, root).already
    (run,) = all_runs(uri, "harness")
    assert run.info.status == "RUNNING"
    assert run.data.tags[schema.RECORD] == folder.name
    assert MlflowClient(uri).get_experiment_by_name("valueshift") is None

    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(ValueshiftError, match=f"MLFLOW_RUN_ID names the run {'f' * 32}, .* unset it"):
        publish(folder, root)
