"""Similarity structure of a set of profiles [paper 5.2.1, 6; Fig. 5, 12, 13]."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import permutations
from math import factorial

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from ..core.errors import ValueshiftError
from ..core.probes import Item
from . import intervals
from .bootstrap import Floats, Statistic, batteries
from .pairs import MINIMUM
from .profiles import Selection, selected
from .significance import FLIPS, randomised_p

FEWEST_PROFILES = 4
"""Fewer profiles than this have no structure to compare: three of them make three pairs."""


def dissimilarity(profile: pd.DataFrame) -> pd.DataFrame:
    """Cosine dissimilarity (1 - cosine) between the columns of a profile, each pair over its common questions.

    Args:
        profile: index question, columns language or country, values 0 to 1.

    Returns:
        A symmetric table of columns by columns; NaN where a pair has fewer than ten common questions.
    """
    values = profile.to_numpy(dtype=np.float64)
    present = (~np.isnan(values)).astype(np.float64)
    result = _dissimilarity(values)(np.ones((1, len(values))))[0]
    result[present.T @ present < MINIMUM] = np.nan
    return pd.DataFrame(result, index=profile.columns, columns=profile.columns)


def dissimilarities(profile: pd.DataFrame, items: Mapping[str, Item], selection: Selection = "paper") -> pd.DataFrame:
    """The same as `dissimilarity`, one row a pair, with intervals [3.5, 5.2.1; Fig. 5, 12, 13].

    Returns:
        One row a pair, in the order of the columns: first, second, dissimilarity; low, high (over batteries, of the cosine
        on Fisher's z scale); n, reason.

    Raises:
        ValueshiftError: no question of the profile is in the selection.
    """
    (values,), questions, _ = common_questions([profile], items, selection)
    present = ~np.isnan(values)
    n = present.T.astype(np.intp) @ present
    unlike = _dissimilarity(values)
    cosine, low, high = intervals.correlation(lambda weights: 1 - unlike(weights), batteries(questions, items))
    first, second = np.triu_indices(values.shape[1], 1)
    enough = n[first, second] >= MINIMUM
    table = pd.DataFrame({"first": profile.columns[first], "second": profile.columns[second]})
    for name, cell in zip(("dissimilarity", "low", "high"), (1 - cosine, 1 - high, 1 - low), strict=True):
        table[name] = np.where(enough, cell[first, second], np.nan)
    return table.assign(n=n[first, second], reason=np.where(enough, "", f"fewer than {MINIMUM} common questions"))


def _dissimilarity(values: Floats) -> Statistic:
    """1 - cosine between the columns of (questions, k), missing values left out of each pair: (resamples, k, k)."""
    present = (~np.isnan(values)).astype(np.float64)
    filled = np.nan_to_num(values)

    def statistic(weights: Floats) -> Floats:
        weighted = weights[:, None, :] * filled.T
        squares = np.matmul(weighted * filled.T, present)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosine = np.matmul(weighted, filled) / np.sqrt(squares * squares.transpose(0, 2, 1))
        result: Floats = 1 - cosine.clip(max=1.0)
        return result

    return statistic


def structure(
    first: pd.DataFrame,
    second: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    seed: int = 0,
) -> dict[str, object]:
    """How alike the similarity structures of two sets of profiles are [Fig. 5, 12].

    The Spearman correlation between the upper triangles of their dissimilarities, over the columns that both have. To
    compare languages with countries, name the survey's columns by language first (`profiles.spoken`).

    Returns:
        spearman; low, high (over batteries, each left out of both sets); p (Mantel: columns of one set permuted);
        profiles, pairs, n (questions that both sets have), dropped, reason.

    Raises:
        ValueshiftError: no question in common, or one that `items` lacks.
    """
    columns = [column for column in first.columns if column in second.columns]
    tables, questions, dropped = common_questions([first[columns], second[columns]], items, selection)
    counts = {"profiles": len(columns), "pairs": len(columns) * (len(columns) - 1) // 2}
    counts |= {"n": len(questions), "dropped": dropped}
    missing = {name: float("nan") for name in ("spearman", "low", "high", "p")}
    if len(columns) < FEWEST_PROFILES:
        return missing | counts | {"reason": f"fewer than {FEWEST_PROFILES} common profiles"}
    if len(questions) < MINIMUM:
        return missing | counts | {"reason": f"fewer than {MINIMUM} common questions"}
    upper = np.triu_indices(len(columns), 1)
    each = [_dissimilarity(table) for table in tables]

    def statistic(weights: Floats) -> Floats:
        ranks = [_unit_ranks(one(weights)[:, *upper]) for one in each]
        result: Floats = (ranks[0] * ranks[1]).sum(axis=1)
        return result

    once = np.ones((1, len(questions)))
    interval = intervals.correlation(statistic, batteries(questions, items), smooth=False)
    value, low, high = (float(part) for part in interval)
    p = mantel(each[0](once)[0], each[1](once)[0], seed=seed)
    reason = "" if np.isfinite(value) else "all pairs equally dissimilar"
    return {"spearman": value, "low": low, "high": high, "p": p} | counts | {"reason": reason}


def mantel(first: Floats, second: Floats, permuted: int = FLIPS, seed: int = 0) -> float:
    """Two-sided p-value of the Spearman correlation of two symmetric tables (k, k), profiles permuted [Mantel 1967].

    All k! orders are taken where they are no more than `permuted` + 1.
    """
    count = len(first)
    upper = np.triu_indices(count, 1)
    left = _unit_ranks(first[upper][None])
    ranks = np.zeros_like(second)
    ranks[upper] = _unit_ranks(second[upper][None])[0]
    ranks += ranks.T
    right = ranks.ravel()[_permuted_pairs(count, permuted, seed)]
    return float(randomised_p((right @ left.T)[:, 0]))


@lru_cache(maxsize=4)
def _permuted_pairs(count: int, permuted: int, seed: int) -> NDArray[np.intp]:
    """Places of the upper triangle in a flat table of `count` profiles whose order is permuted: (orders, pairs)."""
    if factorial(count) <= permuted + 1:
        orders = np.array(list(permutations(range(count))))
    else:
        rng = np.random.default_rng(seed)
        orders = np.concatenate(
            [np.arange(count)[None], rng.permuted(np.tile(np.arange(count), (permuted, 1)), axis=1)]
        )
    first, second = np.triu_indices(count, 1)
    places: NDArray[np.intp] = orders[:, first] * count + orders[:, second]
    return places


def _unit_ranks(values: Floats) -> Floats:
    """Ranks along the rows of (rows, k), centred and of length one, so that their product is a correlation."""
    ranks = stats.rankdata(values, axis=1) - (values.shape[1] + 1) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        unit: Floats = ranks / np.sqrt((ranks**2).sum(axis=1, keepdims=True))
    return unit


def common_questions(
    tables: Sequence[pd.DataFrame], items: Mapping[str, Item], selection: Selection, *, every_column: bool = False
) -> tuple[list[Floats], list[str], int]:
    """The tables' values on the questions that each has in at least one column, the questions, and how many dropped.

    With `every_column` only the questions that each has in all columns are common.

    Raises:
        ValueshiftError: they share no question.
    """
    questions = selected(items, selection)
    values = [table.reindex(questions).to_numpy(dtype=np.float64) for table in tables]
    asked = ~np.isnan(np.concatenate(values, axis=1).T)
    if not every_column:
        starts = np.cumsum([0, *(one.shape[1] for one in values[:-1])])
        asked = np.logical_or.reduceat(asked, starts, axis=0)
    wanted, common = asked.any(axis=0), asked.all(axis=0)
    if not common.any():
        raise ValueshiftError("the profiles share no question; compare profiles of the same items")
    names = [questions[place] for place in np.flatnonzero(common)]
    return [one[common] for one in values], names, int(wanted.sum() - common.sum())


def mean_dissimilarity(
    models: Mapping[str, Sequence[pd.DataFrame]], items: Mapping[str, Item], selection: Selection = "paper"
) -> pd.DataFrame:
    """Mean pairwise dissimilarity of languages within models [5.2.1, 6]: base, mono- and multilingual, 2K against 10K.

    Args:
        models: name of a kind of model to the profiles of its models, whose means are averaged (one monolingual model
            a fine-tuning language); the first kind is what the others are compared with.
        items: the registry.
        selection: the paper's questions or all.

    Returns:
        One row a kind: model, dissimilarity, low, high; change, change_low, change_high (minus the first kind's,
        paired over batteries); models, languages (those that all have), n, dropped, reason.

    Raises:
        ValueshiftError: no question or fewer than two languages in common.
    """
    tables = [table for kind in models.values() for table in kind]
    languages = [name for name in tables[0].columns if all(name in table.columns for table in tables)]
    if len(languages) < 2:
        raise ValueshiftError("the models share fewer than two languages; probe them in the same languages")
    values, questions, dropped = common_questions([table[languages] for table in tables], items, selection)
    upper = np.triu_indices(len(languages), 1)
    sizes = [len(kind) for kind in models.values()]
    starts = np.cumsum([0, *sizes[:-1]])
    each = [_dissimilarity(table) for table in values]

    def statistic(weights: Floats) -> Floats:
        means = np.stack([one(weights)[:, *upper].mean(axis=1) for one in each], axis=1)
        kinds = np.add.reduceat(means, starts, axis=1) / sizes
        return np.stack([kinds, kinds - kinds[:, :1]], axis=1)

    enough = len(questions) >= MINIMUM
    (value, change), (low, change_low), (high, change_high) = intervals.symmetric(
        statistic, batteries(questions, items)
    )
    cells = {"dissimilarity": value, "low": low, "high": high}
    cells |= {"change": change, "change_low": change_low, "change_high": change_high}
    table = pd.DataFrame({"model": list(models)} | (cells if enough else dict.fromkeys(cells, np.nan)))
    return table.assign(
        models=sizes,
        languages=len(languages),
        n=len(questions),
        dropped=dropped,
        reason="" if enough else f"fewer than {MINIMUM} common questions",
    )
