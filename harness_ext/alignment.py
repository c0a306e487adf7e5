"""Alignment of a model's answers with the people of a language's countries, as the harness and `valueshift probe` report it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..analysis.alignment import alignment
from ..analysis.profiles import default_selection, profile
from ..analysis.significance import adjusted
from ..core.digests import text_digest
from ..core.errors import ValueshiftError
from ..core.languages import LANGUAGES
from ..core.names import COUNTRY
from ..core.probes import Item
from ..core.surveys import SurveyTruth, has_survey_truth, survey_truth

Countries = Mapping[str, Sequence[str]]
"""Language -> countries whose people it is compared with, where they are not the default one."""


def parse_countries(texts: Sequence[str]) -> dict[str, list[str]]:
    """Countries from texts such as `de=AUT` or `de=DEU+AUT`.

    Raises:
        ValueshiftError: a text has another form.
    """
    chosen: dict[str, list[str]] = {}
    for text in texts:
        code, _, countries = text.partition("=")
        if not all(COUNTRY.pattern.fullmatch(country) for country in countries.split("+")):
            raise ValueshiftError(f"'{text}' names no country; write LANGUAGE=ISO3, such as de=AUT or de=DEU+AUT")
        chosen[code] = countries.split("+")
    return chosen


def countries_of(code: str, chosen: Countries, truth: SurveyTruth) -> list[str]:
    """The surveyed countries of a language: those chosen, else its default one; empty where that was not surveyed.

    A survey of the user's own may be in languages without a default country (`core.languages`). These have the countries of
    its shares that are no other language's.

    Raises:
        ValueshiftError: a chosen country was not surveyed.
    """
    surveyed = set(truth.profile.columns)
    if missing := [country for country in chosen.get(code, ()) if country not in surveyed]:
        raise ValueshiftError(
            f"{missing[0]} is not in the survey ({truth.provenance}); it has {', '.join(sorted(surveyed))}"
        )
    if code in chosen:
        return list(chosen[code])
    if code in LANGUAGES:
        return [country for country in (LANGUAGES[code].country,) if country in surveyed]
    others = {language.country for language in LANGUAGES.values()}
    return [country for country in truth.profile.columns if truth.source == "own" and country not in others]


def stated_countries(settings: Mapping[str, Any]) -> dict[str, list[str]]:
    """The countries that a probe record was asked to be compared with, by language (see `parse_countries`).

    Raises:
        ValueshiftError: the record states something else.
    """
    stated = settings.get("countries", [])
    return parse_countries([str(text) for text in stated] if isinstance(stated, list) else [str(stated)])


def refuse_unsurveyed(probe_set_name: str, chosen: Countries) -> None:
    """Refuse countries that were not surveyed, before a model is asked.

    Raises:
        ValueshiftError: as `countries_of`.
    """
    if chosen and has_survey_truth(probe_set_name):
        truth = survey_truth(probe_set_name)
        for code in chosen:
            countries_of(code, chosen, truth)


def chosen_countries(code: str, stated: object) -> dict[str, list[str]]:
    """Countries from the harness's metadata: `country=AUT` for every language, or `country={"de": "AUT"}`.

    Raises:
        ValueshiftError: it is neither.
    """
    if isinstance(stated, Mapping):
        stated = stated.get(code)
    if stated is None:
        return {}
    if not isinstance(stated, str):
        raise ValueshiftError(f"country in the metadata is {stated!r}; write AUT, DEU+AUT or " + '{"de": "AUT"}')
    return parse_countries([f"{code}={stated}"])


def pair_alignment(
    answers: pd.DataFrame, truth: SurveyTruth, items: Mapping[str, Item], country: str
) -> "pd.Series[float]":
    """The row of `analysis.alignment.alignment` for one language's answers and one country."""
    if answers.index.intersection(truth.profile.index).empty:
        nothing = {"spearman": np.nan, "low": np.nan, "high": np.nan, "n": 0, "reason": "no common question"}
        return pd.Series(nothing)
    return alignment(answers, truth.profile[[country]], items, default_selection(items)).iloc[0]


def survey_alignment(
    scores: pd.DataFrame, truth: SurveyTruth, items: Mapping[str, Item], chosen: Countries | None = None
) -> pd.DataFrame:
    """Spearman correlation of each language's answers with those of its countries, with intervals [paper 3.5].

    Returns:
        The rows of `analysis.alignment.alignment` for the pairs of language and country; `adjusted` over these pairs.
        Without a surveyed country: an empty table.
    """
    answers = profile(scores)
    rows = []
    for code in answers.columns:
        countries = countries_of(code, chosen or {}, truth)
        common = truth.profile.index.intersection(answers.index)
        if countries and len(common):
            rows.append(alignment(answers[[code]], truth.profile[countries], items, default_selection(items)))
    if not rows:
        return pd.DataFrame({"language": [], "country": [], "spearman": []})
    table = pd.concat(rows, ignore_index=True)
    table["adjusted"] = adjusted(table["p"])
    return table


def alignment_metrics(table: pd.DataFrame, name: str = "rho", column: str = "spearman") -> dict[str, float]:
    """Every defined correlation, or change of one, with its interval and its number of questions.

    `<name>/<language>.<ISO3>`, and likewise `<name>_low`, `<name>_high` and `<name>_n`.
    """
    known = table[table[column].notna()]
    parts = ((column, ""), ("low", "_low"), ("high", "_high"), ("n", "_n"))
    return {
        f"{name}{ending}/{row['language']}.{row['country']}": float(row[part])
        for part, ending in parts
        for row in known.to_dict("records")
        if pd.notna(row[part])
    }


def survey_identity(truth: SurveyTruth) -> dict[str, str]:
    """By what a record says which survey it was compared with: source, provenance, and digest of the profile."""
    return {
        "source": truth.source,
        "provenance": truth.provenance,
        "digest": text_digest(truth.profile.to_csv(float_format="%.9g").splitlines()),
    }


def alignment_note(table: pd.DataFrame, truth: SurveyTruth) -> str:
    """What a reader of the correlations must know: the survey behind them and for how many questions it holds."""
    packaged = (
        " Alignment over the packaged questions is not comparable with the paper's Table 3."
        if (truth.source == "packaged")
        else ""
    )
    questions = sorted({int(n) for n in table.get("n", ()) if n})
    held = f"{questions[0]}" if len(questions) == 1 else f"{questions[0]} to {questions[-1]}" if questions else "no"
    return f"Alignment holds for {held} questions: {truth.provenance}.{packaged}"
