"""The connection to MLflow where its address cannot be read."""

from pathlib import Path

import pytest
from valueshift.core.errors import ValueshiftError
from valueshift.tracking.address import shown
from valueshift.tracking.client import opened


@pytest.mark.parametrize(
    "uri", ["http://[bad", "http://host:port", "postgresql://u:secret@h:port/x", "postgresql+psycopg2:x"]
)
def test_what_is_no_address_is_said_with_the_name_of_the_variable(tmp_path: Path, uri: str) -> None:
    with pytest.raises(ValueshiftError, match="MLFLOW_TRACKING_URI is no address") as raised, opened(tmp_path, uri):
        pass
    assert "secret" not in str(raised.value)


def test_a_database_may_have_any_password() -> None:
    assert shown("postgresql://u:a:b@h:5432/x") == "postgresql://h:5432/x"
