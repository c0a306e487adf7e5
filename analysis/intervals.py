"""Intervals over batteries that reach their stated coverage (docs/statistics.md has the simulation).

The percentile bootstrap over batteries is too short: of 238 questions, four batteries hold a hundred. So the standard
error is the infinitesimal jackknife over batteries (Jaeckel 1972; Efron 1982): the derivative of the statistic by the
weight of each battery, corrected for the battery's share of the questions as in CV3 (MacKinnon, Nielsen and Webb 2023).
Its quantile is that of a t distribution whose degrees of freedom are the effective number of batteries, n^2 over the
sum of squared sizes (Carter, Schnepel and Steigerwald 2017), at most the number of batteries less one.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .bootstrap import Estimate, Floats, Groups, Statistic, left_out

LEVEL = 0.95
FEWEST = 3
"""Fewer batteries than this carry no interval."""

_STEP = 1e-3
_ROUNDING = 1e-9


def standard_error(statistic: Statistic, groups: Groups, *, smooth: bool = True) -> tuple[Floats, Floats, float]:
    """Value and standard error of a statistic, and the degrees of freedom, when whole groups vary.

    Args:
        statistic: of weighted questions.
        groups: group of each question, ids from 0.
        smooth: whether the statistic has a derivative by the weights (a mean, a correlation of values or ranks over
            questions). Where it has none (ranks of what is itself a mean), each group is left out wholly instead.

    Returns:
        The value at equal weights (...), its standard error (...), NaN where there are fewer than three groups, and
        the degrees of freedom.
    """
    n, sizes = len(groups), np.bincount(groups)
    value = statistic(np.ones((1, n)))[0]
    if len(sizes) < FEWEST:
        return value, np.full_like(value, np.nan), float("nan")
    if smooth:
        slopes = (statistic(left_out(groups, -_STEP)) - statistic(left_out(groups, _STEP))) / (2 * _STEP)
        changes = slopes / (1 - sizes / n).reshape(-1, *[1] * value.ndim)
    else:
        changes = statistic(left_out(groups)) - value
    error: Floats = np.sqrt((changes**2).sum(axis=0))
    return value, error, float(min(len(sizes) - 1, n**2 / (sizes**2).sum()))


def quantile(freedom: float | Floats, level: float = LEVEL) -> Floats:
    """Half the width of a two-sided interval in standard errors; NaN where there are no degrees of freedom."""
    width: Floats = stats.t.ppf((1 + level) / 2, freedom)
    return width


def symmetric(statistic: Statistic, groups: Groups, level: float = LEVEL) -> tuple[Floats, Floats, Floats]:
    """Value, low and high of a mean or a difference: plus and minus t standard errors."""
    value, error, freedom = standard_error(statistic, groups)
    half = quantile(freedom, level) * error
    return value, value - half, value + half


def correlation(
    statistic: Statistic, groups: Groups, level: float = LEVEL, *, smooth: bool = True
) -> tuple[Floats, Floats, Floats]:
    """Value, low and high of a correlation, symmetric on Fisher's z scale; a perfect one has no width."""
    value, error, freedom = standard_error(statistic, groups, smooth=smooth)
    with np.errstate(divide="ignore", invalid="ignore"):
        half = quantile(freedom, level) * error / (1 - value**2)
        low, high = (np.tanh(np.arctanh(value) + side * half) for side in (-1, 1))
    perfect = 1 - np.abs(value) < _ROUNDING
    return value, np.where(perfect, value, low), np.where(perfect, value, high)


def share(hits: NDArray[np.bool_], groups: Groups, level: float = LEVEL) -> Estimate:
    """The share of hits (questions,), as `shares`."""
    sizes, counts = np.bincount(groups), np.bincount(groups, weights=hits)
    value, low, high = (float(part[0]) for part in shares(counts[None], sizes[None], level))
    return Estimate(value, low, high, len(hits), "Wilson over batteries")


def shares(hits: NDArray[Any], sizes: NDArray[Any], level: float = LEVEL) -> tuple[Floats, Floats, Floats]:
    """Value, low and high of the shares of hits in many cells, with Wilson's interval at the effective number of questions.

    The effective number is the one whose binomial variance equals the variance over groups (Korn and Graubard 1998;
    Dean and Pagano 2015). Where all groups have the same share, as at 0 and 1, they say
    nothing about how alike their questions are, and every question counts in full.

    Args:
        hits: how many there are in each group of questions, (cells, groups).
        sizes: how many questions of the group the cell has, 0 where it has none.
        level: of the intervals.
    """
    n, present = sizes.sum(axis=1), (sizes > 0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = hits.sum(axis=1) / n
        changes = (hits - sizes * value[:, None]) / (n[:, None] - sizes)  # the limit of those of `standard_error`
        error = np.where(present < FEWEST, np.nan, np.sqrt((changes**2).sum(axis=1)))
        freedom = np.minimum(present - 1, n**2 / (sizes**2).sum(axis=1))
        effective = np.where(error < _ROUNDING, n, value * (1 - value) / error**2)
        spread = quantile(freedom, level) ** 2 / effective
        centre = (value + spread / 2) / (1 + spread)
        half = np.sqrt(spread * (value * (1 - value) + spread / 4)) / (1 + spread)
    return value, centre - half, centre + half
