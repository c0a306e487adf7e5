"""What several fine-tuned models say together: unique shifts, consistency of categories, spread over seeds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from ..core.probes import Item
from . import intervals
from .answers import Scores
from .bootstrap import Floats, Groups, batteries
from .correlations import pearson
from .intervals import shares
from .profiles import Selection
from .shifts import compared

FEWEST_LANGUAGES = 4
"""Fewer test languages than this carry no correlation between sources."""


def unique_shifts(
    base_scores: Scores,
    tuned_scores: Mapping[str, Scores],
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
    choices, questions, languages = compared([base_scores, *tuned_scores.values()], items, selection)
    kept = (np.abs(choices) == 1).all(axis=0)
    counts = np.where(kept, (choices[1:] != choices[0]).sum(axis=0), 0)
    one, shifted, groups = counts == 1, counts > 0, batteries(questions, items)
    by_battery = np.arange(groups.max() + 1)[:, None] == groups
    value, low, high = shares((by_battery @ one.astype(np.intp)).T, (by_battery @ shifted.astype(np.intp)).T)
    n, moved = kept.sum(axis=0), shifted.sum(axis=0)
    dropped = (~np.isnan(choices)).any(axis=0).sum(axis=0) - n
    reason = np.where(moved > 0, "", "no question shifted")
    table = pd.DataFrame({"language": languages, "unique": value, "low": low, "high": high})
    table = table.assign(shifted=moved, n=n, dropped=dropped, reason=reason)
    some = kept.any(axis=1)
    last = _mean_unique(table, one[some], shifted[some], np.unique(groups[some], return_inverse=True)[1])
    return pd.concat([table, pd.DataFrame([last])], ignore_index=True)


def _mean_unique(
    table: pd.DataFrame, one: NDArray[np.bool_], shifted: NDArray[np.bool_], groups: Groups
) -> dict[str, object]:
    """The last row: the mean over test languages of (questions, languages), batteries varying in all of them at once."""
    some = shifted.any(axis=0)

    def statistic(weights: Floats) -> Floats:
        result: Floats = ((weights @ one[:, some]) / (weights @ shifted[:, some])).mean(axis=1)
        return result

    value, low, high = intervals.symmetric(statistic, groups) if some.any() else (np.nan, np.nan, np.nan)
    totals = table[["shifted", "n", "dropped"]].sum()
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
    cells = kept.pivot(index=["category", "language"], columns=["source", "tuning_language"], values="unchanged")
    tunings = cells[first].columns.intersection(cells[second].columns)
    of_category = cells.index.get_level_values("category")
    sides = [cells[source][tunings].to_numpy(dtype=np.float64) for source in (first, second)]
    rows = []
    for category in of_category.unique():
        x, y = (side[of_category == category] for side in sides)
        both = ~(np.isnan(x).all(axis=0) | np.isnan(y).all(axis=0))  # fine-tuning languages that have the category
        x, y = x[:, both], y[:, both]
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
