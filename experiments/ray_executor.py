"""Cells on a Ray cluster whose nodes share the filesystem of the runs root.

Ray places a cell where its CPUs, GPUs and memory are free. It is told not to retry: what a killed worker or node was doing
comes back as `died`, and the scheduler tries it again as it does on one machine.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private.services import get_ray_address_from_environment
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    WorkerCrashedError,
)

from ..core.errors import ValueshiftError
from ..core.limits import HEAD_SECONDS
from .cells import Cell
from .work import Outcome, run_cell

ASK_SECONDS = 2.0
"""Between questions to the head, and how long it may take to answer one."""
HEAD_MISSES = 5
"""Questions in a row without an answer after which the head is taken for gone; Ray itself ends the driver after a minute."""
_DEATHS = (WorkerCrashedError, NodeDiedError, LocalRayletDiedError, OutOfMemoryError, ObjectLostError)


class RayExecutor:
    """Hands ready cells to Ray."""

    slots = 1000
    """More than any cluster does at a time; the rest waits here."""

    def __init__(self, root: Path, address: str = "auto") -> None:
        """Connect to a cluster.

        Args:
            root: the runs root, on a filesystem that all nodes share.
            address: `auto` for the cluster of RAY_ADDRESS, or that this machine belongs to, `local` for one of this machine
                alone that ends with the driver, or `host:port` of a head.

        Raises:
            ValueshiftError: there is no cluster there.
        """
        self.root = root.resolve()
        try:
            where = get_ray_address_from_environment("auto", None) if address == "auto" else address
            if where != "local":
                _Head(where).greet()  # `ray.init` would try for many minutes
            context = ray.init(
                address=where,
                log_to_driver=False,
                logging_level="error",
                include_dashboard=False,
                runtime_env={"env_vars": _environment()},
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ValueshiftError(
                f"no Ray cluster answers at {address} ({error}); start one with `ray start --head`, or give --address local"
            ) from error
        self._head = _Head(str(context.address_info["gcs_address"]))
        self._task = ray.remote(max_retries=0)(run_cell)
        self._pending: dict[Any, Cell] = {}

    def submit(self, cell: Cell) -> None:
        """Let Ray begin a cell when there is room for it."""
        wanted = cell.resources
        task = self._task.options(
            name=f"{cell.stage} {cell.label}", num_cpus=wanted.cpus, num_gpus=wanted.gpus, memory=wanted.memory
        )
        self._pending[task.remote(cell, self.root)] = cell

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """Cells that have ended, as soon as one has; none after so many seconds.

        Raises:
            ValueshiftError: the cluster's head is gone.
        """
        self._head.ask()
        if not self._pending:
            time.sleep(seconds)
            return []
        references = list(self._pending)
        if not ray.wait(references, timeout=seconds)[0]:
            return []
        ended, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return [(self._pending.pop(reference), _outcome(reference)) for reference in ended]

    def close(self) -> None:
        """Cancel what is being done, and leave the cluster."""
        if self._head.there:
            for reference in self._pending:
                ray.cancel(reference, force=True)
            ray.shutdown()
        self._pending = {}


def _environment() -> dict[str, str]:
    """What workers must have as the driver has it. Passwords stay here: all of a cluster can read what Ray is told."""
    stores = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")
    return {name: value for name, value in os.environ.items() if name in stores or name.startswith("VALUESHIFT_")}


def _outcome(reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except _DEATHS as error:
        return Outcome("died", f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
    except RayError as error:
        return Outcome("failed", f"Ray: {str(error).strip()}")
    return outcome


class _Head:
    """The cluster's head, asked now and then whether it is there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.there = True
        self._asked = time.monotonic()
        self._misses = 0

    def greet(self) -> None:
        """Have it answer as a head does: something else may listen at its old address.

        Raises:
            ValueshiftError: it does not.
        """
        self.answer()
        if os.environ.get("RAY_USE_TLS") == "1":  # it answers those alone who have the keys
            return
        with grpc.insecure_channel(self.address, [("grpc.enable_http_proxy", 0)]) as channel:
            try:
                grpc.channel_ready_future(channel).result(HEAD_SECONDS)
            except grpc.FutureTimeoutError:
                raise ValueshiftError(
                    f"what listens at {self.address} is no head of a Ray cluster, or is stuck: no answer in {HEAD_SECONDS:g} s; "
                    "start one with `ray start --head`, or give --address local"
                ) from None

    def answer(self) -> None:
        """Have it answer once.

        Raises:
            ValueshiftError: it does not.
        """
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=ASK_SECONDS).close()
        except (OSError, OverflowError, ValueError) as error:
            raise ValueshiftError(
                f"no Ray cluster answers at {self.address} ({error}); what was done is whole: start one with `ray start "
                "--head` and give the same command"
            ) from error

    def ask(self) -> None:
        """Have it answer again, if it is time.

        Raises:
            ValueshiftError: it did not, several times in a row.
        """
        if time.monotonic() - self._asked < ASK_SECONDS:
            return
        try:
            self.answer()
            self._misses = 0
        except ValueshiftError:
            self._misses += 1
            if self._misses >= HEAD_MISSES:
                self.there = False
                raise
        self._asked = time.monotonic()
