"""Tests of no effect by randomisation over batteries, and the correction of a table for its many cells.

Under no effect the contribution of a battery is as likely positive as negative, so turning the signs of whole batteries
gives the statistic's null distribution without a model of how alike the questions of a battery are (the wild cluster
test with Rademacher weights; Canay, Santos and Shaikh 2021).
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from .bootstrap import Floats, Groups

FLIPS = 9_999
_ROOM = 2_000_000  # numbers of an array: bounds memory, not results
_TOLERANCE = 1e-9  # relative: equal statistics that were summed in another order


def battery_sums(values: Floats, groups: Groups) -> Floats:
    """Sums of (questions, ...) over each group: (groups, ...)."""
    sums = np.zeros((int(groups.max()) + 1, *values.shape[1:]))
    np.add.at(sums, groups, values)
    return sums


@lru_cache(maxsize=16)
def signs(groups: int, flips: int = FLIPS, seed: int = 0) -> Floats:
    """Signs of shape (flips + 1, groups), the first row all +1: every one of the 2^groups rows where those are fewer.

    The array is shared between calls and read-only.
    """
    if 2**groups <= flips + 1:
        minus = np.arange(2**groups)[:, None] >> np.arange(groups) & 1
    else:
        minus = np.random.default_rng(seed).integers(0, 2, size=(flips + 1, groups))
        minus[0] = 0
    result: Floats = (1 - 2 * minus).astype(np.float64)
    result.flags.writeable = False
    return result


def randomised_p(statistics: Floats) -> Floats:
    """Two-sided mid-p values (Lancaster 1961) of (randomisations, ...) whose first row is what was observed.

    Equal statistics count one half: shares of few shifts are so discrete that the test would otherwise hardly ever
    reject. An observed statistic of zero has p = 1, and no p is below one in the number of randomisations.
    """
    size = np.abs(statistics)
    margin = size[:1] * _TOLERANCE
    larger, smaller = (size > size[:1] + margin).mean(axis=0), (size < size[:1] - margin).mean(axis=0)
    p = np.maximum((1 + larger - smaller) / 2, 1 / len(size))
    result: Floats = np.where(size[0] == 0, 1.0, p)
    return np.where(np.isnan(size[0]), np.nan, result)


def sign_flip_p(contributions: Floats, groups: Groups, seed: int = 0) -> Floats:
    """p-value that the sum of (questions, ...) contributions is zero, whole groups changing sign together."""
    sums = battery_sums(contributions, groups)
    flips = signs(len(sums), seed=seed)
    flat, at_once = sums.reshape(len(sums), -1), max(1, _ROOM // len(flips))
    parts = [randomised_p(flips @ flat[:, start : start + at_once]) for start in range(0, flat.shape[1], at_once)]
    return np.concatenate(parts).reshape(sums.shape[1:])


def adjusted(p: "pd.Series[float] | NDArray[Any]") -> Floats:
    """Benjamini-Hochberg adjusted p-values of one table (1995); missing ones stay missing and do not count."""
    values = np.asarray(p, dtype=np.float64)
    result = np.full_like(values, np.nan)
    present = ~np.isnan(values)
    if present.any():
        result[present] = stats.false_discovery_control(values[present], method="bh")
    return result
