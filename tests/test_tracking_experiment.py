"""Where records go is where MLflow itself would log: its store, its experiment, by its own precedence."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.tracking import fluent
from tracking_stores import all_runs, probe_record, sqlite_uri
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import tracking_enabled
from valueshift.tracking.publish import publish, publish_missing


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process, before and after."""
    monkeypatch.setattr(fluent, "_active_experiment_id", None)
    yield
    mlflow.set_tracking_uri(None)


@pytest.fixture
def mine(tmp_path: Path, empty_store: Path) -> str:
    """A store beside the runs root's own."""
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mine.db')}"


def experiments_with_runs(uri: str) -> list[str]:
    client = MlflowClient(uri)
    return [found.name for found in client.search_experiments() if client.search_runs([found.experiment_id])]


def test_what_the_process_has_set_receives_the_records(root: Path, mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow.set_tracking_uri(mine)
    publish(probe_record(root), root)
    assert experiments_with_runs(mine) == ["valueshift"]
    mlflow.set_experiment("my-notebook")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "theirs")
    publish(probe_record(root, "second"), root)
    assert [run.data.params["model"] for run in all_runs(mine, "my-notebook")] == ["second"]
    assert MlflowClient(mine).get_experiment_by_name("theirs") is None
    assert [run.data.params["model"] for run in all_runs(mine, "valueshift")] == ["google/mt5-small"]


def test_an_experiment_that_was_set_says_nothing_about_another_store(root: Path, mine: str) -> None:
    mlflow.set_tracking_uri(mine)
    mlflow.set_experiment("my-notebook")
    publish(probe_record(root), root, sqlite_uri(root))
    assert experiments_with_runs(sqlite_uri(root)) == ["valueshift"]
    assert experiments_with_runs(mine) == []


def test_an_experiment_of_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = sqlite_uri(root)
    by_id = MlflowClient(uri).create_experiment("by id", artifact_location=(root / "files").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", by_id)
    assert publish(probe_record(root), root).experiment_id == by_id
    assert publish_missing(root) == []
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "by id")
    assert publish(probe_record(root, "second"), root).experiment_id == by_id
    assert experiments_with_runs(uri) == ["by id"]


@pytest.mark.parametrize(
    ("name", "identity", "reason"),
    [
        (None, "77", "MLFLOW_EXPERIMENT_ID names the experiment 77, which MLflow at .* does not have; choose another"),
        (None, "no number", "MLFLOW_EXPERIMENT_ID names the experiment no number, which MLflow at .* does not have"),
        (
            "Default",
            "77",
            "MLFLOW_EXPERIMENT_NAME 'Default' is the experiment 0 of .*, MLFLOW_EXPERIMENT_ID is 77; unset",
        ),
        (None, "deleted", "the MLflow experiment 'gone' is deleted; restore it with `mlflow experiments restore -x 1`"),
        ("gone", None, "the MLflow experiment 'gone' is deleted; restore it with `mlflow experiments restore -x 1`"),
    ],
)
def test_an_experiment_that_cannot_be_used_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, identity: str | None, reason: str
) -> None:
    client = MlflowClient(sqlite_uri(root))
    gone = client.create_experiment("gone")
    client.delete_experiment(gone)
    if name:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    if identity:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", gone if identity == "deleted" else identity)
    with pytest.raises(ValueshiftError, match=reason):
        publish(probe_record(root), root)


@pytest.mark.parametrize("name", ["TRACKING_URI", "EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID"])
def test_lm_eval_is_tracked_where_the_environment_chooses_anything_of_mlflow(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    assert not tracking_enabled()
    monkeypatch.setenv(f"MLFLOW_{name}", "1")
    assert tracking_enabled()
    monkeypatch.setenv("VALUESHIFT_TRACKING", "off")
    assert not tracking_enabled()


def test_lm_eval_is_tracked_where_the_process_uses_mlflow(
    root: Path, mine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow.set_tracking_uri(mine)
    with monkeypatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI")
        assert not tracking_enabled()
        with mlflow.start_run():
            assert tracking_enabled()
        mlflow.set_experiment("my-notebook")
        assert tracking_enabled()
        patch.delenv("MLFLOW_EXPERIMENT_ID")
        publish(probe_record(root), root)
    assert [run.data.params["model"] for run in all_runs(mine, "my-notebook")] == ["google/mt5-small"]
