"""MLflow as a sink of run records: whatever is sent here is whole on disk before, and is sent at most once.

A run is created as `publishing` and becomes `complete` with the very last call, so that a process that dies in between
leaves a run that no reader counts and that the next publication finishes. Everything is logged synchronously and can be
logged twice without a trace: metrics carry the record's own time, and params that the run has are left out.
"""

import getpass
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST, ErrorCode

from ..core.errors import ValueshiftError
from ..core.paths import mlflow_experiment, mlflow_run_id, mlflow_uri
from ..core.records import KINDS, RunRecord, read_record
from . import schema
from .client import experiment_id, opened, shown
from .contents import artifacts, curves, datasets, log_checkpoints, table_tag, write_tables
from .lineage import made_by


@dataclass(frozen=True)
class Published:
    """Where a record is in MLflow."""

    record: str
    """The record's folder name."""
    run_id: str
    experiment_id: str
    where: str
    """The run's page on a server, else the store's URI."""
    already: bool
    """It was there before, or another process is sending it; this one added nothing."""


@dataclass(frozen=True)
class _Item:
    """A record, where it lies, and the runs root that holds what it is about."""

    folder: Path
    record: RunRecord
    root: Path

    @cached_property
    def made(self) -> tuple[RunRecord, ...]:
        """The finetune records of its models, as far as there are any."""
        return made_by(self.record, self.root)


def publish(folder: Path, root: Path, uri: str | None = None) -> Published:
    """Send one record to MLflow, unless it is there.

    The record becomes a run of its own, except under an active MLflow run of the same store or where `MLFLOW_RUN_ID`
    names one: it is then added to that run, which is left unfinished, with its artifacts in a folder of its own.

    Args:
        folder: the record.
        root: the runs root: two processes that publish from it wait for each other.
        uri: MLflow's tracking URI; default is the active run's store, `MLFLOW_TRACKING_URI`, or SQLite in `root`.

    Raises:
        ServerAwayError: nothing answers within seconds; the record is kept.
        ValueshiftError: the record is damaged, MLflow refuses, or `MLFLOW_RUN_ID` names no run.
    """
    active = mlflow.active_run()
    uri = uri or (mlflow.get_tracking_uri() if active else mlflow_uri(root))
    outer = active.info.run_id if active and mlflow.get_tracking_uri() == uri else mlflow_run_id()
    item = _Item(folder, read_record(folder), root)
    with opened(root, uri) as client:
        if outer:
            return _published(uri, item.record, *_into_run(client, item, outer))
        return _published(uri, item.record, *_own_run(client, item, experiment_id(client, mlflow_experiment())))


def publish_missing(root: Path, uri: str | None = None) -> list[Published]:
    """Send all records under `root` that MLflow's experiment does not have yet, oldest first, each as its own run.

    Returns:
        those that were sent.

    Raises:
        ServerAwayError: nothing answers within seconds.
        ValueshiftError: MLflow refuses; what was sent before stays. Or a record is damaged; all others were sent.
    """
    uri = uri or mlflow_uri(root)
    sent, items, damaged = [], [], []
    for path in (path for kind in KINDS for path in sorted(root.glob(f"{kind}-*/record.json"))):
        try:
            items.append(_Item(path.parent, read_record(path.parent), root))
        except ValueshiftError as error:
            damaged.append(error)
    for item in sorted(items, key=lambda item: item.record.created):
        with opened(root, uri) as client:
            run, already = _own_run(client, item, experiment_id(client, mlflow_experiment()))
        if not already:
            sent.append(_published(uri, item.record, run, already))
    if damaged:
        raise ValueshiftError(f"{damaged[0]}; MLflow has the {len(items)} whole records") from damaged[0]
    return sent


def _published(uri: str, record: RunRecord, run: Run, already: bool) -> Published:
    experiment, run_id = run.info.experiment_id, run.info.run_id
    page = f"{shown(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return Published(record.name, run_id, experiment, page if uri.startswith("http") else shown(uri), already)


