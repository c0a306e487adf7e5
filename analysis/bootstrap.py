"""Resampling of questions: batteries, weights, and statistics of weighted questions.

A resample is a row of weights, one a question: how often the question was drawn. A statistic takes many rows at once
and returns one value a row, so that the bootstrap, the jackknife and leave-one-out are one operation with different
weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from ..core.probes import Item

Floats = NDArray[np.float64]
Groups = NDArray[np.intp]
Statistic = Callable[[Floats], Floats]
"""Weights of shape (resamples, questions) to values of shape (resamples, ...)."""

_ROWS = 250  # weights handed to a statistic at once: bounds memory, not results


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, the number of questions (or languages) behind it, and how the interval was made."""

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
    weights: Floats = battery_draws(int(groups.max()) + 1, resamples, seed)[:, groups].astype(np.float64)
    return weights


def battery_draws(count: int, resamples: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each of `count` groups is drawn in each resample: (resamples, groups)."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=resamples)


def left_out(groups: Groups, part: float = 1.0) -> Floats:
    """Each group left out once, wholly or in `part`: weights of shape (groups, questions), 1 elsewhere."""
    ids = np.arange(int(groups.max()) + 1)
    weights: Floats = np.where(groups[None, :] == ids[:, None], 1.0 - part, 1.0)
    return weights


def resampled(statistic: Statistic, weights: Floats) -> Floats:
    """The statistic of every row of weights, (resamples, ...), a few hundred rows at a time."""
    return np.concatenate([statistic(weights[start : start + _ROWS]) for start in range(0, len(weights), _ROWS)])


def mean(values: NDArray[Any]) -> Statistic:
    """The weighted mean of `values` (questions,) or (questions, k)."""
    data = np.asarray(values, dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1).reshape(-1, *[1] * (data.ndim - 1))
        result: Floats = (weights @ data) / total
        return result

    return statistic
