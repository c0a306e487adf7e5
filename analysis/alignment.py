"""Alignment of model profiles with survey profiles, and how fine-tuning changes it [paper 3.5, Table 3]."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from ..core.probes import Item
from . import intervals
from .batches import each_case
from .bootstrap import Floats, Groups, batteries, battery_draws, left_out
from .correlations import Ranked, spearman
from .pairs import MINIMUM, Block, blocks, in_order
from .poles import distances, turned_range, within
from .profiles import Selection
from .significance import adjusted, battery_sums, randomised_p, sign_flip_p, signs

_CORRELATIONS = (
    *("spearman", "low", "high", "plain_low", "plain_high", "p", "turned_low", "turned_high"),
    *("within", "within_low", "within_high"),
)
_DISTANCES = ("jensen_shannon", "wasserstein")
_CHANGE = ("base", "tuned", "change", "low", "high", "p")
_TIE = 12  # decimals: few questions make equal correlations, and rounding must not say which of them is the higher
BEST_RESAMPLES = 1_000
"""The error of a share of so many is at most .016."""
_DRAWS = 100  # resamples at once: as much as stays in a processor's cache


def alignment(
    profile: pd.DataFrame, truth: pd.DataFrame, items: Mapping[str, Item], selection: Selection = "paper", seed: int = 0
) -> pd.DataFrame:
    """Spearman correlation of every language's profile with every country's over their common questions [3.5].

    Args:
        profile: of a model; index question, columns language, values p_first.
        truth: of a survey; index question, columns country, values share at the first pole.
        items: the registry of both.
        selection: the paper's questions or all.
        seed: of the randomisations.

    Returns:
        One row per language and country: language, country, spearman; low, high (over batteries); plain_low, plain_high
        (questions taken as independent); p (no alignment, batteries changing sign), adjusted (Benjamini-Hochberg over
        the table); turned_low, turned_high (range over random joint turns of poles); within, within_low, within_high
        (within option pairs); jensen_shannon, wasserstein (mean distance of the answers); n, dropped; reason (why
        correlations are missing, else "").

    Raises:
        ValueshiftError: no question in common, a question twice, or one that `items` lacks.
    """
    (table,) = each_alignment([profile], truth, items, selection, seed)
    return table


def each_alignment(
    profiles: Sequence[pd.DataFrame],
    truth: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    seed: int = 0,
) -> list[pd.DataFrame]:
    """The same for each of many profiles, many at once."""

    def made(models: Sequence[pd.DataFrame]) -> pd.DataFrame:
        found = blocks(models, truth, items, selection)
        return _table(found, partial(_alignment, seed=seed), models, truth, (*_CORRELATIONS, *_DISTANCES))

    return [_with_adjusted(table) for table in each_case(made, [[profile] for profile in profiles], truth, items)]


def _alignment(block: Block, seed: int) -> dict[str, Floats]:
    (x,), y, groups = block.models, block.truth, block.groups
    value, low, high = intervals.correlation(spearman(x, y), groups)
    _, plain_low, plain_high = intervals.correlation(spearman(x, y), np.arange(block.n))
    p = sign_flip_p(_centred_ranks(x)[:, :, None] * _centred_ranks(y)[:, None, :], groups, seed)
    turned = turned_range(x, y, groups, seed=seed)
    inside = intervals.correlation(within(x, y, groups), groups)
    cells = (value, low, high, plain_low, plain_high, p, *turned, *inside)
    return dict(zip(_CORRELATIONS, cells, strict=True)) | distances(x, y)


def alignment_change(
    base: pd.DataFrame,
    tuned: Sequence[pd.DataFrame],
    truth: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    seed: int = 0,
) -> pd.DataFrame:
    """Change in alignment [Table 3]: tuned minus base, averaged over the tuned models (one a fine-tuning language).

    All models and the survey are joined first, so that every correlation of a row is over the same questions.

    Args:
        base: profile before fine-tuning.
        tuned: profiles after it, one or more.
        truth: of a survey; index question, columns country, values share at the first pole.
        items: the registry of all.
        selection: the paper's questions or all.
        seed: of the randomisation.

    Returns:
        One row per language and country: language, country, base, tuned (mean), change; low, high (paired, over
        batteries); p (no change, base and tuned answers of whole batteries changing places), adjusted; n, dropped;
        reason.

    Raises:
        ValueshiftError: no question in common, a question twice, or one that `items` lacks.
    """
    (table,) = each_alignment_change([(base, tuned)], truth, items, selection, seed)
    return table


def each_alignment_change(
    pairs: Sequence[tuple[pd.DataFrame, Sequence[pd.DataFrame]]],
    truth: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    seed: int = 0,
) -> list[pd.DataFrame]:
    """The same for each of many bases with its tuned models, many at once."""

    def made(models: Sequence[pd.DataFrame]) -> pd.DataFrame:
        return _table(blocks(models, truth, items, selection), partial(_change, seed=seed), models, truth, _CHANGE)

    return [_with_adjusted(table) for table in each_case(made, [[base, *tuned] for base, tuned in pairs], truth, items)]


def _change(block: Block, seed: int) -> dict[str, Floats]:
    y, groups = block.truth, block.groups
    each = [spearman(model, y) for model in block.models]

    def statistic(weights: Floats) -> Floats:
        before, *after = (one(weights) for one in each)
        mean_after = np.mean(after, axis=0)
        return np.stack([before, mean_after, mean_after - before], axis=1)

    value, low, high = intervals.symmetric(statistic, groups)
    p = np.mean(swapped_changes(block.models, y, groups, seed), axis=0)
    return dict(zip(_CHANGE, (*value, low[2], high[2], randomised_p(p)), strict=True))


def swapped_changes(models: Sequence[Floats], truth: Floats, groups: Groups, seed: int = 0) -> list[Floats]:
    """Changes in alignment had random batteries exchanged the ranks of base and tuned model.

    Args:
        models: the base model first, then the tuned ones, each (questions, languages).
        truth: (questions, countries).
        groups: battery of each question.
        seed: of the exchanges.

    Returns:
        One array a tuned model, (randomisations, languages, countries), its first row the change as observed.
    """
    exchange = (1 - signs(int(groups.max()) + 1, seed=seed)) / 2
    base, *tuned = (_centred_ranks(model) for model in models)
    target = _centred_ranks(truth)

    def correlations(kept: Floats, other: Floats) -> Floats:
        """Pearson correlations of ranks (up to the survey's scale), batteries of `kept` taken from `other`."""

        def total(one: Floats, two: Floats) -> Floats:
            totals: Floats = one.sum(axis=0) + np.tensordot(exchange, battery_sums(two - one, groups), axes=1)
            return totals

        products = total(kept[:, :, None] * target[:, None, :], other[:, :, None] * target[:, None, :])
        variance = total(kept**2, other**2) - total(kept, other) ** 2 / len(kept)
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Floats = products / np.sqrt(variance[:, :, None] * (target**2).sum(axis=0))
        return result

    return [correlations(model, base) - correlations(base, model) for model in tuned]


def best_aligned(
    profiles: Sequence[pd.DataFrame],
    truth: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    resamples: int = BEST_RESAMPLES,
    seed: int = 0,
) -> list[pd.DataFrame]:
    """How certain it is which country a language is aligned with best, for each of many profiles: language, country, best.

    `best` is the share of bootstrap resamples over batteries, the same for all tables, in which this country's
    correlation is the highest of the row, NaN where the language has none. A table of best cells alone is no evidence:
    something is always the best.

    Raises:
        ValueshiftError: as `alignment`.
    """
    cases = [[profile] for profile in profiles]
    return each_case(lambda wide: _best(wide[0], truth, items, selection, resamples, seed), cases, truth, items)


def _best(
    profile: pd.DataFrame,
    truth: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection,
    resamples: int,
    seed: int,
) -> pd.DataFrame:
    found = [block for block in blocks([profile], truth, items, selection) if block.n >= MINIMUM]
    asked = list(dict.fromkeys(question for block in found for question in block.questions))
    groups = dict(zip(asked, batteries(asked, items), strict=True))
    ranked = []
    for block in found:
        of_block = np.array([groups[question] for question in block.questions])
        ranked.append((Ranked(block.models[0], of_block), Ranked(block.truth, of_block), np.ix_(*block.places)))
    count = np.zeros((len(profile.columns), len(truth.columns)))
    defined = np.zeros((len(profile.columns), 1), dtype=np.bool_)
    often = battery_draws(len(set(groups.values())), resamples, seed) if found else np.zeros((0, 0), dtype=np.int64)
    for start in range(0, len(often), _DRAWS):
        draws = often[start : start + _DRAWS]
        values = np.full((len(draws), *count.shape), -np.inf)
        for model, people, (own, theirs) in ranked:
            (x, spread), (y, deviation) = model.drawn(draws), people.drawn(draws)
            with np.errstate(divide="ignore", invalid="ignore"):
                cells = np.matmul(x, y.transpose(0, 2, 1)) / (spread[:, :, None] * deviation[:, None, :])
            values[:, own, theirs] = np.nan_to_num(cells.round(_TIE), nan=-np.inf)
        count += (values.argmax(axis=2)[:, :, None] == np.arange(len(truth.columns))).sum(axis=0)
        defined |= np.isfinite(values).any(axis=2).any(axis=0)[:, None]
    best = np.where(defined, count / resamples, np.nan).ravel()
    pairs = pd.MultiIndex.from_product([profile.columns, truth.columns], names=["language", "country"])
    return pd.DataFrame({"best": best}, pairs).reset_index()


def influence(
    profiles: Sequence[pd.DataFrame],
    truth: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    top: int = 5,
) -> list[pd.DataFrame]:
    """The questions on which each correlation hangs most, for each of many profiles.

    Returns:
        One table a profile: language, country, question, without (the correlation when the question is left out), difference
        (the correlation of all questions minus it); of each pair the `top` questions of largest absolute difference, the
        largest first.

    Raises:
        ValueshiftError: as `alignment`.
    """
    cases = [[profile] for profile in profiles]
    return each_case(lambda wide: _influence(wide[0], truth, items, selection, top), cases, truth, items)


def _influence(
    profile: pd.DataFrame, truth: pd.DataFrame, items: Mapping[str, Item], selection: Selection, top: int
) -> pd.DataFrame:
    tables = []
    for block in blocks([profile], truth, items, selection):
        if block.n >= MINIMUM:
            statistic = spearman(block.models[0], block.truth)
            without = statistic(left_out(np.arange(block.n)))
            difference = statistic(np.ones((1, block.n))) - without
            largest = np.argsort(-np.abs(difference).round(_TIE), axis=0, kind="stable")[:top]  # missing ones last
            some, others = block.places
            _, language, country = np.indices(largest.shape)
            cells = {
                "language": profile.columns.take(some[language.ravel()]),
                "country": truth.columns.take(others[country.ravel()]),
                "question": np.array(block.questions, dtype=object)[largest.ravel()],
                "without": np.take_along_axis(without, largest, axis=0).ravel(),
                "difference": np.take_along_axis(difference, largest, axis=0).ravel(),
            }
            tables.append(pd.DataFrame(cells))
    if not tables:
        return pd.DataFrame(columns=["language", "country", "question", "without", "difference"])
    table = pd.concat(tables).dropna()
    return in_order(table, language=profile.columns, country=truth.columns)


def _centred_ranks(values: Floats) -> Floats:
    """Mid-ranks of the columns of (questions, k), centred at 0."""
    ranks: Floats = stats.rankdata(values, axis=0) - (len(values) + 1) / 2
    return ranks


def _table(
    found: Iterable[Block],
    cells_of: Callable[[Block], Mapping[str, Floats]],
    models: Sequence[pd.DataFrame],
    truth: pd.DataFrame,
    columns: Sequence[str],
) -> pd.DataFrame:
    """One row a pair of the blocks: cells (languages, countries); where there is a reason, distances alone."""
    shape = languages, countries = len(models[0].columns), len(truth.columns)
    values = {name: np.full(shape, np.nan) for name in columns}
    counts = {name: np.zeros(shape, dtype=np.int64) for name in ("n", "dropped")}
    reasons = np.full(shape, "", dtype=object)
    for block in found:
        at = np.ix_(*block.places)
        counts["n"][at], counts["dropped"][at], reasons[at] = block.n, block.dropped, block.reasons
        for name, cell in cells_of(block).items() if block.n >= MINIMUM else ():
            values[name][at] = cell if name in _DISTANCES else np.where(reasons[at] == "", cell, np.nan)
    pairs = {"language": models[0].columns.repeat(countries), "country": [*truth.columns] * languages}
    cells = {**values, **counts, "reason": reasons}
    return pd.DataFrame(pairs | {name: cell.ravel() for name, cell in cells.items()})


def _with_adjusted(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its adjusted p-values after the plain ones."""
    table.insert(list(table.columns).index("p") + 1, "adjusted", adjusted(table["p"]))
    return table
