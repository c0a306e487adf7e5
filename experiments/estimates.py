"""What the cells of a plan will take in time and disk: rates measured in this runs root where there are any, else built in.

Time of a cell = fixed + per unit x units. Units are sentences trained on (size x epochs), questions asked (questions x
languages), sentences explained, cells reported on, and languages of a toy.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from .cells import Cell
from .results import read_result


class Rate(NamedTuple):
    """How long a cell takes on one worker."""

    fixed: float
    """Seconds."""
    per_unit: float
    """Seconds."""
    basis: str
    """Where these come from."""


class Size(NamedTuple):
    """How large a model is."""

    parameters: int
    matrices: int
    """Weight matrices whose gradients attribution projects."""


SIZES = {
    "google/mt5-small": Size(300_176_768, 146),
    "google/mt5-base": Size(582_401_280, 218),
    "google/mt5-large": Size(1_229_581_312, 434),
    "google/mt5-xl": Size(3_742_619_648, 434),
}


_GPU = "is estimated for a GPU of the A100's class (docs/scale.md)"
BUILT_IN: dict[tuple[str, str], Rate] = {
    ("probe", "google/mt5-small"): Rate(25, 0.002, _GPU),
    ("probe", "google/mt5-base"): Rate(35, 0.004, _GPU),
    ("probe", "google/mt5-large"): Rate(60, 0.008, _GPU),
    ("finetune", "google/mt5-small"): Rate(60, 0.0083, _GPU),
    ("finetune", "google/mt5-base"): Rate(80, 0.0125, _GPU),
    ("finetune", "google/mt5-large"): Rate(150, 0.025, _GPU),
    ("attribute", "google/mt5-small"): Rate(120, 0.10, _GPU),
    ("attribute", "google/mt5-base"): Rate(180, 0.17, _GPU),
    ("attribute", "google/mt5-large"): Rate(300, 0.33, _GPU),
}


_CORE = "is estimated for a core of a server (docs/scale.md)"
OF_EVERY_MODEL = {"toy": Rate(0, 80, _CORE), "compare": Rate(3, 0, _CORE), "report": Rate(0, 1, _CORE)}
"""By stage, rates that do not depend on the model."""

BUDGET = 150_000
"""Numbers in a vector of features that are near the backend's budget, where k is not given."""


class Estimate(NamedTuple):
    """What the outstanding cells of one stage will take, if all were done one after another."""

    seconds: float
    """Of those whose rate is known."""
    disk: float
    """Bytes that stay, of those whose size is known."""
    unknown: int
    """Cells whose rate is not known."""
    unsized: int
    """Cells whose disk is not known."""
    bases: tuple[str, ...]


def estimate(cells: Sequence[Cell], todo: Iterable[str], root: Path) -> dict[str, Estimate]:
    """By stage, what is outstanding."""
    wanted = set(todo)
    measured = _measured(cells, wanted, root)
    there = {_store(cell) for cell in cells if cell.digest not in wanted}
    found: dict[str, Estimate] = {}
    for cell in cells:
        if cell.digest not in wanted:
            continue
        so_far = found.get(cell.stage, Estimate(0, 0, 0, 0, ()))
        kind = cell.stage, cell.model
        rate = measured.get(kind) or BUILT_IN.get(kind) or OF_EVERY_MODEL.get(cell.stage)
        disk = 0.0 if _store(cell) in there else _disk(cell)
        there.add(_store(cell))
        found[cell.stage] = Estimate(
            so_far.seconds + (rate.fixed + rate.per_unit * cell.units if rate else 0),
            so_far.disk + (disk or 0),
            so_far.unknown + (rate is None),
            so_far.unsized + (disk is None),
            tuple(dict.fromkeys([*so_far.bases, *([rate.basis] if rate else [])])),
        )
    return found


def _measured(cells: Sequence[Cell], todo: set[str], root: Path) -> dict[tuple[str, str], Rate]:
    """By stage and model, the median rate of the cells of this plan that are done."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in cells:
        if cell.digest not in todo and (result := read_result(root, cell.digest)):
            rates[cell.stage, cell.model].append(result.seconds / max(result.units, 1))
    return {key: Rate(0, median(found), f"measured in {len(found)} cells here") for key, found in rates.items()}


def _store(cell: Cell) -> tuple[Any, ...]:
    """What tells apart where cells leave their bytes: attributions of one model by one method share a feature store."""
    return (cell.needs[-1], cell.spec["method"], cell.spec["k"]) if cell.stage == "attribute" else (cell.digest,)


def _disk(cell: Cell) -> float | None:
    """Bytes that a cell leaves: a checkpoint in float32, or a feature store; records are small beside them.

    None where the model's size is not known.
    """
    size = SIZES.get(cell.model)
    if cell.stage == "finetune" and not cell.spec["lora"]:
        return 4.0 * size.parameters if size else None
    if cell.stage == "attribute":
        numbers = _numbers(cell.spec["method"], cell.spec["k"], size)
        return numbers and 0.8 * cell.units * 4 * numbers  # of the training share, in float32
    return 0.0


def _numbers(method: str, k: int | None, size: Size | None) -> float | None:
    """Numbers that are kept of a sentence: ours a vector for each of two projections, the paper's one."""
    if method == "paper":
        return k or 4096
    if k is None:
        return 2 * BUDGET
    return 2 * size.matrices * k**2 if size else None
