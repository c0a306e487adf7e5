"""What several fine-tuned models say together: unique shifts, consistency of categories, spread over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from ..core.probes import Item
from . import intervals
from .bootstrap import Floats, Groups, batteries
from .correlations import pearson
from .profiles import Selection, selected
from .shifts import common

FEWEST_LANGUAGES = 4
"""Fewer test languages than this carry no correlation between sources."""


def unique_shifts(
    base_scores: pd.DataFrame,
    tuned_scores: Mapping[str, pd.DataFrame],
    items: Mapping[str, Item],
    selection: Selection = "paper",
) -> pd.DataFrame:
    """Share of the shifted questions that shifted under exactly one fine-tuning language [5.2.1].

    A question counts when the base and every tuned model answered it, without a tie, in that test language.

    Args:
        base_scores: scores before fine-tuning.
        tuned_scores: fine-tuning language to the scores of the model of one source and size.
        items: the registry of their probe set.
        selection: the paper's questions or all.

    Returns:
        One row a test language, and last `mean`, the average over those that have a value: language, unique, low, high
        (over batteries), shifted (questions that shifted under any), n (questions counted), dropped, reason.

    Raises:
        ValueshiftError: fewer than two models, or models that cannot be compared.
    """
    if len(tuned_scores) < 2:
        raise ValueshiftError("a shift is unique among several fine-tuning languages; give two tuned models or more")
    wanted = selected(items, selection)
    shifts, asked = [], set()
    for scores in tuned_scores.values():
        pairs = common(base_scores, scores).set_index(["language", "question"])
        pairs = pairs[pairs.index.get_level_values("question").isin(wanted)]
        asked |= set(pairs.index)
        answered = pairs.dropna(subset=["answer_base", "answer_tuned"])
        shifts.append((answered["answer_base"] != answered["answer_tuned"]).astype(int))
    counts = pd.concat(shifts, axis=1, join="inner").sum(axis=1)
    languages = list(dict.fromkeys(base_scores["language"]))
    table = counts.unstack("language").reindex(columns=languages)
    one, shifted = (table == 1).to_numpy(), (table > 0).to_numpy()
    groups = batteries(list(table.index), items)
    rows: list[dict[str, object]] = []
    for place, language in enumerate(languages):
        row: dict[str, object] = {"language": language, "unique": np.nan, "low": np.nan, "high": np.nan}
        moved = shifted[:, place]
        if moved.any():
            estimate = intervals.share(one[moved, place], np.unique(groups[moved], return_inverse=True)[1])
            row |= {"unique": estimate.value, "low": estimate.low, "high": estimate.high}
        n = int(table[language].notna().sum())
        dropped = sum(name == language for name, _ in asked) - n
        reason = "" if moved.any() else "no question shifted"
        rows.append(row | {"shifted": int(moved.sum()), "n": n, "dropped": dropped, "reason": reason})
    return pd.DataFrame([*rows, _mean_unique(rows, one, shifted, groups)])


def _mean_unique(
    rows: list[dict[str, object]], one: NDArray[np.bool_], shifted: NDArray[np.bool_], groups: Groups
) -> dict[str, object]:
    """The last row: the mean over test languages of (questions, languages), batteries varying in all of them at once."""
    some = shifted.any(axis=0)

    def statistic(weights: Floats) -> Floats:
        result: Floats = ((weights @ one[:, some]) / (weights @ shifted[:, some])).mean(axis=1)
        return result

    value, low, high = intervals.symmetric(statistic, groups) if some.any() else (np.nan, np.nan, np.nan)
    totals = pd.DataFrame(rows)[["shifted", "n", "dropped"]].sum()
    return {
        "language": "mean",
        "unique": float(value),
        "low": float(np.clip(low, 0, 1)),
        "high": float(np.clip(high, 0, 1)),
        **{str(name): int(total) for name, total in totals.items()},
        "reason": "" if some.any() else "no question shifted",
    }


def category_consistency(shares: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """Per category, Pearson over test languages of the unchanged shares of two sources [Fig. 3].

    The paper does not say whether fine-tuning languages are averaged before or after correlating: both are given.

    Args:
        shares: one row a cell with the columns source, tuning_language, language, category, unchanged (tables of
            `shifts.unchanged` by language and category, with the run's source and fine-tuning language added).
        first: a source.
        second: another source.

    Returns:
        One row per category and averaging (`before`, `after`): category, averaging, pearson, low, high (over
        languages), n (test languages that both sources have for all their common fine-tuning languages), reason.

    Raises:
        ValueshiftError: a column is missing, a cell appears twice, or a source is not in the table.
    """
    keys = ["source", "tuning_language", "category", "language"]
    if missing := [name for name in (*keys, "unchanged") if name not in shares.columns]:
        raise ValueshiftError(f"the table of unchanged shares has no column {missing[0]}")
    for source in (first, second):
        if source not in set(shares["source"]):
            raise ValueshiftError(f"source '{source}' is not among {', '.join(sorted(shares['source'].unique()))}")
    kept = shares[shares["source"].isin([first, second])]
    if kept.duplicated(keys).any():
        cell = kept[kept.duplicated(keys)].iloc[0]
        raise ValueshiftError(
            f"source {cell['source']}, category {cell['category']}, language {cell['language']} appears twice; "
            "average over seeds first"
        )
    rows = []
    for category, table in kept.groupby("category"):
        cells = table.pivot(index="language", columns=["tuning_language", "source"], values="unchanged")
        tunings = [
            name for name in table["tuning_language"].unique() if {(name, first), (name, second)} <= set(cells.columns)
        ]
        x, y = (cells[[(name, source) for name in tunings]].to_numpy(dtype=np.float64) for source in (first, second))
        complete = ~(np.isnan(x).any(axis=1) | np.isnan(y).any(axis=1))
        for averaging in ("before", "after"):
            row = _consistency(x[complete], y[complete], averaging)
            rows.append({"category": category, "averaging": averaging} | row)
    return pd.DataFrame(rows)


def _consistency(x: Floats, y: Floats, averaging: str) -> dict[str, object]:
    """Correlation of (languages, fine-tuning languages) shares, averaged before or after."""
    n = len(x)
    row: dict[str, object] = {"pearson": np.nan, "low": np.nan, "high": np.nan, "n": n}
    if not x.shape[1]:
        return row | {"reason": "no common fine-tuning language"}
    if n < FEWEST_LANGUAGES:
        return row | {"reason": f"fewer than {FEWEST_LANGUAGES} common test languages"}
    if averaging == "before":
        x, y = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    table = pearson(x, y)

    def statistic(weights: Floats) -> Floats:
        result: Floats = np.einsum("rkk->r", table(weights)) / x.shape[1]
        return result

    value, low, high = (float(part) for part in intervals.correlation(statistic, np.arange(n)))
    reason = "" if np.isfinite(value) else "constant shares"
    return row | {"pearson": value, "low": low, "high": high, "reason": reason}


def spread(table: pd.DataFrame, value: str, by: Sequence[str]) -> pd.DataFrame:
    """Mean and spread over replicates, such as seeds or fine-tuning languages [Table 2]: one row a cell of `by`.

    Args:
        table: one row a replicate and cell.
        value: the column to summarise; missing values are left out.
        by: the columns that name a cell.

    Returns:
        The columns of `by`, then mean, deviation (sample standard deviation, missing for one replicate), minimum,
        maximum, replicates.

    Raises:
        ValueshiftError: a column is missing.
    """
    if missing := [name for name in (*by, value) if name not in table.columns]:
        raise ValueshiftError(f"the table has no column {missing[0]}; it has {', '.join(map(str, table.columns))}")
    cells = table.groupby(list(by), sort=False, dropna=False)[value]
    return cells.agg(mean="mean", deviation="std", minimum="min", maximum="max", replicates="count").reset_index()