def _own_run(client: MlflowClient, item: _Item, experiment: str) -> tuple[Run, bool]:
    """The complete run of this content in `experiment`, and whether it was there before."""
    content = schema.content_key(item.folder, item.record)
    runs = _runs_of(client, experiment, content)
    if complete := _complete(runs):
        return complete, True
    run = runs[0] if runs else _new_run(client, experiment, item, content)
    _send(client, run, item, artifact_path=None)
    # The lock of `opened` does not reach a process with another runs root. Of two such processes one yields here,
    # unless it stalled between its look and its creation above for as long as the other took to publish.
    others = [other for other in _runs_of(client, experiment, content) if other.info.run_id != run.info.run_id]
    if other := _complete(others) or next((other for other in others if other.info.run_id < run.info.run_id), None):
        client.delete_run(run.info.run_id)
        return other, True
    client.set_terminated(run.info.run_id, "FINISHED", end_time=schema.milliseconds(item.record))
    client.set_tag(run.info.run_id, schema.STATUS, schema.COMPLETE)
    return run, False


def _new_run(client: MlflowClient, experiment: str, item: _Item, content: str) -> Run:
    record, made = item.record, item.made
    tags = {
        **schema.tags(record, made),
        schema.DESCRIPTION: schema.description(record),
        schema.CONTENT: content,
        schema.STATUS: schema.PUBLISHING,
        # As MLflow's own `start_run` notes it:
        "mlflow.user": _user(),
        "mlflow.source.name": "valueshift",
        "mlflow.source.type": "LOCAL",
    }
    return client.create_run(experiment, schema.milliseconds(record), tags, schema.run_name(record, made))


def _into_run(client: MlflowClient, item: _Item, run_id: str) -> tuple[Run, bool]:
    """The given run with the record added, and whether it had it before."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise ValueshiftError(
            f"MLFLOW_RUN_ID names the run {run_id}, which MLflow at {shown(client.tracking_uri)} does not have; "
            "unset it or set MLFLOW_TRACKING_URI to its store"
        ) from error
    content = schema.content_key(item.folder, item.record)
    there = run.data.tags.get(schema.CONTENT, "").split()
    if content in there:
        return run, True
    _send(client, run, item, artifact_path=item.record.name)
    for name, value in {**schema.tags(item.record, item.made), schema.STATUS: schema.COMPLETE}.items():
        client.set_tag(run_id, name, value)
    client.set_tag(run_id, schema.CONTENT, " ".join([*there, content]))
    return run, False


def _runs_of(client: MlflowClient, experiment: str, content: str) -> list[Run]:
    runs = client.search_runs([experiment], f"tags.`{schema.CONTENT}` LIKE '%{content}%'")
    return sorted(runs, key=lambda run: run.info.run_id)


def _complete(runs: Sequence[Run]) -> Run | None:
    return next((run for run in runs if run.data.tags.get(schema.STATUS) == schema.COMPLETE), None)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


def _send(client: MlflowClient, run: Run, item: _Item, artifact_path: str | None) -> None:
    """Log everything of the record but the marks of completeness."""
    run_id, record, made = run.info.run_id, item.record, item.made
    time = schema.milliseconds(record)
    metrics = [Metric(name, value, time, 0) for name, value in schema.metrics(record).items()]
    params = [Param(name, value) for name, value in schema.params(record, made).items() if name not in run.data.params]
    with tempfile.TemporaryDirectory() as views:
        tables = RunTag(*table_tag(write_tables(item.folder, record, Path(views)), artifact_path, run))
        values = {"metrics": [*metrics, *curves(item.folder, record)], "params": params, "tags": [tables]}
        _despite_others(lambda: client.log_batch(run_id, **values, synchronous=True))
        if found := datasets(record, made):
            _despite_others(lambda: client.log_inputs(run_id, found))
        _despite_others(lambda: log_checkpoints(client, run, record, made))
        client.log_artifacts(run_id, views, artifact_path)
    for file, place in artifacts(item.folder, record):
        client.log_artifact(run_id, str(file), "/".join(filter(None, (artifact_path, place))) or None)


def _despite_others(call: Callable[[], object]) -> None:
    """Two processes that log the same param or dataset first collide in MLflow's tables; a second try finds it there."""
    try:
        call()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        call()
