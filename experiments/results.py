"""What cells leave in the runs root: `cells/<digest>.json`, written last, names what a cell made.

While a cell is worked on, `running/<digest>.json` says where and is touched by its heart; `logs/<digest>.log` holds what it
printed. A lock beside the result keeps two drivers from doing one cell at once.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from ..core.errors import ValueshiftError
from ..core.fields import Inside, field_error
from ..core.files import inside, whole_file
from ..core.limits import RECORD_BYTES
from ..core.outside import read_json
from ..core.records import read_record
from .cells import Cell

log = logging.getLogger("valueshift.grid")

HEARTBEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
"""A heart that has not beaten for so long is taken for dead."""


class Result(BaseModel):
    """What a cell made, when it was whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    label: str
    model: str
    made: dict[str, Inside]
    """By name, paths from the runs root: `record` (a run record, if any), `model` (a checkpoint), ..."""
    seconds: FiniteFloat
    units: FiniteFloat
    host: str
    finished: FiniteFloat
    """Seconds since 1970."""
    published: bool
    """Whether MLflow has the record; True where there is none."""

    def path(self, root: Path, name: str) -> Path:
        """Where a thing of the result is."""
        return root / self.made[name]

    def usable(self, root: Path) -> bool:
        """Whether everything that was made is still there."""
        return all(_is_whole(root / path, name) for name, path in self.made.items())

    def kept(self, root: Path) -> bool:
        """Whether the record is still there, or all where there is none: a checkpoint may be deleted to save space."""
        return _is_whole(root / self.made["record"], "record") if "record" in self.made else self.usable(root)


def _is_whole(path: Path, name: str) -> bool:
    if name == "record":
        try:
            read_record(path)
        except ValueshiftError as error:
            _warn(f"{error}")
            return False
        return True
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def result_path(root: Path, digest: str) -> Path:
    """Where the result of a cell is noted."""
    return root / "cells" / f"{digest}.json"


def log_path(root: Path, digest: str) -> Path:
    """Where the output of a cell is."""
    return root / "logs" / f"{digest}.log"


def read_result(root: Path, digest: str) -> Result | None:
    """The result of a cell; None where there is none, or none that can be read: the cell is then done again."""
    path = result_path(root, digest)
    if not path.exists():
        return None
    try:
        result = Result.model_validate(read_json(path, "the cell is done again", RECORD_BYTES))
        for stated in result.made.values():
            inside(root, stated)
    except ValidationError as error:
        _warn(f"{path}, {field_error(error)}; the cell is done again")
    except ValueshiftError as error:
        _warn(f"{error}")
    else:
        return result
    return None


@cache
def _warn(sentence: str) -> None:
    """Say something once."""
    log.warning("%s", sentence)


def write_result(root: Path, digest: str, result: Result) -> None:
    """Note a result, whole or not at all."""
    with whole_file(result_path(root, digest)) as temporary:
        temporary.write_text(result.model_dump_json(indent=1), encoding="utf-8")


def outstanding(cells: Sequence[Cell], root: Path) -> set[str]:
    """Digests of what is to be done: no result, or a part of it is gone that an outstanding cell needs.

    A tolerant cell is made of what there is, and needs no more of a finished cell than that it counts as finished.
    """
    todo: set[str] = set()
    needed: set[str] = set()
    for cell in reversed(cells):
        result = read_result(root, cell.digest)
        if result is None or not (result.usable(root) if cell.digest in needed else result.kept(root)):
            todo.add(cell.digest)
            if not cell.tolerant:
                needed.update(cell.needs)
    return todo


@contextmanager
def claimed(root: Path, digest: str) -> Iterator[bool]:
    """Hold the lock of a cell; False where another process holds it."""
    path = root / "cells" / f".{digest}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def beating(root: Path, cell: Cell) -> Iterator[None]:
    """While active, say in `running/` that this process works on the cell."""
    path = root / "running" / f"{cell.digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}), encoding="utf-8"
    )
    stopped = threading.Event()

    def beat() -> None:
        while not stopped.wait(HEARTBEAT_SECONDS):
            path.touch()

    heart = threading.Thread(target=beat, daemon=True)
    heart.start()
    try:
        yield
    finally:
        stopped.set()
        heart.join()
        path.unlink(missing_ok=True)


def running(root: Path) -> Mapping[str, str]:
    """By digest, where cells are being worked on, by any driver: those whose hearts beat."""
    found = {}
    for path in (root / "running").glob("*.json"):
        try:
            if time.time() - path.stat().st_mtime < SILENT_SECONDS:
                entry = read_json(path, "it is passed over", RECORD_BYTES)
                found[path.stem] = f"{entry['host']}, process {entry['pid']}"
        except (OSError, ValueshiftError, LookupError, TypeError):
            continue  # it ended, is just beginning, or is none of ours
    return found
