"""`valueshift compare`: two probe runs side by side, as a comparison record."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..analysis.profiles import Selection
from ..analysis.shifts import flipped, unchanged
from ..core.digests import digest
from ..core.probes import Item, probe_set
from ..core.records import write_record
from .results import ProbeRun


def kept_metrics(kept: pd.DataFrame) -> dict[str, float]:
    """`kept/<language>` as fractions, from the table of unchanged shares by language; undefined ones are left out."""
    return _by_member("kept", kept, "language")


def _by_member(family: str, table: pd.DataFrame, column: str) -> dict[str, float]:
    known = table.dropna(subset=["unchanged"])
    return {f"{family}/{name}": float(value) for name, value in zip(known[column], known["unchanged"], strict=True)}


def kept_by_language(base: ProbeRun, tuned: ProbeRun) -> pd.DataFrame:
    """Share of unchanged answers per language [paper 5.2.1] between two runs of one probe set."""
    items = _items(base)
    return unchanged(base.scores, tuned.scores, items, by="language", selection=_selection(items))


def compare(base: ProbeRun, tuned: ProbeRun, root: Path) -> tuple[Path, dict[str, pd.DataFrame]]:
    """Write the comparison record of two probe runs; return its folder and tables.

    Tables: `kept` (by language), `kept_cat` (by category), `flipped` (the shifts).

    Raises:
        ValueshiftError: the runs asked different probe sets or share no language.
    """
    items = _items(base)
    selection = _selection(items)
    tables = {
        "kept": kept_by_language(base, tuned),
        "kept_cat": unchanged(base.scores, tuned.scores, items, by="category", selection=selection),
        "flipped": flipped(base.scores, tuned.scores),
    }
    overall = unchanged(base.scores, tuned.scores, items, by=(), selection=selection).iloc[0]
    metrics = kept_metrics(tables["kept"])
    if pd.notna(overall["unchanged"]):
        metrics["0_overview/kept"] = float(overall["unchanged"])
        metrics["0_overview/shifted"] = float(round(overall["n"] * (1 - overall["unchanged"])))
    metrics |= _by_member("kept_cat", tables["kept_cat"], "category")
    inputs = {
        "base": base.inputs["model"],
        "tuned": [tuned.inputs["model"]],
        "probe_set": base.inputs["probe_set"],
        "selection": selection,
        "runs": {"base": digest(base.inputs), "tuned": digest(tuned.inputs)},
    }
    folder = write_record(
        root,
        "comparison",
        inputs,
        tables,
        settings={"base": base.name, "tuned": [tuned.name]},
        metrics=metrics,
    )
    return folder, tables


def _items(run: ProbeRun) -> Mapping[str, Item]:
    return probe_set(str(run.inputs["probe_set"])).items


def _selection(items: Mapping[str, Item]) -> Selection:
    """The paper's questions where the registry marks any, else all."""
    return "paper" if any(item.paper for item in items.values()) else "all"
