"""Which cell is done when: what is ready is handed to an executor, and what it reports is accounted for.

A cell whose process was killed is tried again, one that failed would fail again and is not. The rest of the plan goes on
without a failed cell and those that need it.
"""

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ..core.errors import ValueshiftError
from .cells import Cell
from .results import outstanding, read_result
from .work import Outcome, publish_result

RETRIES = 2
"""Of a cell whose process was killed."""
LOOK_SECONDS = 1.0
"""Between looks at a cell that another driver is doing."""
SAY_SECONDS = 60.0
"""Between signs of life where nothing ends."""


class Executor(Protocol):
    """Where cells are done."""

    slots: int
    """How many cells it takes at a time."""

    def submit(self, cell: Cell) -> None:
        """Begin a cell."""

    def wait(self, seconds: float) -> list[tuple[Cell, Outcome]]:
        """Cells that have ended, as soon as one has; none after so many seconds."""

    def close(self) -> None:
        """Stop whatever is being done."""


@dataclass
class Account:
    """What became of the cells of a run."""

    there: set[str] = field(default_factory=set)
    """Had a result before."""
    done: set[str] = field(default_factory=set)
    partial: set[str] = field(default_factory=set)
    """Made, but without inputs that failed."""
    failed: dict[str, str] = field(default_factory=dict)
    """By digest, why."""
    skipped: dict[str, str] = field(default_factory=dict)
    """By digest, the digest of the failed cell that it needs."""
    unpublished: dict[str, str] = field(default_factory=dict)
    """By digest, why MLflow does not have its record."""

    @property
    def complete(self) -> bool:
        """Whether every cell has a whole result."""
        return not (self.failed or self.skipped or self.partial)


def run_cells(cells: Sequence[Cell], root: Path, executor: Executor, say: Callable[[str], None]) -> Account:
    """Do all cells that have no result.

    Args:
        cells: each after those that it needs.
        root: the runs root.
        executor: closed at the end, also of a run that is interrupted.
        say: told what happens, a line at a time.

    Raises:
        ValueshiftError: the executor is lost, or the root cannot be read. What was done is kept.
    """
    run = _Run(cells, root, executor, say)
    try:
        run.to_the_end()
    finally:
        executor.close()
    run.account.unpublished = _publish_the_rest(cells, root)
    return run.account


def _publish_the_rest(cells: Sequence[Cell], root: Path) -> dict[str, str]:
    """Send what workers could not send; by digest, why MLflow does not have it. An absent server is asked once."""
    unpublished: dict[str, str] = {}
    away = ""
    for cell in cells:
        result = read_result(root, cell.digest)
        if result is None or result.published:
            continue
        try:
            if not away:
                publish_result(root, cell.digest, result)
        except ValueshiftError as error:
            from ..tracking.client import ServerAwayError

            away = str(error) if isinstance(error, ServerAwayError) else ""
            unpublished[cell.digest] = str(error)
        else:
            if away:
                unpublished[cell.digest] = away
    return unpublished


