"""MLflow as a sink of run records: whatever is sent here is whole on disk before, and is sent at most once.

A run is created as `publishing` and becomes `complete` with the very last call, so that a process that dies in between
leaves a run that no reader counts and that the next publication finishes. Everything is logged synchronously and can be
logged twice without a trace: metrics carry the record's own time, and params that the run has are left out.
"""

import getpass
import logging
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunInfo, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import BAD_REQUEST, RESOURCE_DOES_NOT_EXIST, ErrorCode

from ..core.errors import ValueshiftError
from ..core.paths import mlflow_run_id
from ..core.records import KINDS, RunRecord, read_record
from . import schema
from .address import shown
from .client import KEPT, ServerAwayError, alone, answered, explained, lacks, opened, run_of
from .contents import artifacts, curves, datasets, log_checkpoints, table_tag, write_tables
from .experiment import experiment, store
from .lineage import made_by, makers

log = logging.getLogger(__name__)

_FEW = 10
"""So many records are looked up one by one; for more, all runs of the experiment are read at once."""


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


@dataclass
class Account:
    """What became of several records, each for itself."""

    done: list[Published] = field(default_factory=list)
    failed: dict[str, ValueshiftError] = field(default_factory=dict)
    """By folder name, why a record was not sent."""

    @property
    def sent(self) -> list[Published]:
        """Those that MLflow did not have before."""
        return [one for one in self.done if not one.already]

    def complaint(self) -> ValueshiftError | None:
        """One error that says what is missing and why; None where nothing is."""
        if not self.failed:
            return None
        reasons = list(dict.fromkeys(map(str, self.failed.values())))
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        names = ", ".join(list(self.failed)[:3]) + (" ..." if len(self.failed) > 3 else "")
        kind = (
            ServerAwayError
            if any(isinstance(why, ServerAwayError) for why in self.failed.values())
            else ValueshiftError
        )
        return kind(f"{reasons[0]}{more}; MLflow has {len(self.done)} records and lacks {len(self.failed)}: {names}")


@dataclass(frozen=True)
class _Item:
    """A record, where it lies, and the finetune records of its models, as far as there are any."""

    folder: Path
    record: RunRecord
    made: tuple[RunRecord, ...]


@dataclass
class _Sink:
    """A store that is open, and what it could not take."""

    client: MlflowClient
    root: Path
    uri: str
    left_out: Counter[str] = field(default_factory=Counter)

    @cached_property
    def experiment(self) -> str:
        """Id of the experiment that runs of their own go to."""
        return experiment(self.client)

    def say_left_out(self) -> None:
        """Say once what the store could not take of how many records."""
        if self.left_out:
            what = ", ".join(f"{part} of {count} records" for part, count in self.left_out.items())
            log.warning("MLflow at %s does not take %s: left out there, whole in the records", shown(self.uri), what)


@contextmanager
def _open(root: Path, uri: str) -> Iterator[_Sink]:
    with opened(root, uri) as client:
        sink = _Sink(client, root, uri)
        try:
            yield sink
        except KeyboardInterrupt:
            log.warning("stopped: %s", KEPT)
            raise
        finally:
            sink.say_left_out()


def publish(folder: Path, root: Path, uri: str | None = None) -> Published:
    """Send one record to MLflow, unless it is there.

    The record becomes a run of its own, except under an active MLflow run of the same store or where `MLFLOW_RUN_ID`
    names one: it is then added to that run, which is left unfinished, with its artifacts in a folder of its own.
    What a server does not know, such as one before MLflow 3 references to checkpoints, is left out and said.

    Args:
        folder: the record.
        root: the runs root: two processes that publish from it wait for each other.
        uri: MLflow's tracking URI; default is that of `experiment.store`.

    Raises:
        ServerAwayError: nothing answers within seconds; the record is kept.
        ValueshiftError: the record is damaged, MLflow refuses, or `MLFLOW_RUN_ID` names no run.
    """
    uri = uri or store(root)
    record = read_record(folder)
    with _open(root, uri) as sink:
        return _one(sink, _Item(folder, record, made_by(record, makers(root))), callers_run(uri))


