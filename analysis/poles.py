"""What in an alignment depends on which pole of a question is called the first, and what does not.

The convention is one per option pair: all questions of a battery list their poles in the same order. Turning the poles
of a battery on both sides says the same thing in other words, and yet changes a Spearman correlation over all questions.
It changes neither a correlation within option pairs nor a distance between the two distributions of a question.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from .bootstrap import Floats, Groups, Statistic
from .correlations import cosine
from .significance import signs

TURNS = 400
_TIE = 12  # decimals


def turned_range(x: Floats, y: Floats, groups: Groups, turns: int = TURNS, seed: int = 0) -> tuple[Floats, Floats]:
    """2.5th and 97.5th percentile of the Spearman correlation when random batteries have their poles turned jointly.

    Args:
        x: profiles (questions, k).
        y: profiles (questions, l).
        groups: battery of each question.
        turns: how many random choices of batteries; all choices where those are fewer.
        seed: of the choices.

    Returns:
        Low and high, each (k, l).
    """
    others = signs(int(groups.max()), turns - 1, seed) < 0  # to turn all batteries is to turn none: the first stays
    turn = np.pad(others, ((0, 0), (1, 0)))
    people = _people_ranks(y.tobytes(), y.shape, turn.tobytes(), turn.shape, tuple(groups))
    products = np.matmul(_turned_ranks(x, turn, groups), people.transpose(0, 2, 1))
    low, high = np.quantile(products, [0.025, 0.975], axis=0)
    return low, high


def _turned_ranks(values: Floats, turn: NDArray[np.bool_], groups: Groups) -> Floats:
    """Centred ranks of (questions, k) values, batteries turned where `turn` (turns, batteries) is: (turns, k, questions).

    A rank is how many values are below, counted by battery: what a battery counts for changes when it is turned, and what a
    question counts when it is. So no turn needs to be sorted. Ranks are of length one.
    """
    n = len(values)
    member = (groups == np.arange(turn.shape[1])[:, None]).astype(np.float64)

    def below(others: Floats, own: Floats) -> Floats:
        """How many values of each battery are below, (batteries, k, questions); of equal ones half."""
        pairs = zip(others.T, own.T, strict=True)
        return np.stack([member @ ((left[:, None] < right) + (left[:, None] == right) / 2) for left, right in pairs], 1)

    as_is = below(values, values)
    turned = below(
        (1 - values).round(_TIE), values.round(_TIE)
    )  # shares that add up to 1 are equal, whatever their rounding
    start = np.where(turn[:, None, groups], n - turned.sum(axis=0), as_is.sum(axis=0)) - n / 2
    ranks = start + np.tensordot(turn.astype(np.float64), turned - as_is, axes=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit: Floats = ranks / np.sqrt((ranks**2).sum(axis=2, keepdims=True))
    return unit


@lru_cache(maxsize=4)
def _people_ranks(
    values: bytes, shape: tuple[int, int], turn: bytes, turns: tuple[int, int], groups: tuple[int, ...]
) -> Floats:
    """`_turned_ranks` of a survey, which is the same for every model."""
    chosen = np.frombuffer(turn, dtype=np.bool_).reshape(turns)
    return _turned_ranks(np.frombuffer(values).reshape(shape), chosen, np.array(groups))


def within(x: Floats, y: Floats, groups: Groups) -> Statistic:
    """Correlation of ranks within option pairs, pooled over batteries.

    The rank of a question in its battery of m, divided by m + 1 and centred, is compared on both sides; a battery of
    one question says nothing. The statistic is (resamples, k, l) for x (questions, k) and y (questions, l).
    """

    def centred(values: Floats) -> Floats:
        size = np.bincount(groups)
        places = stats.rankdata(values, method="dense", axis=0) + len(values) * groups[:, None]  # battery by battery
        ranks = stats.rankdata(places, axis=0) - (np.cumsum(size) - size)[groups, None]
        result: Floats = ranks / (size[groups, None] + 1) - 0.5
        return result

    return cosine(centred(x), centred(y))


def distances(x: Floats, y: Floats) -> dict[str, Floats]:
    """Mean distance between the two-option distributions of x (questions, k) and y (questions, l), each (k, l).

    `jensen_shannon` is the square root of the divergence in bits, from 0 to 1 (Endres and Schindelin 2003);
    `wasserstein` is the earth mover's distance with the poles one apart, for two options |p - q|.
    """
    left, right = x[:, :, None], y[:, None, :]
    both = [np.stack(np.broadcast_arrays(p, 1 - p)) for p in (left, right)]
    shape = np.broadcast_shapes(left.shape, right.shape)
    jensen = jensenshannon(np.broadcast_to(both[0], (2, *shape)), np.broadcast_to(both[1], (2, *shape)), base=2)
    return {"jensen_shannon": np.nan_to_num(jensen).mean(axis=0), "wasserstein": np.abs(left - right).mean(axis=0)}
