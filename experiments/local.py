"""Cells on this machine: long-lived worker processes, which import torch once and may be killed without harm."""

import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from .cells import Cell
from .work import Outcome, run_cell

_SPAWN = get_context("spawn")
PATIENCE_SECONDS = 10.0
"""How long a worker may take to end when it is told to."""


class LocalExecutor:
    """A pool of worker processes. One that dies is replaced, and its cell comes back as `died`; so is one in which an error
    occurred that nobody foresaw."""

    def __init__(self, root: Path, workers: int = 1) -> None:
        """Prepare; workers start with the first cells.

        Args:
            root: the runs root.
            workers: how many cells are done at a time. GPUs are shared out among them in turn.
        """
        self.root, self.slots = root, workers
        self._idle: list[_Worker] = []
        self._busy: list[_Worker] = []
        self._free_places = list(range(workers))

    def submit(self, cell: Cell) -> None:
        """Begin a cell in an idle worker, or in a new one."""
        worker = self._idle.pop() if self._idle else _Worker(self.root, self._free_places.pop(0), self.slots)
        worker.give(cell)
        self._busy.append(worker)

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """Cells that have ended, as soon as one has; none after so many seconds."""
        channels = {worker.channel: worker for worker in self._busy}
        ended = []
        for channel in connection.wait(list(channels), seconds):
            worker = channels[channel]  # type: ignore[index]
            outcome = worker.take()
            self._busy.remove(worker)
            ended.append((worker.cell, outcome))
            if worker.process.is_alive():
                self._idle.append(worker)
            else:
                self._free_places.insert(0, worker.place)
        return ended

    def close(self) -> None:
        """End idle workers, kill busy ones: what they were doing is whole or absent."""
        for worker in self._idle:
            worker.channel.close()
        for worker in self._busy:
            worker.kill()
        for worker in [*self._idle, *self._busy]:
            worker.process.join(PATIENCE_SECONDS)
            worker.kill()
        self._idle, self._busy = [], []


class _Worker:
    """One worker process and the channel to it."""

    cell: Cell

    def __init__(self, root: Path, place: int, workers: int) -> None:
        self.place = place
        self.channel, theirs = _SPAWN.Pipe()
        self.process: SpawnProcess = _SPAWN.Process(
            target=_work, args=(theirs, root, place, workers), name=f"worker {place}"
        )
        self.process.start()
        theirs.close()

    def give(self, cell: Cell) -> None:
        self.cell = cell
        with suppress(BrokenPipeError):  # it died while idle: `take` finds out
            self.channel.send(cell)

    def take(self) -> Outcome:
        """How the cell ended; that the worker died where it says nothing. Ends a worker that should do nothing more."""
        try:
            outcome: Outcome = self.channel.recv()
        except (EOFError, ConnectionResetError):
            self.end()
            code = self.process.exitcode or 0
            how = f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
            return Outcome("died", f"its process was {how}" if code < 0 else f"its process {how}")
        if outcome.unforeseen:
            self.end()
        return outcome

    def end(self) -> None:
        """Kill the worker, and wait until it is gone."""
        self.kill()
        self.process.join()

    def kill(self) -> None:
        """Kill the worker and whatever it started."""
        try:
            os.killpg(self.process.ident, signal.SIGKILL)  # type: ignore[arg-type]
        except ProcessLookupError:  # it has ended, or has not come to have a group
            self.process.kill()


def _work(channel: Connection, root: Path, place: int, workers: int) -> None:
    """The life of a worker: do cells until the channel closes."""
    os.setpgid(0, 0)  # a group of its own: Ctrl-C reaches the driver alone, and what a cell starts dies with the worker
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _share_machine(place, workers)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    while True:
        try:
            cell = channel.recv()
        except (EOFError, ConnectionResetError):
            return
        channel.send(run_cell(cell, root))


def _die_with_parent() -> None:
    parent = parent_process()
    if parent:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def _share_machine(place: int, workers: int) -> None:
    """Let a worker see one GPU and use its share of the cores, unless the user has settled either."""
    share = max(1, _cores() // workers)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, str(share))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if workers > 1:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = [str(number) for number in range(_gpus())] if visible is None else visible.split(",")
        if gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]


def _cores() -> int:
    """Cores that this process may use, which under Slurm are fewer than the machine's; all where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> int:
    """GPUs of this machine, as its driver lists them."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
