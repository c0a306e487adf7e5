"""Faults while records are published: servers that die, answer 500 or lose answers, full disks, PostgreSQL killed.

Whatever happens: the record stays whole on disk, no run is doubled or in another experiment, none is FINISHED or complete with
anything missing, and the next publication finishes the rest.
"""

import os
import pwd
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from tracking_stores import Answer, Fork, Proxy, Server, finetune_record, free_port, publish_together
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import read_record
from valueshift.tracking import schema
from valueshift.tracking.client import ServerAwayError
from valueshift.tracking.publish import publish, publish_missing


def runs_of(uri: str) -> list[Run]:
    """All runs of all experiments, with their inputs and outputs."""
    client = MlflowClient(uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return [client.get_run(run.info.run_id) for run in client.search_runs(experiments)]


def is_whole(client: MlflowClient, run: Run, folder: Path) -> bool:
    record, found = read_record(folder), client.list_artifacts(run.info.run_id)
    names = {"record.json", *(f"{table}.{kind}" for table in record.tables for kind in ("parquet", "json"))}
    points = client.get_metric_history(run.info.run_id, "curve/train")
    return (
        {name: run.data.metrics[name] for name in schema.metrics(record)} == schema.metrics(record)
        and [point.step for point in points] == list(range(1, int(record.metrics["steps"]) + 1))
        and run.data.params == schema.params(record, [record])
        and {item.path for item in found} == names
        and len(run.inputs.dataset_inputs) == len(run.inputs.model_inputs) == len(run.outputs.model_outputs) == 1
    )


def assert_nothing_is_wrong(uri: str, folders: list[Path]) -> None:
    """At any time: at most one run a record, all in our experiment, and whole where they claim to be."""
    client, by_name = MlflowClient(uri), {folder.name: folder for folder in folders}
    runs = runs_of(uri)
    names = [run.data.tags[schema.RECORD] for run in runs]
    assert len(names) == len(set(names))
    experiment = client.get_experiment_by_name("valueshift")
    assert {run.info.experiment_id for run in runs} <= {experiment.experiment_id if experiment else None}
    for run in runs:
        if run.info.status == "FINISHED" or run.data.tags[schema.STATUS] == schema.COMPLETE:
            assert is_whole(client, run, by_name[run.data.tags[schema.RECORD]])


def assert_all_is_there(uri: str, folders: list[Path]) -> None:
    assert_nothing_is_wrong(uri, folders)
    runs = runs_of(uri)
    assert {run.data.tags[schema.RECORD] for run in runs} == {folder.name for folder in folders}
    assert {(run.info.status, run.data.tags[schema.STATUS]) for run in runs} == {("FINISHED", schema.COMPLETE)}


# A full disk


def publish_on_a_small_disk(folder: Path, root: Path, size: int, answer: Any) -> None:
    """No file of this process grows beyond `size` bytes: writing fails as it does on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        publish(folder, root)
        answer.send("")
    except ValueshiftError as error:
        answer.send(str(error))


def in_a_child(work: Callable[..., object], *arguments: Any) -> str:
    ours, theirs = Fork.Pipe(duplex=False)
    child = Fork.Process(target=work, args=(*arguments, theirs))
    child.start()
    theirs.close()
    try:
        return str(ours.recv())
    finally:
        child.join(60)


def test_a_database_that_cannot_grow(root: Path) -> None:
    """It fails at every place where the file has to grow; at last it has grown enough."""
    folder, uri = finetune_record(root, rows=2000), f"sqlite:///{root / 'mlflow.db'}"
    start, reasons = (root / "mlflow.db").stat().st_size, []
    for pages in range(0, 400, 20):
        reasons.append(in_a_child(publish_on_a_small_disk, folder, root, start + 4096 * pages))
        assert_nothing_is_wrong(uri, [folder])
        assert read_record(folder).kind == "finetune"
        if not reasons[-1]:
            break
    assert len(reasons) > 2
    assert reasons[-1] == ""
    assert all("valueshift publish" in reason for reason in reasons[:-1])
    assert_all_is_there(uri, [folder])


def test_artifacts_that_do_not_fit(root: Path) -> None:
    folder, uri = finetune_record(root, rows=400_000), f"sqlite:///{root / 'mlflow.db'}"
    table, database = (folder / "noise.parquet").stat().st_size, (root / "mlflow.db").stat().st_size
    shutil.copy(folder / "noise.parquet", root / "copy")
    losses = pd.read_parquet(folder / "losses.parquet").head(20)
    losses.to_parquet(folder / "losses.parquet", index=False)
    limit = (table + database + 400_000) // 2
    assert database + 200_000 < limit < table
    reason = in_a_child(publish_on_a_small_disk, folder, root, limit)
    assert "cannot write" in reason
    assert "File too large" in reason
    assert "valueshift publish" in reason
    (run,) = runs_of(uri)
    assert (run.info.status, run.data.tags[schema.STATUS]) == ("RUNNING", schema.PUBLISHING)
    assert (folder / "noise.parquet").read_bytes() == (root / "copy").read_bytes()
    assert [item.record for item in publish_missing(root)] == [folder.name]
    (run,) = runs_of(uri)
    assert (run.info.status, run.data.tags[schema.STATUS]) == ("FINISHED", schema.COMPLETE)
    copy = MlflowClient(uri).download_artifacts(run.info.run_id, "noise.parquet", str(root))
    assert Path(copy).read_bytes() == (folder / "noise.parquet").read_bytes()


# A server that fails


class Failing(Proxy):
    """Answers the first `healthy` requests and fails at all others.

    `lost`: the failing request is carried out and only its answer is lost, and the connection with it.
    """

    def __init__(self, server: str, lost: bool) -> None:
        self.healthy = 0

        def answer(_: Proxy, asked: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
            failing = self.asked > self.healthy
            if failing and not lost:
                return 500, [b"out of order"]
            done = self.forward(asked, body)
            return None if failing else done

        super().__init__(server, answer)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [False, True], ids=["answers 500", "loses the answer"])
def test_a_server_that_fails_at_any_request(tmp_path: Path, empty_store: Path, lost: bool) -> None:
    """One more request succeeds in every attempt, so that each of them is once the first that fails."""
    shutil.copy(empty_store, tmp_path)
    running = Server(tmp_path, free_port())
    proxy = Failing(running.uri, lost)
    folder, failures = finetune_record(tmp_path), 0
    try:
        for proxy.healthy in range(60):
            proxy.asked = 0
            try:
                publish(folder, tmp_path, proxy.uri)
                break
            except ServerAwayError as error:
                expected = "cannot be reached or does not end its answer" if lost else "fails (HTTP 500)"
                assert f"{expected}; the record is kept, and `valueshift publish` sends it" in str(error)
                failures += 1
            finally:
                assert read_record(folder).kind == "finetune"
                assert_nothing_is_wrong(running.uri, [folder])
        assert failures > 10
        assert_all_is_there(running.uri, [folder])
        proxy.healthy, proxy.asked = 1000, 0
        assert publish(folder, tmp_path, proxy.uri).already
    finally:
        proxy.close()
        running.kill()


def test_a_server_that_always_answers_500_costs_no_time(tmp_path: Path, slept: list[float]) -> None:
    proxy = Failing("http://127.0.0.1:1", lost=False)
    with pytest.raises(ServerAwayError, match=rf"MLflow at {proxy.uri} fails \(HTTP 500\); .*valueshift publish"):
        publish(finetune_record(tmp_path), tmp_path, proxy.uri)
    assert sum(slept) < 5
    proxy.close()


@pytest.mark.slow
def test_a_server_that_is_down_before_during_and_after(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders, port = [finetune_record(root, name) for name in "abc"], free_port()
    uri = f"http://127.0.0.1:{port}"
    with pytest.raises(ServerAwayError, match="cannot be reached"):
        publish_missing(root, uri)

    running = Server(root, port)
    original = MlflowClient.log_inputs

    def dying(self: MlflowClient, *arguments: Any, **options: Any) -> None:
        if len(runs_of(f"sqlite:///{root / 'mlflow.db'}")) == 2:
            running.kill()
        original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_inputs", dying)
        with pytest.raises(ServerAwayError, match="cannot be reached"):
            publish_missing(root, uri)

    running = Server(root, port)
    assert_nothing_is_wrong(uri, folders)
    assert sorted(run.info.status for run in runs_of(uri)) == ["FINISHED", "RUNNING"]
    assert len(publish_missing(root, uri)) == 2
    running.kill()
    with pytest.raises(ServerAwayError):
        publish_missing(root, uri)
    running = Server(root, port)
    try:
        assert publish_missing(root, uri) == []
        assert_all_is_there(uri, folders)
    finally:
        running.kill()


# PostgreSQL


class Postgres:
    """A PostgreSQL server of its own on the loopback interface; as root it runs as the user `postgres` or `nobody`."""

    def __init__(self, folder: Path, port: int) -> None:
        if not (shutil.which("initdb") and shutil.which("postgres")):
            pytest.skip("PostgreSQL is not installed (initdb and postgres on the PATH)")
        pytest.importorskip("psycopg2", reason="MLflow needs psycopg2 for PostgreSQL: pip install psycopg2-binary")
        self.data, self.port, self.user = folder / "data", port, {}
        if os.geteuid() == 0:
            names = {entry.pw_name: entry for entry in pwd.getpwall()}
            account = names.get("postgres") or names.get("nobody")
            if account is None or not shutil.which("setpriv"):
                pytest.skip("PostgreSQL refuses to run as root, and there is no other user to run it as")
            self.user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
            os.chown(folder, account.pw_uid, account.pw_gid)
        self.folder, self.log = folder, folder / "log"
        command = ["initdb", "-D", str(self.data), "-U", "valueshift", "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **self.user)
        self.start()

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://valueshift@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        command = ["postgres", "-D", str(self.data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self.folder)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True, **self.user
            )
        import psycopg2

        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg2.connect(host="127.0.0.1", port=self.port, user="valueshift", dbname="postgres").close()
                return
            except psycopg2.OperationalError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.1)

    def kill(self) -> None:
        """End all its processes at once, as a crash of the machine does."""
        if self.process.poll() is None:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for process in (self.process.pid, *map(int, children)):
                os.kill(process, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    # Not in pytest's own temporary folder, which no other user can enter.
    with tempfile.TemporaryDirectory(prefix="valueshift-postgres-") as folder:
        running = Postgres(Path(folder), free_port())
        yield running
        running.kill()


@pytest.mark.slow
def test_postgresql_new_with_four_processes_then_killed_and_restarted(
    tmp_path: Path, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Straight into the database, then through a server, whose database is killed while a record is sent."""
    monkeypatch.chdir(tmp_path)
    folders = [finetune_record(tmp_path, f"{number}") for number in range(8)]
    barrier = Fork.Barrier(4)
    children = [
        Fork.Process(target=publish_together, args=(barrier, [(item, tmp_path) for item in own], postgres.uri))
        for own in ([*folders[number::4], folders[0]] for number in range(4))
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
    assert [child.exitcode for child in children] == [0] * 4
    assert_all_is_there(postgres.uri, folders)

    later = finetune_record(tmp_path, "later")
    running = Server(tmp_path, free_port(), postgres.uri)
    original = MlflowClient.log_inputs

    def dying(self: MlflowClient, *arguments: Any, **options: Any) -> None:
        postgres.kill()
        original(self, *arguments, **options)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, "log_inputs", dying)
            with pytest.raises(ServerAwayError, match="valueshift publish"):
                publish(later, tmp_path, running.uri)
        with pytest.raises(ServerAwayError, match="cannot be reached"):
            publish(later, tmp_path, postgres.uri)
        postgres.start()
        assert_nothing_is_wrong(postgres.uri, [*folders, later])
        assert [item.record for item in publish_missing(tmp_path, running.uri)] == [later.name]
        assert_all_is_there(postgres.uri, [*folders, later])
    finally:
        running.kill()