def callers_run(uri: str) -> str | None:
    """Id of the run that the caller is in: the active one, where its store is `uri`, else that of `MLFLOW_RUN_ID`."""
    active = mlflow.active_run()
    return active.info.run_id if active and mlflow.get_tracking_uri() == uri else mlflow_run_id()


def publish_all(folders: Sequence[Path], root: Path, uri: str | None = None, into: str | None = None) -> Account:
    """Send those of several records that MLflow does not have, oldest first, each for itself: none stops another.

    Args:
        folders: the records.
        root: as of `publish`.
        uri: as of `publish`.
        into: a run that all of them are added to; else each becomes a run of its own.
    """
    uri, account = uri or store(root), Account()
    try:
        with _open(root, uri) as sink:
            there = complete_runs(sink.client, sink.experiment) if len(folders) > _FEW and not into else {}
            for item in _missing(sink, folders, there, account):
                _send_one(sink, item, into, account)
    except ValueshiftError as error:
        account.failed |= {folder.name: error for folder in folders}
    return account


def _send_one(sink: _Sink, item: _Item, into: str | None, account: Account) -> None:
    away = next((why for why in account.failed.values() if isinstance(why, ServerAwayError)), None)
    try:
        if away:
            raise away
        with explained(sink.uri):
            done = _one(sink, item, into)
    except ValueshiftError as error:
        account.failed[item.folder.name] = error
    else:
        account.done.append(done)


def _missing(sink: _Sink, folders: Sequence[Path], there: Mapping[str, RunInfo], account: Account) -> list[_Item]:
    """The records that are not there, oldest first; those that are, and those that cannot be read, go to the account."""
    found = []
    for folder in folders:
        try:
            if info := there.get(schema.content_key(folder)):
                account.done.append(_published(sink.uri, folder.name, info, already=True))
            else:
                found.append((folder, read_record(folder)))
        except ValueshiftError as error:
            account.failed[folder.name] = error
    made = makers(sink.root) if found else {}
    items = [_Item(folder, record, made_by(record, made)) for folder, record in found]
    return sorted(items, key=lambda item: item.record.created)


def record_folders(root: Path) -> list[Path]:
    """All folders under `root` that claim to be records, unread."""
    return [path.parent for kind in KINDS for path in sorted(root.glob(f"{kind}-*/record.json"))]


def publish_missing(root: Path, uri: str | None = None) -> list[Published]:
    """Send all records under `root` that MLflow's experiment does not have yet, oldest first, each as its own run.

    Returns:
        those that were sent.

    Raises:
        ServerAwayError: nothing answers within seconds.
        ValueshiftError: MLflow refuses records, or they are damaged; all others were sent.
    """
    account = publish_all(record_folders(root), root, uri)
    if complaint := account.complaint():
        raise complaint
    return account.sent


def _one(sink: _Sink, item: _Item, into: str | None) -> Published:
    """Send one record under the lock of the store."""
    with alone(sink.root, sink.uri):
        if into:
            run, already = _into_run(sink, item, into)
        else:
            run, already = _own_run(sink, item)
    return _published(sink.uri, item.record.name, run.info, already)


def _published(uri: str, name: str, info: RunInfo, already: bool) -> Published:
    page = f"{shown(uri).rstrip('/')}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
    return Published(name, info.run_id, info.experiment_id, page if uri.startswith("http") else shown(uri), already)


