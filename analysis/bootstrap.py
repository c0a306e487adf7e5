"""Uncertainty over questions: batteries, resampling weights, and intervals.

A resample is a row of weights, one a question: how often the question was drawn. A statistic takes many rows at once
and returns one value a row, so that bootstrap, jackknife and leave-one-out are one operation with other weights.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from ..core.errors import ValueshiftError
from ..core.probes import Item

Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
Statistic = Callable[[Floats], Floats]
"""Weights of shape (resamples, questions) to values of shape (resamples, ...)."""


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, the number of questions behind it, and how the interval was made."""

    value: float
    low: float
    high: float
    n: int
    method: str


def batteries(questions: Sequence[str], items: Mapping[str, Item]) -> Groups:
    """Battery of each question, as ids from 0: questions of one category whose options have the same two poles.

    Poles come from the item registry, so a battery is the same in every language.

    Raises:
        ValueshiftError: a question is not in the registry.
    """
    if unknown := [question for question in questions if question not in items]:
        raise ValueshiftError(f"question {unknown[0]} is not in the item registry; give the items of its probe set")
    keys = [(items[q].category, items[q].first_pole, items[q].second_pole) for q in questions]
    ids = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([ids[key] for key in keys], dtype=np.intp)


def bootstrap_weights(groups: Groups, resamples: int, seed: int = 0) -> Floats:
    """Bootstrap over whole groups: weights of shape (resamples, questions), equal inside a group.

    With `groups = np.arange(n)` this is the plain bootstrap over questions.
    """
    count = int(groups.max()) + 1
    draws = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)
    weights: Floats = draws[:, groups].astype(np.float64)
    return weights


def jackknife_weights(groups: Groups) -> Floats:
    """Each group left out once: weights of shape (groups, questions), 0 for what is left out and 1 elsewhere."""
    ids = np.arange(int(groups.max()) + 1)
    weights: Floats = (groups[None, :] != ids[:, None]).astype(np.float64)
    return weights


def mean(values: NDArray[Any]) -> Statistic:
    """The weighted mean of `values` (questions,) or (questions, k) as a statistic."""
    data = np.asarray(values, dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1).reshape(-1, *[1] * (data.ndim - 1))
        result: Floats = (weights @ data) / total
        return result

    return statistic


def jackknife(statistic: Statistic, groups: Groups) -> tuple[Floats, Floats, float]:
    """Value, standard error and degrees of freedom of a statistic when whole groups vary.

    The standard error is the delete-a-group jackknife, centred at the value (CV3 of MacKinnon, Nielsen and Webb 2023).
    Unequal groups leave fewer degrees of freedom than their number: the effective number of groups, n^2 over the sum
    of squared group sizes (Carter, Schnepel and Steigerwald 2017), at most groups - 1.
    """
    sizes = np.bincount(groups)
    value = statistic(np.ones((1, len(groups))))[0]
    left_out = statistic(jackknife_weights(groups))
    error = np.sqrt((len(sizes) - 1) / len(sizes) * ((left_out - value) ** 2).sum(axis=0))
    return value, error, float(min(len(sizes) - 1, len(groups) ** 2 / (sizes**2).sum()))


def share(hits: NDArray[Any], groups: Groups, level: float = 0.95) -> Estimate:
    """The share of hits (questions,) of 0 and 1, with Wilson's interval at the effective number of questions.

    The effective number is the one whose binomial variance equals the jackknife variance over groups, with a t
    quantile in place of the normal one (Korn and Graubard 1998; Dean and Pagano 2015). Where the share is 0 or 1, the
    groups say nothing about their own likeness, and every question counts in full.
    """
    n = len(hits)
    value, error, freedom = (float(part) for part in jackknife(mean(hits), groups))
    effective = value * (1 - value) / error**2 if error > 0 else float(n)
    t = float(stats.t.ppf((1 + level) / 2, freedom))
    centre = (value + t**2 / (2 * effective)) / (1 + t**2 / effective)
    half = t * math.sqrt(value * (1 - value) / effective + t**2 / (4 * effective**2)) / (1 + t**2 / effective)
    return Estimate(value, max(0.0, centre - half), min(1.0, centre + half), n, "wilson")
