"""MLflow's pages for the runs root, on this machine only."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ..core.errors import ValueshiftError
from ..core.paths import mlflow_uri
from . import MLFLOW_SWITCHES
from .address import shown
from .client import opened
from .experiment import experiment
from .views import VIEWS, page

HOST = "127.0.0.1"


def ui_command(root: Path, port: int = 5000) -> list[str]:
    """The command that serves MLflow's pages for the store of `root`.

    Raises:
        ValueshiftError: the store is itself a server, whose pages are there already.
    """
    uri = mlflow_uri(root)
    if uri.startswith("http"):
        raise ValueshiftError(f"the runs are on a server: open {shown(uri)} in a browser")
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    server += ["--artifacts-destination", (root / "mlartifacts").resolve().as_uri()]
    return [*server, "--host", HOST, "--port", str(port), "--uvicorn-opts", "--log-level=warning"]


def ui_environment() -> dict[str, str]:
    """What the server is started with: no telemetry, no unpickling, no background jobs, no warnings on its own code."""
    ours = {**MLFLOW_SWITCHES, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    return {**ours, **os.environ}


def view_address(server: str, experiment: str, key: str) -> str:
    """The runs page of an experiment with one of our views."""
    return f"{server}/#{page(experiment, key)}"


def serve(root: Path, port: int = 5000, announce: Callable[[str], object] = print) -> int:
    """Serve the pages until interrupted, and return the server's exit status.

    Args:
        root: the runs root; its store is created where it is new.
        port: on the loopback interface.
        announce: receives the address of each of our views.

    Raises:
        ValueshiftError: the store is a server or cannot be used, or the port is taken.
    """
    command = ui_command(root, port)
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError as error:
            raise ValueshiftError(f"port {port} is taken ({error.strerror}); choose another with --port") from error
    with opened(root, mlflow_uri(root)) as client:
        where = experiment(client)
    for view in VIEWS:
        announce(f"{view.title}: {view_address(f'http://{HOST}:{port}', where, view.key)}")
    try:
        return subprocess.run(command, env=ui_environment(), check=False).returncode
    except KeyboardInterrupt:
        return 0
