"""A connection to MLflow that is safe beside other processes, quick to give up, and speaks in sentences."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.store.db.db_types import DATABASE_ENGINES
from requests.exceptions import RequestException
from sqlalchemy import NullPool, create_engine, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, SQLAlchemyError

from ..core.errors import ValueshiftError
from ..core.files import whole_file
from ..core.locks import locked
from .views import LAYOUT, VIEWS

GREETING_SECONDS = 5
"""How long a server may take to answer the first call."""
CALL_SECONDS = 60
"""How long it may take to answer any other, uploads included; `MLFLOW_HTTP_REQUEST_TIMEOUT` where that is set."""


class ServerAwayError(ValueshiftError):
    """MLflow cannot be reached, or its server fails. The records are whole on disk and can be published later."""


def shown(uri: str) -> str:
    """`uri` without user name and password.

    Raises:
        ValueshiftError: it is no address.
    """
    try:
        parts = urlsplit(uri)
        _ = make_url(uri).port if _is_database(uri) else parts.port
    except (ValueError, ArgumentError) as error:
        raise ValueshiftError(
            "MLFLOW_TRACKING_URI is no address: its host or port cannot be read; set it to one such as "
            "http://host:5000 or postgresql://user@host:5432/name"
        ) from error
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if parts.netloc else uri


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite URI, None for every other store."""
    if not uri.startswith("sqlite"):
        return None
    database = make_url(uri).database
    return Path(database).resolve() if database else None


def _is_database(uri: str) -> bool:
    return re.split(r"[+:]", uri)[0] in DATABASE_ENGINES


@contextmanager
def _limits(seconds: int) -> Iterator[None]:
    """Within: no retries (by default MLflow tries for minutes) and `seconds` a call, unless the user has set these."""
    ours = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Within: MLflow does not print that it creates tables, nor the errors that `_explained` puts in a sentence."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what MLflow raises into `ServerAwayError` or another `ValueshiftError`."""
    store, kept = shown(uri), "the record is kept, and `valueshift publish` sends it"
    away = f"MLflow at {store} cannot be reached; {kept} when it is back"
    try:
        yield
    except RequestException as error:
        raise _of_answer(error, store, kept) or ServerAwayError(away) from error
    except SQLAlchemyError as error:
        if sqlite_file(uri) is None:
            raise ServerAwayError(away) from error
        raise ValueshiftError(
            f"{sqlite_file(uri)} cannot be used by MLflow ({_reason(error)}); move it away or repair it: {kept}"
        ) from error
    except MlflowException as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, RequestException):
            raise _of_answer(cause, store, kept) or ServerAwayError(away) from error
        if isinstance(cause, OperationalError) and sqlite_file(uri) is None:
            raise ServerAwayError(away) from error
        if uri.startswith("http") and error.get_http_status_code() >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ServerAwayError(f"MLflow at {store} fails: {_reason(error)}; {kept} when it is mended") from error
        raise ValueshiftError(f"MLflow at {store} refuses: {_reason(error)}; {kept} when that is repaired") from error
    except ImportError as error:
        raise ValueshiftError(f"MLflow at {store} needs a package: {error}; install it: {kept}") from error
    except OSError as error:
        reason = f"cannot write {error.filename}: {error.strerror or error}"
        raise ValueshiftError(f"MLflow at {store} {reason}; {kept} when that is repaired") from error


def _of_answer(error: RequestException, store: str, kept: str) -> ValueshiftError | None:
    """What a server means that answers, but with a status of failure; None where it does not answer."""
    found = re.search(r"too many (\d+) error responses", str(error))  # what remains of it once no retry is left
    status = int(found[1]) if found else error.response.status_code if error.response is not None else None
    if status is None:
        return None
    if (
        status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
        or status >= HTTPStatus.INTERNAL_SERVER_ERROR
    ):
        return ServerAwayError(f"MLflow at {store} fails (HTTP {status}); {kept} when it is mended")
    return ValueshiftError(f"MLflow at {store} refuses (HTTP {status}); {kept} when that is repaired")


def _reason(error: Exception) -> str:
    """First line of what the database said, where it was the database, else of what MLflow says."""
    source = error.__cause__ if isinstance(error.__cause__, DBAPIError) else error
    return str(source.orig if isinstance(source, DBAPIError) else source).strip().partition("\n")[0].rstrip(".")


@contextmanager
def opened(root: Path, uri: str) -> Iterator[MlflowClient]:
    """MLflow at `uri`, held by one process at a time, so that nothing races.

    What is locked is the SQLite file, or for other stores the runs root. Tables of a new SQLite file are created.

    Raises:
        ServerAwayError: nothing answers within seconds, or the server fails.
        ValueshiftError: `uri` is no address, or MLflow refuses, in here or in the body of the `with`.
    """
    with _explained(uri), _quiet(), locked(sqlite_file(uri) or root / "publish"):
        with _limits(GREETING_SECONDS):
            if (database := sqlite_file(uri)) and not database.exists():
                _create_tables(database)
            if _is_database(uri):
                # MLflow would try for 100 seconds to open a database that is away or damaged.
                inspect(create_engine(uri, poolclass=NullPool)).get_table_names()
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
        with _limits(CALL_SECONDS):
            yield client


def _create_tables(database: Path) -> None:
    """Make a SQLite file whole or not at all: MLflow refuses for ever one whose making was cut short."""
    with whole_file(database) as temporary:
        MlflowClient(f"sqlite:///{temporary.resolve()}").search_experiments(max_results=1)


def experiment_id(client: MlflowClient, name: str) -> str:
    """Id of the experiment `name`, created where it is new, with our saved views; of two processes both get the same.

    Raises:
        ValueshiftError: it is in MLflow's trash.
    """
    found, views = client.get_experiment_by_name(name), dict(view.tag() for view in VIEWS)
    if found is None:
        # For a SQLite file MLflow's default would be a folder of wherever the command happened to run.
        database = sqlite_file(client.tracking_uri)
        artifacts = (database.parent / "mlartifacts").as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=views | LAYOUT))
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise ValueshiftError(
            f"the MLflow experiment '{name}' is deleted; restore it with `mlflow experiments restore "
            f"-x {found.experiment_id}` or name another in MLFLOW_EXPERIMENT_NAME"
        )
    for tag, state in views.items():
        if found.tags.get(tag) != state:
            client.set_experiment_tag(found.experiment_id, tag, state)
    return str(found.experiment_id)
