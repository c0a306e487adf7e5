"""Fixtures that several test files share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real inputs that are not part of the project: `VALUESHIFT_TEST_DATA`, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("VALUESHIFT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real inputs are not on this machine ({folder}); set VALUESHIFT_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests neither see nor change what the user has set."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name in ("VALUESHIFT_RUNS", "VALUESHIFT_CACHE", "VALUESHIFT_HOOK", "VALUESHIFT_TRACKING", "VALUESHIFT_BASE"):
        monkeypatch.delenv(name, raising=False)
    yield
