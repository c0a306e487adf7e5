"""Stores that are away, damaged or refuse: named within seconds, with the remedy, and the record is kept."""

import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from tracking_stores import all_runs, is_complete, probe_record, sqlite_uri
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import read_record
from valueshift.tracking import client as client_module
from valueshift.tracking.client import ServerAwayError, opened
from valueshift.tracking.experiment import experiment_id
from valueshift.tracking.publish import publish, publish_missing


def test_a_server_that_is_not_there_costs_no_time_and_no_record(root: Path, slept: list[float], nowhere: str) -> None:
    folder = probe_record(root)
    settings = dict(os.environ)
    with pytest.raises(ServerAwayError) as caught:
        publish(folder, root, f"http://me:secret@{nowhere}")
    assert sum(slept) < 5
    assert "http://127.0.0.1" in str(caught.value)
    assert "valueshift publish" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert dict(os.environ) == settings
    assert read_record(folder).kind == "probe"
    assert len(publish_missing(root)) == 1


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GREETING_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(ServerAwayError, match="cannot be reached") as caught:
            publish(probe_record(tmp_path), tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert "timeout" in str(caught.value.__cause__)


@pytest.mark.parametrize("damage", [lambda path: path.write_text("no database" * 500), Path.mkdir])
def test_a_damaged_store_is_named_at_once(tmp_path: Path, damage: Callable[[Path], object], slept: list[float]) -> None:
    """MLflow itself tries for 100 seconds to open what cannot be opened."""
    folder = probe_record(tmp_path)
    damage(tmp_path / "mlflow.db")
    with pytest.raises(ValueshiftError, match=r"mlflow\.db cannot be used by MLflow .*valueshift publish"):
        publish(folder, tmp_path)
    assert sum(slept) < 5


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("foo://bar", r"foo://bar refuses: .*unsupported URI"),
        ("sqlite:////dev/null/mlflow.db", r"cannot write /dev/null"),
        ("sqlite://", "is a store in memory, gone when this command ends"),
        ("sqlite:///:memory:", "is a store in memory"),
        ("sqlite:///file::memory:?uri=true", "is a store in memory"),
        ("sqlite:///file:x?mode=memory&cache=shared&uri=true", "is a store in memory"),
        (f"sqlite:////tmp/{'x' * 200}/{'y' * 200}/{'z' * 200}/mlflow.db", "SQLite opens no file whose path has more"),
    ],
)
def test_a_store_that_cannot_be_is_named(tmp_path: Path, uri: str, reason: str) -> None:
    with pytest.raises(ValueshiftError, match=reason):
        publish(probe_record(tmp_path), tmp_path, uri)


def test_a_store_that_another_program_holds_is_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BUSY_SECONDS", 1)
    folder = probe_record(root)
    with sqlite3.connect(root / "mlflow.db", check_same_thread=False) as other:
        other.execute("BEGIN EXCLUSIVE")
        start = time.monotonic()
        with pytest.raises(ServerAwayError, match=r"mlflow\.db is held locked by another program; the record is kept"):
            publish(folder, root)
        assert 0.9 < time.monotonic() - start < 30
        monkeypatch.setattr(client_module, "BUSY_SECONDS", 30)
        threading.Timer(0.5, other.rollback).start()
        assert not publish(folder, root).already


def test_a_refused_call_leaves_the_run_unfinished(root: Path) -> None:
    folder = probe_record(root)
    with opened(root, sqlite_uri(root)) as client:
        experiment_id(client, "valueshift")
    with sqlite3.connect(root / "mlflow.db") as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(ValueshiftError, match=r"refuses: .*disk full.*valueshift publish"):
        publish(folder, root)
    assert [is_complete(run) for run in all_runs(sqlite_uri(root))] == [False]
    with sqlite3.connect(root / "mlflow.db") as connection:
        connection.execute("DROP TRIGGER full")
    assert [item.record for item in publish_missing(root)] == [folder.name]
    assert [is_complete(run) for run in all_runs(sqlite_uri(root))] == [True]


def test_an_experiment_in_the_trash(root: Path) -> None:
    uri = sqlite_uri(root)
    publish(probe_record(root), root)
    MlflowClient(uri).delete_experiment("1")
    with pytest.raises(
        ValueshiftError, match="'valueshift' is deleted; restore it with `mlflow experiments restore -x 1`"
    ):
        publish(probe_record(root, "other"), root)
