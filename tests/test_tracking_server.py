"""The server of `valueshift ui`: it shows what was published, takes what several runs roots send, may die and come back."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from tracking_stores import (
    Fork,
    Server,
    all_runs,
    free_port,
    is_complete,
    probe_record,
    publish_together,
    sqlite_uri,
)
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import read_record
from valueshift.tracking import schema
from valueshift.tracking.client import ServerAwayError
from valueshift.tracking.publish import publish, publish_missing
from valueshift.tracking.ui import serve, ui_command
from valueshift.tracking.views import LAYOUT, VIEWS

pytestmark = pytest.mark.xdist_group("mlflow_server")


def test_the_pages_show_what_was_published(served_root: Path, server: Server) -> None:
    (run,) = all_runs(sqlite_uri(served_root))
    page = f"/get-artifact?path=profile-wvs.csv&run_uuid={run.info.run_id}"
    assert server.get(page).decode().splitlines()[0] == "question,de,fa"
    assert b"<html" in server.get("/")


def test_the_saved_views_are_in_a_format_that_the_pages_read(served_root: Path) -> None:
    """MLflow documents none: this fails when a release stops reading ours."""
    tags = MlflowClient(sqlite_uri(served_root)).get_experiment_by_name("valueshift").tags
    assert tags.items() >= (LAYOUT | dict(view.tag() for view in VIEWS)).items()
    assert [view.title for view in VIEWS] == ["all runs", "shifts by fine-tuning language", "alignment", "seeds"]
    assert "metrics.`kept`" in json.loads(tags["mlflow.sharedViewState.valueshift"])["selectedColumns"]
    scripts = (Path(mlflow.__file__).parent / "server/js/build/static/js").glob("*.js")
    code = "".join(script.read_text(encoding="utf-8") for script in scripts)
    states = [json.loads(view.tag()[1]) for view in VIEWS]
    words = {key for state in states for key in state} | {"groupByKeys", "groupByData", "aggregateFunction"}
    for word in ("viewStateShareKey", "mlflow.sharedViewState.", "workflowType", *LAYOUT, *LAYOUT.values(), *words):
        assert word in code, word


def test_publishing_to_a_server(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "remote")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    folder = probe_record(tmp_path, "model of a server")
    done = publish(folder, tmp_path)
    assert done.where == f"{server.uri}/#/experiments/{done.experiment_id}/runs/{done.run_id}"
    assert publish(folder, tmp_path).already
    assert publish_missing(tmp_path) == []
    (run,) = all_runs(server.uri, "remote")
    assert is_complete(run)
    assert run.data.metrics == schema.metrics(read_record(folder))
    copy = MlflowClient(server.uri).download_artifacts(done.run_id, "scores.parquet", str(tmp_path))
    assert Path(copy).read_bytes() == (folder / "scores.parquet").read_bytes()
    with pytest.raises(ValueshiftError, match=f"open {server.uri} in a browser"):
        ui_command(tmp_path)


def test_four_runs_roots_with_the_same_record_make_one_run(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "copies")
    roots = [tmp_path / str(number) for number in range(4)]
    folder = probe_record(roots[0], "copied")
    for root in roots[1:]:
        shutil.copytree(folder, root / folder.name)
    barrier = Fork.Barrier(4)
    children = [
        Fork.Process(target=publish_together, args=(barrier, [(root / folder.name, root)], server.uri))
        for root in roots
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 4
    assert [is_complete(run) for run in all_runs(server.uri, "copies")] == [True]


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_and_comes_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, port = probe_record(root), free_port()
    running = Server(root, port)
    original = MlflowClient.log_artifacts

    def dying(self: MlflowClient, *arguments: Any) -> None:
        running.kill()
        original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", dying)
        with pytest.raises(ServerAwayError, match="valueshift publish"):
            publish(folder, root, running.uri)
    again = Server(root, port)
    try:
        assert [item.record for item in publish_missing(root, again.uri)] == [folder.name]
        assert [is_complete(run) for run in all_runs(again.uri)] == [True]
    finally:
        again.kill()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueshiftError, match=f"port {port} is taken .*--port"):
            serve(tmp_path, port)
