"""Tracking addresses: what is none is said, and what is shown of one, or of an error about it, holds no secret."""

from pathlib import Path

import pytest
from valueshift.core.errors import ValueshiftError
from valueshift.core.limits import REASON_CHARACTERS
from valueshift.tracking.address import line, shown
from valueshift.tracking.client import opened


@pytest.mark.parametrize(
    "uri",
    [
        "http://[bad",
        "http://host:port",
        "http://me:se?secret@host",
        "postgresql://u:secret@h:port/x",
        "postgresql+psycopg2:x",
    ],
)
def test_what_is_no_address_is_said_with_the_name_of_the_variable(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ValueshiftError, match="MLFLOW_TRACKING_URI is no address") as raised, opened(tmp_path, uri):
        pass
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "seen"),
    [
        ("https://me:secret@host:8/x", "https://host:8/x"),
        ("http://secret@host", "http://host"),
        ("http://host/x?token=secret", "http://host/x"),
        ("http://host/?a=1&password=se@secret", "http://***"),
        ("http://host/#secret", "http://host/"),
        ("http://me?secret@host", "http://***"),
        ("postgresql://u:a:b@h:5432/x", "postgresql://h:5432/x"),
        ("postgresql://u:p/secret@h/x", "postgresql://h/x"),
        ("postgresql+psycopg2://h/x?password=secret&user=u", "postgresql+psycopg2://h/x"),
        ("mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret", "mssql+pyodbc:///"),
        ("plugin+x:me:secret@host", "plugin+x:host"),
        ("databricks://profile", "databricks://profile"),
        ("sqlite:////a@b/c#d.db?timeout=5", "sqlite:////a@b/c#d.db"),
        ("/a@b/mlruns", "/a@b/mlruns"),
    ],
)
def test_an_address_is_shown_without_its_secrets(uri: str, seen: str) -> None:
    assert shown(uri) == seen


def test_what_a_library_says_is_one_short_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://me:top%20secret@host/x?sslpassword=hush4711"
    said = f"cannot open {uri} as me with 'top secret' (hush4711)\x1b[31m\nSQL: ..."
    assert line(said, uri) == "cannot open postgresql://host/x?sslpassword=*** as me with '***' (***) [31m"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abcdef")
    assert line("Bearer abcdef", "http://host") == "Bearer ***"
    assert len(line("x" * 10**7, "http://host")) == REASON_CHARACTERS + 3
