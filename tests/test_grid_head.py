"""A Ray head that is dead or no head ends a grid at once, wherever its address comes from; no cluster is started here."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'valueshift[ray]'")
from ray._private import services  # noqa: E402
from valueshift.core.errors import ValueshiftError  # noqa: E402
from valueshift.experiments import ray_executor  # noqa: E402
from valueshift.experiments.ray_executor import RayExecutor  # noqa: E402


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of something that listens and says nothing."""
    monkeypatch.setattr(ray_executor, "HEAD_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _not_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("it would try for many minutes"))
    monkeypatch.setattr(services, "find_gcs_addresses", set)
    monkeypatch.setattr(services, "find_bootstrap_address", lambda _: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize("source", ["option", "environment", "file"])
@pytest.mark.parametrize("head", ["dead", "silent"])
def test_a_head_that_does_not_answer_is_said_at_once(
    source: str, head: str, silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = silent if head == "silent" else "127.0.0.1:9"
    if source == "environment":
        monkeypatch.setenv("RAY_ADDRESS", address)
    elif source == "file":
        monkeypatch.setattr(services, "find_bootstrap_address", lambda _: address)
    began = time.monotonic()
    with pytest.raises(ValueshiftError, match="ray start --head") as raised:
        RayExecutor(tmp_path, address if source == "option" else "auto")
    assert address in str(raised.value) and time.monotonic() - began < 20
    assert ("is no head of a Ray cluster" in str(raised.value)) == (head == "silent")


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:9", "127.0.0.1:99999", "http://127.0.0.1:9", "host:"])
def test_an_address_of_another_form_is_said(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ValueshiftError, match="no Ray cluster answers at"):
        RayExecutor(tmp_path, "auto")
