"""Which store and which experiment records go to: those that MLflow itself would log to, else ours."""

import logging
import os
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.tracking import fluent

from ..core.errors import ValueshiftError
from ..core.paths import mlflow_experiment, mlflow_experiment_id, mlflow_uri
from .address import shown, sqlite_file
from .client import answered, lacks
from .schema import DESCRIPTION
from .views import LAYOUT, VIEWS, note

log = logging.getLogger(__name__)

_VIEWS = dict(view.tag() for view in VIEWS)


def store(root: Path) -> str:
    """The tracking URI: that of this process where anything of MLflow was set or started in it, else of `mlflow_uri`."""
    used = mlflow.is_tracking_uri_set() or mlflow.active_run() or _set_in_process()
    return mlflow.get_tracking_uri() if used else mlflow_uri(root)


def experiment(client: MlflowClient) -> str:
    """Id of the experiment that runs are published to, created where it is new, with our saved views.

    Raises:
        ValueshiftError: as `chosen`.
    """
    found = chosen(client)
    return _with_views(client, found) if found else experiment_id(client, mlflow_experiment())


def chosen(client: MlflowClient) -> Experiment | None:
    """The experiment that MLflow's `start_run` would choose, else `valueshift`; None where it has yet to be created.

    `mlflow.set_experiment` wins over `MLFLOW_EXPERIMENT_NAME`, that over `MLFLOW_EXPERIMENT_ID`.

    Raises:
        ValueshiftError: it is deleted, there is none of this id, or name and id are of two experiments.
    """
    identity, active = mlflow_experiment_id(), _set_in_process()
    if active and client.tracking_uri == mlflow.get_tracking_uri():
        return _of_id(client, active, "mlflow.set_experiment")
    if identity == active:  # `set_experiment` exports its id, which says nothing about another store
        identity = None
    if identity and not os.environ.get("MLFLOW_EXPERIMENT_NAME"):
        return _of_id(client, identity, "MLFLOW_EXPERIMENT_ID")
    found = client.get_experiment_by_name(mlflow_experiment())
    if found and identity and identity != found.experiment_id:
        raise ValueshiftError(
            f"MLFLOW_EXPERIMENT_NAME '{found.name}' is the experiment {found.experiment_id} of MLflow at "
            f"{shown(client.tracking_uri)}, MLFLOW_EXPERIMENT_ID is {identity}; unset one of them"
        )
    return _usable(client, found) if found else None


def _set_in_process() -> str | None:
    """Id of the experiment that `mlflow.set_experiment` has set; MLflow has no public name for it."""
    return getattr(fluent, "_active_experiment_id", None)


def _of_id(client: MlflowClient, identity: str, source: str) -> Experiment:
    try:
        found = client.get_experiment(identity)
    except MlflowException as error:
        if error.get_http_status_code() not in (HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST) or lacks(error):
            raise
        raise ValueshiftError(
            f"{source} names the experiment {identity}, which MLflow at {shown(client.tracking_uri)} does not have; "
            "choose another or set MLFLOW_TRACKING_URI to its store"
        ) from error
    return _usable(client, found)


def _usable(client: MlflowClient, found: Experiment) -> Experiment:
    identity = answered(client, found.experiment_id)
    if found.lifecycle_stage != "active":
        raise ValueshiftError(
            f"the MLflow experiment '{found.name}' is deleted; restore it with `mlflow experiments restore "
            f"-x {identity}` or name another in MLFLOW_EXPERIMENT_NAME"
        )
    return found


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of the experiment `name`, created where it is new, with our saved views; of two processes both get the same.

    Raises:
        ValueshiftError: it is in MLflow's trash.
    """
    if found := client.get_experiment_by_name(name):
        return _with_views(client, _usable(client, found))
    # For a SQLite file MLflow's default would be a folder of wherever the command happened to run.
    database = sqlite_file(client.tracking_uri)
    artifacts = (database.parent / "mlartifacts").as_uri() if database else None
    try:
        identity = client.create_experiment(name, artifact_location=artifacts, tags=_VIEWS | LAYOUT)
        _set_tags(client, answered(client, identity), {DESCRIPTION: note(identity)})
        return str(identity)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise
        return _with_views(client, _usable(client, client.get_experiment_by_name(name)))


def _with_views(client: MlflowClient, found: Experiment) -> str:
    """Id of an experiment that is there, which gets our saved views."""
    _set_tags(
        client, found.experiment_id, {tag: state for tag, state in _VIEWS.items() if found.tags.get(tag) != state}
    )
    return str(found.experiment_id)


def _set_tags(client: MlflowClient, identity: str, tags: Mapping[str, str]) -> None:
    try:
        for tag, value in tags.items():
            client.set_experiment_tag(identity, tag, value)
    except MlflowException as error:
        if not lacks(error):
            raise
        log.warning("MLflow at %s takes no tags of experiments: saved views are left out", shown(client.tracking_uri))
