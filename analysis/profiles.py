"""Profiles: what one model, or one country, answers [paper 3.5]."""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import pandas as pd

from ..core.errors import ValueshiftError
from ..core.languages import LANGUAGES
from ..core.probes import Item
from ..core.scores import KEYS

Selection = Literal["paper", "all"]


def selected(items: Mapping[str, Item], selection: Selection = "paper") -> list[str]:
    """The questions that a statistic is about: those of the paper, or all of the registry.

    Raises:
        ValueshiftError: no item is in the selection.
    """
    questions = [question for question, item in items.items() if item.paper or selection == "all"]
    if not questions:
        raise ValueshiftError("no item of this registry is marked as the paper's; choose the selection 'all'")
    return questions


def default_selection(items: Mapping[str, Item]) -> Selection:
    """The questions that statistics are about: the paper's where the registry marks any, else all."""
    return "paper" if any(item.paper for item in items.values()) else "all"


def checked(scores: pd.DataFrame, columns: Iterable[str] = ("p_first", "answer")) -> pd.DataFrame:
    """`scores` itself, once it is known to hold one row per language and question of one probe set.

    Raises:
        ValueshiftError: a column is missing, a row is doubled, or several probe sets are mixed.
    """
    if missing := [name for name in (*KEYS, *columns) if name not in scores.columns]:
        raise ValueshiftError(f"the table of scores has no column {missing[0]}; give the scores of a probe record")
    if len(names := scores["probe_set"].unique()) > 1:
        raise ValueshiftError(
            f"the scores mix the probe sets {' and '.join(sorted(names))}; analyse one probe set at a time"
        )
    if (doubled := scores.duplicated(["language", "question"])).any():
        row = scores[doubled].iloc[0]
        raise ValueshiftError(
            f"question {row['question']} in language {row['language']} is scored twice; give the scores of one model"
        )
    return scores


def _pivot(scores: pd.DataFrame, column: str) -> pd.DataFrame:
    """Questions by languages, both in the order in which they first appear."""
    wide = scores.pivot(index="question", columns="language", values=column)
    return wide.reindex(index=scores["question"].unique(), columns=scores["language"].unique())


def profile(scores: pd.DataFrame, selection: Collection[str] | None = None) -> pd.DataFrame:
    """Profile of a model [paper 3.5]: index question, columns language, values `p_first` (0 to 1).

    Args:
        scores: table with the columns of `core.scores.COLUMNS`, of one model and one probe set.
        selection: the questions to keep, None for all that were asked.

    Raises:
        ValueshiftError: the table is no table of scores of one model and one probe set.
    """
    kept = checked(scores)
    if selection is not None:
        kept = kept[kept["question"].isin(list(selection))]
    return _pivot(kept, "p_first").astype("float64")


def answers(scores: pd.DataFrame) -> pd.DataFrame:
    """Answers of a model [paper 3.4]: index question, columns language, values `first` or `second`.

    A value is null on an exact tie and where the question was not asked; the profile is null only for the latter.
    """
    return _pivot(checked(scores), "answer")


def summary_metrics(scores: pd.DataFrame) -> dict[str, float]:
    """A few figures per language, by their metric names.

    `p_first/<language>` is the mean, `first_share/<language>` the share of questions answered `first` (a tie counts
    one half), `questions/<language>` the number of questions.
    """
    metrics: dict[str, float] = {}
    for language, rows in checked(scores).groupby("language", sort=False):
        answer = rows["answer"]
        metrics[f"p_first/{language}"] = float(rows["p_first"].mean())
        metrics[f"first_share/{language}"] = float(answer.eq("first").fillna(False).mean() + answer.isna().mean() / 2)
        metrics[f"questions/{language}"] = float(len(rows))
    return metrics


def spoken(truth: pd.DataFrame, languages: Iterable[str]) -> pd.DataFrame:
    """Survey profiles by language: each language's column is that of its country (`core.languages`), where surveyed.

    Args:
        truth: index question, columns country, values share at the first pole.
        languages: the columns to make; a language whose country was not surveyed is left out.
    """
    countries = {code: LANGUAGES[code].country for code in languages if code in LANGUAGES}
    kept = {code: country for code, country in countries.items() if country in truth.columns}
    return pd.DataFrame({code: truth[country] for code, country in kept.items()}, index=truth.index)
