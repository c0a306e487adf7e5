"""What `valueshift grid plan` shows: cells by stage and model, their states, and what the rest will take."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..core.shown import shown
from .cells import Cell
from .estimates import estimate
from .plan import STAGES
from .results import outstanding, running


class Overview(NamedTuple):
    """A table, and what must be said with it."""

    columns: list[str]
    rows: list[list[str]]
    notes: list[str]
    left: int
    """Cells to do."""


def overview(cells: Sequence[Cell], root: Path) -> Overview:
    """The state of a plan, a row a stage."""
    todo = outstanding(cells, root)
    at_work = todo & set(running(root))
    estimates = estimate(cells, todo, root)
    rows = []
    for stage in STAGES:
        digests = [cell.digest for cell in cells if cell.stage == stage]
        if not digests:
            continue
        found = estimates.get(stage)
        rows.append(
            [
                stage,
                str(len(digests)),
                str(len(set(digests) - todo)),
                str(len(at_work.intersection(digests))),
                _time(found.seconds) if found and found.seconds else "",
                _bytes(found.disk) if found and found.disk else "",
            ]
        )
    seconds, disk = (sum(getattr(found, what) for found in estimates.values()) for what in ("seconds", "disk"))
    unknown, unsized = (sum(getattr(found, what) for found in estimates.values()) for what in ("unknown", "unsized"))
    totals = [
        (f"over {shown(found)}" if found else "not known") if lacking else shown(found)
        for shown, found, lacking in ((_time, seconds, unknown), (_bytes, disk, unsized))
    ]
    rows.append(["all", str(len(cells)), str(len(cells) - len(todo)), str(len(at_work)), *totals])
    notes = [f"{stage}: time {'; '.join(found.bases)}" for stage, found in estimates.items() if found.bases]
    if unknown:
        notes.append(f"{unknown} cells are of models whose rate is not known before the first of them is done")
    if unsized:
        notes.append(
            f"{unsized} cells are of models whose size is not known: what they leave on the disk is not counted"
        )
    return Overview(["stage", "cells", "done", "at work", "time left, one worker", "disk left"], rows, notes, len(todo))


def listing(cells: Sequence[Cell], root: Path) -> Iterator[str]:
    """Every cell in a line: digest, state, stage, what it is; separated by tabs, after those that it needs."""
    todo, at_work = outstanding(cells, root), running(root)
    for cell in cells:
        state = "done" if cell.digest not in todo else "at work" if cell.digest in at_work else "to do"
        yield f"{cell.digest}\t{state}\t{cell.stage}\t{shown(cell.label)}"


def _time(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:.1f} days"


def _bytes(number: float) -> str:
    return f"{number / 1e6:.0f} MB" if number < 1e9 else f"{number / 1e9:.1f} GB"