class _Run:
    def __init__(self, cells: Sequence[Cell], root: Path, executor: Executor, say: Callable[[str], None]) -> None:
        self.root, self.executor, self.say = root, executor, say
        todo = outstanding(cells, root)
        self.cells = {cell.digest: cell for cell in cells if cell.digest in todo}
        self.account = Account(there={cell.digest for cell in cells} - todo)
        self.rank = {digest: place for place, digest in enumerate(self.cells)}
        self.unsettled = {digest: todo.intersection(cell.needs) for digest, cell in self.cells.items()}
        self.dependants: dict[str, list[str]] = {digest: [] for digest in self.cells}
        for digest, needs in self.unsettled.items():
            for need in needs:
                self.dependants[need].append(digest)
        self.ready = [place for place, digest in enumerate(self.cells) if not self.unsettled[digest]]
        self.order = list(self.cells)
        self.elsewhere: dict[str, float] = {}
        """By digest, when to look again."""
        self.begun: dict[str, float] = {}
        self.deaths: dict[str, int] = {}
        self.settled = 0
        self.spoken = time.monotonic()

    def to_the_end(self) -> None:
        self.tell(f"{len(self.account.there)} of {len(self.account.there) + len(self.cells)} cells are done already")
        while self.settled < len(self.cells):
            self.look_elsewhere()
            while self.ready and len(self.begun) < self.executor.slots:
                cell = self.cells[self.order[heapq.heappop(self.ready)]]
                self.begun[cell.digest] = time.monotonic()
                self.executor.submit(cell)
            for cell, outcome in self.executor.wait(LOOK_SECONDS):
                del self.begun[cell.digest]
                self.take(cell, outcome)
            self.give_a_sign()

    def take(self, cell: Cell, outcome: Outcome) -> None:
        """Account for how an attempt ended."""
        if outcome.end == "busy":
            self.elsewhere[cell.digest] = time.monotonic() + LOOK_SECONDS
        elif outcome.end == "died":
            deaths = self.deaths[cell.digest] = self.deaths.get(cell.digest, 0) + 1
            if deaths <= RETRIES:
                self.tell(f"{_named(cell)}: {outcome.message}; it is tried again")
                heapq.heappush(self.ready, self.rank[cell.digest])
            else:
                self.fail(cell, f"{outcome.message}, {deaths} times")
        elif outcome.end == "failed":
            self.fail(cell, outcome.message)
        else:
            (self.account.done if outcome.end == "done" else self.account.partial).add(cell.digest)
            self.settle(cell, f"{outcome.end} in {_duration(outcome.seconds)}")

    def fail(self, cell: Cell, reason: str) -> None:
        self.account.failed[cell.digest] = reason
        self.settle(cell, f"FAILED: {reason}")

    def settle(self, cell: Cell, how: str) -> None:
        """A cell has ended for good: what waited for it can begin, or is skipped."""
        self.settled += 1
        self.tell(f"{_named(cell)}: {how}")
        lost = cell.digest in self.account.failed or cell.digest in self.account.skipped
        for digest in self.dependants[cell.digest]:
            dependant = self.cells[digest]
            self.unsettled[digest].discard(cell.digest)
            if lost and not dependant.tolerant:
                if digest not in self.account.skipped:
                    self.account.skipped[digest] = self.account.skipped.get(cell.digest, cell.digest)
                    self.settle(dependant, f"skipped, as it needs {self.cells[self.account.skipped[digest]].label}")
            elif not self.unsettled[digest] and digest not in self.account.skipped:
                heapq.heappush(self.ready, self.rank[digest])

    def look_elsewhere(self) -> None:
        """Try again what another driver was doing a second ago."""
        now = time.monotonic()
        for digest in [digest for digest, when in self.elsewhere.items() if when <= now]:
            del self.elsewhere[digest]
            heapq.heappush(self.ready, self.rank[digest])

    def give_a_sign(self) -> None:
        """Say what is going on where nothing has been said for a while."""
        if time.monotonic() - self.spoken < SAY_SECONDS:
            return
        now = time.monotonic()
        parts = [f"{_named(self.cells[digest])} since {_duration(now - begun)}" for digest, begun in self.begun.items()]
        parts += [f"{_named(self.cells[digest])} is done by another driver" for digest in self.elsewhere]
        more = f" and {len(parts) - 5} more" if len(parts) > 5 else ""
        self.tell("at work: " + "; ".join(parts[:5]) + more)

    def tell(self, what: str) -> None:
        self.spoken = time.monotonic()
        total = len(self.cells) + len(self.account.there)
        self.say(f"{datetime.now():%H:%M:%S} [{len(self.account.there) + self.settled}/{total}] {what}")


def _named(cell: Cell) -> str:
    return f"{cell.stage} {cell.label}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
