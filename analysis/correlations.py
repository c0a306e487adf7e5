"""Correlations of weighted questions, many resamples and many pairs of profiles at once."""

import numpy as np
from numpy.typing import NDArray

from .bootstrap import Floats, Groups, Statistic


def weighted_ranks(values: Floats) -> Statistic:
    """Mid-ranks of (questions, k) values: weights (resamples, questions) to ranks (resamples, k, questions).

    A question of weight w counts w times and ties share their rank; up to a constant these are the ranks of the
    resample written out.
    """
    columns, places = values.T, np.arange(len(values))
    order = np.argsort(columns, axis=1, kind="stable")
    ascending = np.take_along_axis(columns, order, axis=1)
    differ = ascending[:, 1:] != ascending[:, :-1]
    first = np.maximum.accumulate(places * np.pad(differ, ((0, 0), (1, 0))), axis=1)
    last = np.where(np.pad(differ, ((0, 0), (0, 1)), constant_values=True), places + 1, len(places))
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    back = np.argsort(order, axis=1)
    first, last = (np.take_along_axis(end, back, axis=1)[None] for end in (first, last))

    def statistic(weights: Floats) -> Floats:
        below = np.zeros((len(weights), len(columns), len(places) + 1))
        np.cumsum(weights[:, order], axis=2, out=below[:, :, 1:])
        ranks: Floats = np.take_along_axis(below, first, axis=2) + np.take_along_axis(below, last, axis=2)
        return ranks / 2

    return statistic


class Ranked:
    """The mid-ranks of (questions, k) values in many resamples of whole groups of questions.

    The rank of a question is the number of questions below it and half of those equal to it, itself included. In a resample
    each group counts as often as it is drawn, so that all ranks are one product of the draws with the counts by group. They are
    multiples of one half below 2^23, and so exact in single precision.
    """

    def __init__(self, values: Floats, groups: Groups) -> None:
        """Takes values of shape (questions, k), and the group of each question, ids from 0."""
        self.shape = values.shape[1], len(values)
        self.groups = groups
        member = (groups == np.arange(int(groups.max()) + 1)[:, None]).astype(np.float32)
        below = [(column[:, None] < column) + (column[:, None] == column) / np.float32(2) for column in values.T]
        self.counts = np.concatenate([member @ one.astype(np.float32) for one in below], axis=1)

    def drawn(self, draws: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Centred ranks times the root of the weights, (resamples, k, questions), and their length (resamples, k).

        The product of two of them over the questions, divided by both lengths, is Spearman's correlation. The length is NaN where
        all values of a column are the same.

        Args:
            draws: how often each group is drawn, (resamples, groups).
        """
        often = draws[:, : len(self.counts)].astype(np.float32)
        weights = draws[:, self.groups].astype(np.float64)
        ranks = (often @ self.counts).reshape(len(draws), *self.shape).astype(np.float64)
        ranks -= weights.sum(axis=1)[:, None, None] / 2
        ranks *= np.sqrt(weights)[:, None, :]
        length = np.sqrt(np.einsum("bkq,bkq->bk", ranks, ranks))
        return ranks, np.where(length > 0, length, np.nan)


def weighted_pearson(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Pearson correlation of each of (resamples, k, questions) with each of (resamples, l, questions).

    Returns:
        (resamples, k, l); NaN where one side is constant: the correlation is undefined.
    """
    part = (weights / weights.sum(axis=1, keepdims=True))[:, None, :]
    x, deviation_x = _centred(x, part)
    y, deviation_y = _centred(y, part)
    with np.errstate(invalid="ignore"):
        result: Floats = np.matmul(x * part, y.transpose(0, 2, 1)) / (deviation_x[:, :, None] * deviation_y[:, None, :])
    return result.clip(-1.0, 1.0)


def _centred(values: Floats, part: Floats) -> tuple[Floats, Floats]:
    """Values minus their weighted mean, and their standard deviation: NaN where it is a rounding error of the mean."""
    middle = (values * part).sum(axis=2, keepdims=True)
    deviation = np.sqrt((((values - middle) ** 2) * part).sum(axis=2))
    return values - middle, np.where(deviation > 1e-9 * np.abs(middle[..., 0]), deviation, np.nan)


def spearman(x: Floats, y: Floats) -> Statistic:
    """Spearman correlation of every column of x (questions, k) with every column of y (questions, l)."""

    ranks = weighted_ranks(x), weighted_ranks(y)
    return lambda weights: weighted_pearson(ranks[0](weights), ranks[1](weights), weights)


def pearson(x: Floats, y: Floats) -> Statistic:
    """Pearson correlation of every column of x (questions, k) with every column of y (questions, l)."""

    def statistic(weights: Floats) -> Floats:
        return weighted_pearson(x.T[None], y.T[None], weights)

    return statistic


def constant(values: Floats) -> NDArray[np.bool_]:
    """Which columns of (questions, k) hold one value only, so that no correlation with them is defined."""
    same: NDArray[np.bool_] = (values == values[:1]).all(axis=0)
    return same


def cosine(x: Floats, y: Floats) -> Statistic:
    """Cosine of every column of x (questions, k) with every column of y (questions, l)."""

    def statistic(weights: Floats) -> Floats:
        products = np.matmul(weights[:, None, :] * x.T, y)
        squares_x, squares_y = weights @ x**2, weights @ y**2
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = products / np.sqrt(squares_x[:, :, None] * squares_y[:, None, :])
        return result

    return statistic
