"""From what analysis returns to an exhibit: rows named by their run, joined, with what could not be made and why."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pandas as pd

from ...analysis.significance import adjusted
from ...core.errors import ValueshiftError
from .arms import Arm, Model, Study
from .exhibit import Exhibit

ARM = ["model", "source", "tuning", "size", "training", "seed", "placebo", "run"]
GROUP = ["model", "source", "size", "training"]
INTERVAL = "Intervals are of 95%, over batteries of questions."

P = ParamSpec("P")
C = TypeVar("C")

_WHOLE = ("size", "seed", "size_first", "size_second")


def staged(study: Study) -> Iterator[tuple[dict[str, object], Model, Arm | None]]:
    """All models, pretrained and tuned, with what names them in one table, and the arm of the tuned."""
    untrained = {"source": "", "tuning": "", "size": None, "training": "", "seed": None, "placebo": False}
    for model in study.pretrained:
        yield {"stage": "pretrained", "model": model.name, **untrained, "run": model.run}, model, None
    for arm in study.arms:
        yield {"stage": "fine-tuned", **arm.cells}, arm.tuned, arm


def groups(arms: Iterable[Arm], by: Callable[[Arm], dict[str, Any]]) -> list[tuple[dict[str, Any], list[Arm]]]:
    """The arms that agree in the cells of `by`, in the order in which they come."""
    found: dict[tuple[object, ...], tuple[dict[str, Any], list[Arm]]] = {}
    for arm in arms:
        cells = by(arm)
        found.setdefault(tuple(cells.values()), (cells, []))[1].append(arm)
    return list(found.values())


def chosen(arm: Arm, *names: str) -> dict[str, Any]:
    """Some of an arm's cells."""
    return {name: arm.cells[name] for name in names}


@dataclass
class Rows:
    """The rows of one exhibit while they are made."""

    named: list[Mapping[str, object]] = field(default_factory=list)
    tables: list[pd.DataFrame] = field(default_factory=list)
    """Each with what names its rows."""
    runs: dict[str, None] = field(default_factory=dict)
    failed: dict[str, None] = field(default_factory=dict)

    def add(
        self,
        cells: Mapping[str, object],
        runs: Iterable[str],
        make: Callable[P, pd.DataFrame | Mapping[str, object]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Add the rows that `make` gives of its arguments, named by `cells`; where it refuses, remember its sentence."""
        try:
            made = make(*args, **kwargs)
        except ValueshiftError as error:
            self.failed[str(error)] = None
            return
        self.named.append(cells)
        self.tables.append(made if isinstance(made, pd.DataFrame) else pd.DataFrame([dict(made)]))
        self.runs.update(dict.fromkeys(runs))

    def add_each(
        self,
        cases: Sequence[tuple[Mapping[str, object], Iterable[str], C]],
        make: Callable[[list[C]], Sequence[pd.DataFrame]],
    ) -> None:
        """Add the rows that `make` gives of many cases at once, each (cells, runs, case); where it refuses, case by case."""
        try:
            tables = make([case for _, _, case in cases])
        except ValueshiftError:
            for cells, runs, case in cases:
                self.add(cells, runs, lambda case: make([case])[0], case)
            return
        self.named += [cells for cells, _, _ in cases]
        self.tables += tables
        self.runs.update((run, None) for _, runs, _ in cases for run in runs)

    def joined(self) -> pd.DataFrame:
        """All rows, each with what names it; where a table has a column of its own, that counts."""
        table = pd.concat(self.tables, ignore_index=True)
        places = np.repeat(np.arange(len(self.tables)), [*map(len, self.tables)])
        names = pd.DataFrame([dict(cells) for cells in self.named]).take(places).reset_index(drop=True)
        both = names.columns.intersection(table.columns)
        table[both] = table[both].fillna(names[both])
        return pd.concat([names.drop(columns=both), table], axis=1)

    def exhibit(
        self,
        name: str,
        title: str,
        paper: str,
        caption: str,
        missing: str,
        columns: Iterable[str] | None = None,
        over: str = "questions",
    ) -> Exhibit:
        """The exhibit of all rows, p-values adjusted over the whole table.

        Args:
            name: of the exhibit.
            title: of the exhibit.
            paper: what it is in the paper.
            caption: what is shown, without its n, which is added.
            missing: what to run where there is no row at all.
            columns: in their order; all where None.
            over: what `n` counts.
        """
        failed = " ".join(f"Not for all runs: {sentence}." for sentence in self.failed)
        if not self.tables:
            return Exhibit(name, title, paper, pd.DataFrame(), missing=" ".join(filter(None, [missing, failed])))
        table = self.joined()
        if "p" in table.columns:
            table["adjusted"] = adjusted(table["p"])
        for column in table.columns.intersection(list(_WHOLE)):
            table[column] = table[column].astype("Int64")
        if columns is not None:
            table = table[list(columns)]
        counted = f" {extent(table, over)}" if "n" in table.columns else ""
        return Exhibit(name, title, paper, table, caption + counted, tuple(self.runs), failed)


def extent(table: pd.DataFrame, over: str = "questions") -> str:
    """How many questions the rows that have a value are of."""
    n = table.loc[table["reason"] == "", "n"] if "reason" in table.columns else table["n"]
    if not len(n):
        return "No cell has enough data."
    low, high = int(n.min()), int(n.max())
    return f"n = {low} {over}." if low == high else f"n = {low} to {high} {over}."
