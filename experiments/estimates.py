"""What the cells of a plan will take in time and disk: rates measured in this runs root where there are any, else built in.

Time of a cell = fixed + per unit x units. Units are sentences trained on (size x epochs), questions asked (questions x
languages), sentences explained, cells reported on, and languages of a toy.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

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


_MT5_PARAMETERS = {
    "google/mt5-small": 300_176_768,
    "google/mt5-base": 582_401_280,
    "google/mt5-large": 1_229_581_312,
    "google/mt5-xl": 3_742_619_648,
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


FEATURE_BYTES = 2 * 0.8 * 4 * 150_000
"""Of the store for each sentence of the size: two projections of the training share, float32, near the backend's budget."""


class Estimate(NamedTuple):
    """What the outstanding cells of one stage will take, if all were done one after another."""

    seconds: float
    """Of those whose rate is known."""
    disk: float
    """Bytes that stay."""
    unknown: int
    """Cells of which neither is known."""
    bases: tuple[str, ...]


def estimate(cells: Sequence[Cell], todo: Iterable[str], root: Path) -> dict[str, Estimate]:
    """By stage, what is outstanding."""
    wanted = set(todo)
    measured = _measured(cells, wanted, root)
    found: dict[str, Estimate] = {}
    for cell in cells:
        if cell.digest not in wanted:
            continue
        so_far = found.get(cell.stage, Estimate(0, 0, 0, ()))
        rate = measured.get((cell.stage, cell.model)) or BUILT_IN.get((cell.stage, cell.model))
        found[cell.stage] = Estimate(
            so_far.seconds + (rate.fixed + rate.per_unit * cell.units if rate else 0),
            so_far.disk + _disk(cell),
            so_far.unknown + (rate is None),
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


def _disk(cell: Cell) -> float:
    """Bytes that a cell leaves: a checkpoint in float32, or a feature store; records are small beside them."""
    if cell.stage == "finetune" and not cell.spec["lora"]:
        return 4.0 * _MT5_PARAMETERS.get(cell.model, 0)
    if cell.stage == "attribute":
        return FEATURE_BYTES * cell.units
    return 0.0
