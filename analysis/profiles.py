"""Profiles: what one model, or one country, answers [paper 3.5]."""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import pandas as pd

from ..core.errors import ValueshiftError
from ..core.languages import LANGUAGES
from ..core.probes import Item
from .answers import Scores, answers_of, checked

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


def profile(scores: Scores, selection: Collection[str] | None = None) -> pd.DataFrame:
    """Profile of a model [paper 3.5]: index question, columns language, values `p_first` (0 to 1).

    Args:
        scores: of one model and one probe set.
        selection: the questions to keep, None for all that were asked.

    Raises:
        ValueshiftError: the table is no table of scores of one model and one probe set.
    """
    answers = answers_of(scores)
    index, columns = pd.Index(answers.questions, name="question"), pd.Index(answers.languages, name="language")
    table = pd.DataFrame(answers.p_first, index, columns)
    return table if selection is None else table[table.index.isin(list(selection))]


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
