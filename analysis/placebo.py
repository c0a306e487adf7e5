"""Shifts against placebo fine-tuning: the same training on text whose tokens are permuted across the corpus.

Under no effect a real run is one more placebo run. So its place among m + 1 runs is exact whatever the distribution,
but cannot be smaller than 1 / (m + 1); from five placebo runs on, a z-score says how far outside them it lies.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ..core.errors import ValueshiftError
from ..core.probes import Item
from .answers import Scores, answers_of
from .bootstrap import Floats
from .profiles import Selection
from .shifts import compared
from .significance import adjusted

ENOUGH = 5
"""From this many placebo runs on, their standard deviation is worth dividing by."""


def among_placebos(values: Floats, placebos: Floats) -> pd.DataFrame:
    """The place of real values among placebo values.

    Args:
        values: of the real run, (k,).
        placebos: of the placebo runs, (m, k).

    Returns:
        One row a value: placebo_mean, placebo_deviation; rank (1 = farther from the mean of all m + 1 runs than any
        placebo), rank_p = rank / (m + 1); z = (value - mean) / (deviation * sqrt(1 + 1/m)) and its p from Student's t
        with m - 1 degrees of freedom, both missing below five placebo runs.

    Raises:
        ValueshiftError: there is no placebo run.
    """
    runs = len(placebos)
    if not runs:
        raise ValueshiftError("a comparison with placebo runs needs at least one; fine-tune on permuted text first")
    together = np.concatenate([values[None], placebos])
    distance = np.abs(together - together.mean(axis=0))
    rank = (distance >= distance[0] * (1 - 1e-9)).sum(axis=0)
    mean = placebos.mean(axis=0)
    deviation = placebos.std(axis=0, ddof=1) if runs > 1 else np.full_like(mean, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (values - mean) / (deviation * np.sqrt(1 + 1 / runs)) if runs >= ENOUGH else np.full_like(mean, np.nan)
    return pd.DataFrame(
        {
            "placebo_mean": mean,
            "placebo_deviation": deviation,
            "rank": rank,
            "rank_p": rank / (runs + 1),
            "z": np.where(np.isfinite(z), z, np.nan),
            "p": 2 * stats.t.sf(np.abs(z), runs - 1) if runs >= ENOUGH else np.nan,
        }
    )


def changes_among_placebos(
    base_scores: Scores,
    tuned_scores: Scores,
    placebo_scores: Sequence[Scores],
    items: Mapping[str, Item],
    selection: Selection = "paper",
) -> pd.DataFrame:
    """Every question's change among its changes under placebo fine-tuning.

    The change is tuned minus base in log-odds of the first option: p_first would hide changes near 0 and 1.

    Returns:
        One row per language and question that all runs answered: language, question, category, shifted (the answer
        changed), change, the columns of `among_placebos`, adjusted (Benjamini-Hochberg over the table), placebos.

    Raises:
        ValueshiftError: no placebo run, or runs that cannot be compared.
    """
    models = [answers_of(scores) for scores in (base_scores, tuned_scores, *placebo_scores)]
    (base, tuned, *_), questions, languages = compared(models, items, selection)
    odds = np.stack([one.on(one.log_odds, questions, languages) for one in models])
    column, row = np.nonzero(~(np.isnan(base) | np.isnan(tuned) | np.isnan(odds).any(axis=0)).T)  # language by language
    change = (odds[1:] - odds[0])[:, row, column]
    result = pd.DataFrame(
        {
            "language": [languages[place] for place in column],
            "question": [questions[place] for place in row],
            "category": [items[questions[place]].category for place in row],
            "shifted": (base * tuned)[row, column] == -1,
            "change": change[0],
        }
    )
    result = pd.concat([result, among_placebos(change[0], change[1:])], axis=1)
    return result.assign(adjusted=adjusted(result["p"]), placebos=len(placebo_scores))


def unchanged_among_placebos(stayed: pd.DataFrame, placebos: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The share of unchanged answers per language among those of placebo fine-tuning.

    Args:
        stayed: of the real run, as `shifts.unchanged` gives it by language.
        placebos: of the placebo runs.

    Returns:
        One row a language that all runs were asked in: the columns of `stayed` and of `among_placebos`, adjusted, placebos.

    Raises:
        ValueshiftError: there is no placebo run.
    """
    shares = pd.concat([table.set_index("language")["unchanged"] for table in (stayed, *placebos)], axis=1).dropna()
    values = shares.to_numpy(dtype=np.float64)
    place = among_placebos(values[:, 0], values[:, 1:].T).assign(language=shares.index, placebos=len(placebos))
    return stayed.merge(place.assign(adjusted=adjusted(place["p"])), on="language")
