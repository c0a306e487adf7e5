"""A connection to MLflow that is safe beside other processes, quick to give up, and speaks in sentences."""

import logging
import os
import re
import sqlite3
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http import HTTPStatus
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND, NOT_IMPLEMENTED, ErrorCode
from requests.exceptions import RequestException
from sqlalchemy import NullPool, create_engine, inspect
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from ..core.errors import ValueshiftError
from ..core.files import whole_file
from ..core.limits import BUSY_SECONDS, CALL_SECONDS, GREETING_SECONDS, SQLITE_PATH_BYTES
from ..core.locks import BusyError, locked
from ..core.paths import sqlite_uri
from .address import is_database, line, shown, sqlite_file
from .wire import bounded, last_status, within

KEPT = "the record is kept, and `valueshift publish` sends it"


class ServerAwayError(ValueshiftError):
    """MLflow cannot be reached, is busy, or its server fails. The records are whole on disk and can be published later."""


@contextmanager
def _limits(seconds: int) -> Iterator[None]:
    """Within: no retries (by default MLflow tries for minutes) and `seconds` a call, unless the user has set these."""
    ours = {
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it may hold a password
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
    """Within: MLflow does not print that it creates tables, nor the errors that `explained` puts in a sentence."""
    loggers = [logging.getLogger(name) for name in ("mlflow.store.db.utils", "mlflow.exceptions", "alembic", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn whatever MLflow and the libraries below it raise into `ServerAwayError` or another `ValueshiftError`."""
    try:
        yield
    except ValueshiftError:
        raise
    except Exception as error:
        if found := _sentence(error, uri):
            raise found from error
        raise


def _sentence(error: Exception, uri: str) -> ValueshiftError | None:
    """What an error means for the user; None where it is our own."""
    store, chain = f"MLflow at {shown(uri)}", list(_chain(error))
    reason = line(_said(chain), uri)
    if lacks(error):
        return ValueshiftError(
            f"{store} does not know a call that every MLflow server knows ({reason}); "
            f"set MLFLOW_TRACKING_URI to an MLflow server: {KEPT}"
        )
    if request := next((link for link in chain if isinstance(link, RequestException)), None):
        return _of_answer(request, store)
    if database := next((link for link in chain if isinstance(link, SQLAlchemyError | sqlite3.Error)), None):
        return _of_database(database, store, None if isinstance(error, MlflowException) else sqlite_file(uri), reason)
    if isinstance(error, MlflowException):
        if uri.startswith("http") and error.get_http_status_code() >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ServerAwayError(f"{store} fails: {reason}; {KEPT} when it is mended")
        return ValueshiftError(f"{store} refuses: {reason}; {KEPT} when that is repaired")
    if isinstance(error, ImportError):
        return ValueshiftError(f"{store} needs a package: {reason}; install it: {KEPT}")
    if isinstance(error, OSError) and error.filename != "":  # "" is the place of a server that gave none
        reason = line(f"cannot write {error.filename or 'its files'}: {error.strerror or error}", uri)
        return ValueshiftError(f"{store} {reason}; {KEPT} when that is repaired")
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    if any(frame.f_globals.get("__name__", "").startswith("mlflow.") for frame in frames):
        what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
        return ValueshiftError(f"{store} answers what its client cannot read ({what}); {KEPT} when that is repaired")
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from: MLflow wraps errors of requests and of the database."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _said(chain: list[BaseException]) -> object:
    """What the database itself says, where it was the database."""
    return next((link.orig for link in chain if isinstance(link, DBAPIError)), chain[0])


def _of_answer(error: RequestException, store: str) -> ValueshiftError:
    """What it means that a server does not answer, or answers with a status of failure."""
    found = re.search(r"too many (\d+) error responses", str(error))  # what remains of it once no retry is left
    status = int(found[1]) if found else error.response.status_code if error.response is not None else None
    if status is None:
        return ServerAwayError(f"{store} cannot be reached or does not end its answer; {KEPT} when it is back")
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
        return ServerAwayError(f"{store} fails (HTTP {status}); {KEPT} when it is mended")
    return ValueshiftError(f"{store} refuses (HTTP {status}); {KEPT} when that is repaired")


def _of_database(error: BaseException, store: str, opened: Path | None, reason: str) -> ValueshiftError:
    """What an error of a database means; `opened`: the SQLite file, where it could not even be opened."""
    if "is locked" in reason:
        return ServerAwayError(f"{store} is held locked by another program; {KEPT} when that has let go of it")
    if opened and len(os.fsencode(opened)) > SQLITE_PATH_BYTES:
        return ValueshiftError(
            f"SQLite opens no file whose path has more than {SQLITE_PATH_BYTES} bytes, such as {line(opened, '')}; "
            f"choose a shorter folder, or set MLFLOW_TRACKING_URI: {KEPT}"
        )
    if opened:
        return ValueshiftError(f"{opened} cannot be used by MLflow ({reason}); move it away or repair it: {KEPT}")
    if isinstance(error, OperationalError) and ":///" not in store:
        return ServerAwayError(f"{store} cannot be reached; {KEPT} when it is back")
    return ValueshiftError(f"{store} refuses: {reason}; {KEPT} when that is repaired")


def lacks(error: BaseException) -> bool:
    """Whether an error says that the store does not know such a call: a server before MLflow 3, or one that has not all of it."""
    if isinstance(error, NotImplementedError):
        return True
    if not isinstance(error, MlflowException | RequestException):
        return False
    missing = {ErrorCode.Name(ENDPOINT_NOT_FOUND), ErrorCode.Name(NOT_IMPLEMENTED), "FEATURE_DISABLED"}
    statuses = (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED)
    if isinstance(error, RequestException):
        return error.response is not None and error.response.status_code in statuses
    if isinstance(error, RestException):
        code = error.json.get("error_code")
        return str(code) in missing if code else last_status.get() in statuses
    return error.error_code in missing or (
        error.message.startswith("API request to endpoint") and last_status.get() in statuses
    )


@contextmanager
def opened(root: Path, uri: str) -> Iterator[MlflowClient]:
    """A connection to MLflow at `uri`. Tables of a new SQLite file are created.

    Raises:
        ServerAwayError: nothing answers within seconds, the server fails, or the SQLite file stays locked.
        ValueshiftError: `uri` is no address or a store in memory, or MLflow refuses, in here or in the body of the `with`.
    """
    shown(uri)
    database = sqlite_file(uri)
    with explained(uri), _quiet(), bounded():
        with _limits(GREETING_SECONDS):
            if database:
                with alone(root, uri):
                    _prepare(database)
            elif is_database(uri):
                # MLflow would try for 100 seconds to open a database that is away or damaged.
                engine = create_engine(uri, poolclass=NullPool)
                within(GREETING_SECONDS, lambda: inspect(engine).get_table_names())
            client = MlflowClient(uri)
            client.get_experiment_by_name("Default")  # a call that the oldest servers know
        with _limits(CALL_SECONDS):
            yield client


@contextmanager
def alone(root: Path, uri: str) -> Iterator[None]:
    """Within: no other process of ours writes to this store, so that nothing races.

    What is locked is the SQLite file, or for other stores the runs root.

    Raises:
        ServerAwayError: another process holds it for `LOCK_SECONDS`.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(sqlite_file(uri) or root / "publish"))
        except BusyError as error:
            raise ServerAwayError(f"{error}; {KEPT}") from error
        yield


def _prepare(database: Path) -> None:
    """See that a SQLite file is there, sound, and not held by another program; MLflow itself would try for minutes.

    A new one is made whole or not at all: MLflow refuses for ever one whose making was cut short.
    """
    if not database.exists():
        with whole_file(database) as temporary:
            sqlite3.connect(temporary).close()
            MlflowClient(sqlite_uri(temporary)).search_experiments(max_results=1)
    with closing(sqlite3.connect(database, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("SELECT count(*) FROM sqlite_master")


def answered(client: MlflowClient, identity: str | None) -> str:
    """`identity`, which a store gave.

    Raises:
        ValueshiftError: it is empty: a web server that says yes to everything is no MLflow.
    """
    if not identity:
        raise ValueshiftError(
            f"what answers at {shown(client.tracking_uri)} is no MLflow server: it gives no id; "
            f"set MLFLOW_TRACKING_URI to an MLflow server: {KEPT}"
        )
    return identity


def run_of(client: MlflowClient, run_id: str) -> Run:
    """The run of this id.

    Raises:
        ValueshiftError: what answers is no MLflow.
    """
    run = client.get_run(run_id)
    answered(client, run_id if run.info.run_id == run_id else None)
    return run