def _own_run(sink: _Sink, item: _Item) -> tuple[Run, bool]:
    """The complete run of this content in the experiment, and whether it was there before."""
    client, where, content = sink.client, sink.experiment, schema.content_key(item.folder, item.record.name)
    runs = _runs_of(client, where, content)
    if complete := _complete(runs):
        return complete, True
    run = runs[0] if runs else _new_run(client, where, item, content)
    run_id = answered(client, run.info.run_id)
    left_out = _send(sink, run, item, artifact_path=None)
    # The lock does not reach a process with another runs root. Of two such processes one yields here,
    # unless it stalled between its look and its creation above for as long as the other took to publish.
    others = [other for other in _runs_of(client, where, content) if other.info.run_id != run_id]
    if other := _complete(others) or next((other for other in others if other.info.run_id < run_id), None):
        client.delete_run(run_id)
        return other, True
    if left_out:
        client.set_tag(run_id, schema.DESCRIPTION, schema.description(item.record, left_out))
    client.set_terminated(run_id, "FINISHED", end_time=schema.milliseconds(item.record))
    client.set_tag(run_id, schema.STATUS, schema.COMPLETE)
    run = run_of(client, run_id)
    if run.data.tags.get(schema.STATUS) != schema.COMPLETE:
        raise ValueshiftError(f"MLflow at {shown(sink.uri)} does not keep what it is sent (run {run_id}); {KEPT}")
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
    return client.create_run(experiment, schema.began(record), tags, schema.run_name(record, made))


def _into_run(sink: _Sink, item: _Item, run_id: str) -> tuple[Run, bool]:
    """The given run with the record added, and whether it had it before."""
    client = sink.client
    try:
        run = run_of(client, run_id)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        raise ValueshiftError(
            f"MLFLOW_RUN_ID names the run {run_id}, which MLflow at {shown(sink.uri)} does not have; "
            "unset it or set MLFLOW_TRACKING_URI to its store"
        ) from error
    content = schema.content_key(item.folder, item.record.name)
    there = run.data.tags.get(schema.CONTENT, "").split()
    if content in there:
        return run, True
    _send(sink, run, item, artifact_path=item.record.name)
    for name, value in {**schema.tags(item.record, item.made), schema.STATUS: schema.COMPLETE}.items():
        client.set_tag(run_id, name, value)
    client.set_tag(run_id, schema.CONTENT, " ".join([*there, content]))
    return run, False


def complete_runs(client: MlflowClient, where: str) -> dict[str, RunInfo]:
    """What the complete runs of an experiment hold: content key to run."""
    found: dict[str, RunInfo] = {}
    token = None
    while True:
        page = client.search_runs([where], f"tags.`{schema.STATUS}` = '{schema.COMPLETE}'", page_token=token)
        new = {key: run.info for run in page for key in run.data.tags.get(schema.CONTENT, "").split()}
        token = page.token
        if not token or new.keys() <= found.keys():  # a page of nothing new is the last, whatever token it carries
            return new | found
        found |= new


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


def _send(sink: _Sink, run: Run, item: _Item, artifact_path: str | None) -> list[str]:
    """Log everything of the record but the marks of completeness, and return the parts that the store does not know."""
    client, run_id, record, made = sink.client, run.info.run_id, item.record, item.made
    time = schema.milliseconds(record)
    metrics = [Metric(name, value, time, 0) for name, value in schema.metrics(record).items()]
    params = [Param(name, value) for name, value in schema.params(record, made).items() if name not in run.data.params]
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as views:
        tables = RunTag(*table_tag(write_tables(item.folder, record, Path(views)), artifact_path, run))
        values = {"metrics": [*metrics, *curves(item.folder, record)], "params": params, "tags": [tables]}
        _despite_others(lambda: client.log_batch(run_id, **values, synchronous=True))
        with _optional("datasets", left_out):
            if found := datasets(record, made):
                _despite_others(lambda: client.log_inputs(run_id, found))
        with _optional("checkpoints", left_out):
            _despite_others(lambda: log_checkpoints(client, run_id, record, made))
        with _optional("artifacts", left_out):
            client.log_artifacts(run_id, views, artifact_path)
            for file, place in artifacts(item.folder, record):
                client.log_artifact(run_id, str(file), "/".join(filter(None, (artifact_path, place))) or None)
    sink.left_out.update(left_out)
    return left_out


@contextmanager
def _optional(part: str, left_out: list[str]) -> Iterator[None]:
    """Within: what the store does not know is put down as left out."""
    try:
        yield
    except Exception as error:
        if not lacks(error):
            raise
        left_out.append(part)


def _despite_others(call: Callable[[], object]) -> None:
    """Two processes that log the same param or dataset first collide in MLflow's tables; a second try finds it there."""
    try:
        call()
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(BAD_REQUEST):
            raise
        call()
