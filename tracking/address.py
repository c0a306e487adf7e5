"""Tracking addresses: which kind of store one names, and how it is shown without its secrets."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlflow.store.db.db_types import DATABASE_ENGINES
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from ..core.errors import ValueshiftError
from ..core.limits import REASON_CHARACTERS

_SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_HIDDEN = "***"


def is_database(uri: str) -> bool:
    """Whether MLflow opens `uri` as a database."""
    return re.split(r"[+:]", uri)[0] in DATABASE_ENGINES


def sqlite_file(uri: str) -> Path | None:
    """The file behind a SQLite URI, None for every other store.

    Raises:
        ValueshiftError: the database is in memory.
    """
    if not uri.startswith("sqlite"):
        return None
    url = make_url(uri)
    database = (url.database or "").removeprefix("file:")
    if database in ("", ":memory:") or url.query.get("mode") == "memory":
        raise ValueshiftError(
            f"{shown(uri)} is a store in memory, gone when this command ends; "
            "unset MLFLOW_TRACKING_URI or name a file: sqlite:////folder/mlflow.db"
        )
    return Path(database).resolve()


def shown(uri: str) -> str:
    """`uri` without user name, password, query and fragment, any of which may hold a secret.

    Raises:
        ValueshiftError: it is no address.
    """
    try:
        parts = urlsplit(uri)
        _ = make_url(uri).port if is_database(uri) else parts.port
    except (ValueError, ArgumentError) as error:
        raise ValueshiftError(
            "MLFLOW_TRACKING_URI is no address: its host or port cannot be read; set it to one such as "
            "http://host:5000 or postgresql://user@host:5432/name"
        ) from error
    scheme, separator, rest = uri.partition(":")
    if not separator or scheme.startswith(("sqlite", "file")):  # a path, which may hold any of @ # :
        return uri.partition("?")[0]
    before = re.split(r"[?#]", rest, maxsplit=1)[0]
    slashes = before[: len(before) - len(before.lstrip("/"))]
    # An @ further on is in the query, or else the ? is in an unquoted password.
    return f"{scheme}:{slashes}{_HIDDEN if '@' in rest[len(before) :] else before[len(slashes) :].rpartition('@')[2]}"


def line(text: object, uri: str) -> str:
    """What a store or a library says, as one line of bounded length, without the secrets of `uri` and the environment."""
    whole = str(text)[: 100 * REASON_CHARACTERS].strip().partition("\n")[0]
    for secret in sorted(_secrets(uri), key=len, reverse=True):
        whole = whole.replace(secret, _HIDDEN)
    whole = re.sub(r"(?<=://)[^/\s'\"@]+@", "", whole)
    printable = "".join(character if character.isprintable() else " " for character in whole).rstrip(". ")
    return printable if len(printable) <= REASON_CHARACTERS else f"{printable[:REASON_CHARACTERS]}..."


def _secrets(uri: str) -> set[str]:
    """The password or token of an address and the values of its query, as they are written and unquoted; the environment's."""
    rest = uri.partition(":")[2].lstrip("/")
    user, _, password = rest.rpartition("@")[0].partition(":")
    query = [pair.partition("=")[2] for pair in re.split(r"[?#&;]", rest)[1:]]
    found = [password or user, *query, *(os.environ.get(name, "") for name in _SECRETS)]
    return {form for secret in found for form in (secret, unquote(secret)) if len(form) > 3}
