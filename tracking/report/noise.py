"""Exhibits that set fine-tuning beside placebo fine-tuning: the same training on permuted text."""

import pandas as pd

from ...analysis.placebo import ENOUGH, changes_among_placebos, unchanged_among_placebos
from .arms import Arm, Study
from .exhibit import Exhibit
from .rows import ARM, Rows

LEVEL = 0.05
_MISSING = "There is no placebo run: repeat `valueshift finetune` with --placebo (five seeds or more give a z-score)."


def placebos_of(arm: Arm, study: Study) -> list[Arm]:
    """The placebo runs of an arm: the same base, sentences and training, any seed."""

    def same(other: Arm) -> tuple[object, ...]:
        return other.base.digest, other.source, other.languages, other.size, other.training

    return [other for other in study.arms if other.placebo and same(other) == same(arm)]


def placebo(study: Study, stayed: Exhibit) -> Exhibit:
    """Whether a run leaves fewer answers than training as such would: the exhibit `unchanged` among its placebo rows."""
    rows = Rows()
    by_run = dict(list(stayed.table.groupby("run", sort=False))) if len(stayed.table) else {}
    for arm in study.real:
        if others := placebos_of(arm, study):
            mine, *theirs = (by_run[one.tuned.run] for one in (arm, *others))
            rows.add(arm.cells, _runs(arm, others), unchanged_among_placebos, mine, theirs)
    return rows.exhibit(
        "placebo",
        "Fine-tuning among placebo runs",
        "ours",
        "Share of unchanged answers, and its place among those of placebo runs (the same training, tokens permuted "
        "across all sentences). rank is 1 where no placebo is farther from the mean of all; rank_p = rank / (placebos "
        "+ 1) is exact; it says nothing where there is one placebo, since both are then as far from their mean. "
        f"z and p are given from {ENOUGH} placebo runs on, p adjusted over the table. Intervals are of "
        "95%, over batteries of questions.",
        _MISSING,
        [
            *(*ARM, "language", "unchanged", "low", "high", "n", "placebo_mean", "placebo_deviation", "rank", "rank_p"),
            *("z", "p", "adjusted", "placebos"),
        ],
    )


def placebo_shifts(study: Study) -> Exhibit:
    """How many shifts lie outside what placebo runs change."""
    rows = Rows()
    for arm in study.real:
        if others := placebos_of(arm, study):
            rows.add(arm.cells, _runs(arm, others), _shifts, arm, others, study)
    return rows.exhibit(
        "placebo_shifts",
        "Shifts beyond the placebo runs",
        "ours",
        "Questions that shifted, and how many of them changed (log-odds of the first option) outside the placebo "
        f"runs: p from the t distribution of a prediction, adjusted over the run's questions, at most {LEVEL:g}. By "
        f"chance alone none is expected; fewer than {ENOUGH} placebo runs cannot tell.",
        _MISSING,
        [*ARM, "language", "shifted", "beyond", "n", "placebos", "reason"],
    )


def _shifts(arm: Arm, others: list[Arm], study: Study) -> pd.DataFrame:
    placebos = [other.tuned.answers for other in others]
    table = changes_among_placebos(arm.base.answers, arm.tuned.answers, placebos, study.items, study.selection)
    table["beyond"] = table["shifted"] & (table["adjusted"] <= LEVEL)
    counts = table.groupby("language", sort=False).agg(
        shifted=("shifted", "sum"), beyond=("beyond", "sum"), n=("question", "size")
    )
    enough = len(others) >= ENOUGH
    reason = "" if enough else f"fewer than {ENOUGH} placebo runs"
    counts["beyond"] = counts["beyond"].astype("Int64") if enough else pd.array([pd.NA] * len(counts), dtype="Int64")
    return counts.reset_index().assign(placebos=len(others), reason=reason)


def _runs(arm: Arm, others: list[Arm]) -> dict[str, None]:
    return dict.fromkeys(run for one in (arm, *others) for run in one.runs)
