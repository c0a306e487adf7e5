"""One cell, done once: claimed, worked on with its output in a log, its result noted, its record published."""

import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

from ..core.errors import ValueshiftError
from .cells import Cell
from .results import Result, beating, claimed, log_path, read_result, write_result

Action = Callable[[Cell, Path, Mapping[str, Result]], dict[str, str]]
"""Does a cell. Takes the cell, the runs root and the results of what it needs by digest; returns what it made by name, as
paths from the root. Called again after an interruption, it goes on or begins anew."""


@dataclass(frozen=True)
class Outcome:
    """How one attempt at a cell ended."""

    end: Literal["done", "partial", "busy", "failed", "died"]
    """partial: made without some of its inputs, and so to be made again. busy: another driver is at it. failed: it would
    fail again. died: the process that did it was killed."""
    message: str = ""
    seconds: float = 0
    unforeseen: bool = False
    """It failed by an error that nobody foresaw, after which its process, or the GPU of it, may be of no use any more."""


def run_cell(cell: Cell, root: Path) -> Outcome:
    """Do a cell, unless its result is there or another process is at it. What goes wrong is an outcome, never raised."""
    began = time.monotonic()
    try:
        with claimed(root, cell.digest) as mine:
            if not mine:
                return Outcome("busy")
            with _logged(log_path(root, cell.digest), cell):
                outcome = _attempt(cell, root)
    except OSError as error:
        return Outcome(
            "failed", f"cannot write in {root}: {error.strerror or error}; free the disk and run the same again"
        )
    return replace(outcome, seconds=time.monotonic() - began)


def _attempt(cell: Cell, root: Path) -> Outcome:
    began = time.monotonic()
    try:
        result = read_result(root, cell.digest)
        if result is None or not result.usable(root):
            with beating(root, cell):
                made, partial = _do(cell, root)
            if partial:
                return Outcome("partial")
            result = _result(cell, made, time.monotonic() - began)
            write_result(root, cell.digest, result)
    except ValueshiftError as error:
        print(f"error: {error}", file=sys.stderr)
        return Outcome("failed", str(error))
    except Exception as error:  # noqa: BLE001 a fault in one cell must not end the others
        traceback.print_exc()
        return Outcome("failed", f"{type(error).__name__}: {error}", unforeseen=True)
    if not result.published:
        try:
            publish_result(root, cell.digest, result)
        except ValueshiftError as error:  # the work is done; the driver tries again at its end
            print(f"warning: {error}", file=sys.stderr)
    return Outcome("done")


def _do(cell: Cell, root: Path) -> tuple[dict[str, str], bool]:
    """What the action made, and whether it had to do without some of its inputs."""
    given = {digest: read_result(root, digest) for digest in cell.needs}
    there = {digest: result for digest, result in given.items() if result is not None}
    partial = len(there) < len(given)
    if partial and not cell.tolerant:
        absent = next(digest for digest, result in given.items() if result is None)
        raise ValueshiftError(f"the cell {absent} that this one needs has no result; run it first")
    action: Action = resolve_name(cell.action)
    return action(cell, root, there), partial


def _result(cell: Cell, made: dict[str, str], seconds: float) -> Result:
    return Result(
        stage=cell.stage,
        label=cell.label,
        model=cell.model,
        made=made,
        seconds=round(seconds, 3),
        units=cell.units,
        host=socket.gethostname(),
        finished=time.time(),
        published="record" not in made,
    )


def publish_result(root: Path, digest: str, result: Result) -> None:
    """Send the record of a result to MLflow, and note that.

    Raises:
        ServerAwayError: MLflow does not answer.
        ValueshiftError: MLflow refuses, or it fails in any other way: the work is done and must not fail for it.
    """
    try:
        from ..tracking.publish import publish

        print(f"MLflow: {publish(result.path(root, 'record'), root).where}")
        write_result(root, digest, result.model_copy(update={"published": True}))
    except ValueshiftError:
        raise
    except Exception as error:  # a store's client may raise anything; the record is there, and can be sent again
        traceback.print_exc()
        raise ValueshiftError(
            f"MLflow: {type(error).__name__}: {error}; the record is kept, and `valueshift publish` sends it"
        ) from error


@contextmanager
def _logged(path: Path, cell: Cell) -> Iterator[None]:
    """Append everything that this process prints, from Python or from C, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _flush()
    kept = [os.dup(1), os.dup(2)]
    with path.open("ab") as log:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    try:
        print(f"-- {datetime.now():%Y-%m-%d %H:%M:%S} {socket.gethostname()} {cell.stage} {cell.label}", flush=True)
        yield
    finally:
        try:
            _flush()
        finally:
            for descriptor, original in zip((1, 2), kept, strict=True):
                os.dup2(original, descriptor)
                os.close(original)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
