"""How the profiles of two models differ: alignment, similarity structure and direction, as tables of a comparison record."""

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from ..analysis.alignment import alignment_change
from ..analysis.direction import parallelism, plane
from ..analysis.profiles import Selection, profile, selected
from ..analysis.similarity import dissimilarity, mean_dissimilarity, structure
from ..core.errors import ValueshiftError
from ..core.probes import Item
from ..core.surveys import SurveyTruth
from .alignment import Countries, alignment_metrics, countries_of


def movement(
    before: pd.DataFrame,
    after: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection,
    truth: SurveyTruth | None = None,
    countries: Countries | None = None,
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Tables of what moved between two sets of scores, and sentences on what could not be made of them.

    Args:
        before: scores of the base model.
        after: scores of the tuned model, of the same items.
        items: their registry.
        selection: the paper's questions or all.
        truth: the survey, where there is one.
        countries: of a language, where they are not its default one.

    Returns:
        `alignment_change` [Table 3], every language with the countries of all (of a survey of the user's own: with all of
        its countries), `own` where one is the language's own; `similarity` [Fig. 5, 12], one row on how alike the two
        similarity structures are; `structure`, the dissimilarities themselves: model, first, second,
        dissimilarity; `mean_dissimilarity` [6] of base and tuned; `direction` [Fig. 4, 11]: model, language, x, y, and
        of the whole plane the shares of variance explained_x and explained_y, n, dropped; `parallelism`, one row. A
        table that cannot be made is left out and its reason among the sentences.
    """
    tables: dict[str, pd.DataFrame] = {}
    notes: list[str] = []

    def add(name: str, make: Callable[[], pd.DataFrame]) -> None:
        try:
            tables[name] = make()
        except ValueshiftError as error:
            notes.append(f"No table {name}: {error}.")

    wanted = selected(items, selection)
    both = {"base": profile(before, wanted), "tuned": profile(after, wanted)}
    shared = [language for language in both["base"].columns if language in both["tuned"].columns]
    joined = {model: table[shared] for model, table in both.items()}
    if truth is not None:
        add(
            "alignment_change",
            lambda: _alignment_change(both["base"], both["tuned"], truth, items, selection, countries or {}),
        )
    add("similarity", lambda: pd.DataFrame([structure(joined["base"], joined["tuned"], items, selection)]))
    add("structure", lambda: _structures(joined))
    add(
        "mean_dissimilarity",
        lambda: mean_dissimilarity({model: [table] for model, table in joined.items()}, items, selection),
    )
    add("direction", lambda: _direction(joined, items, selection))
    add("parallelism", lambda: pd.DataFrame([parallelism(joined["base"], joined["tuned"], items, selection)]))
    return tables, notes


def movement_metrics(tables: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """The figures of these tables that summarise a comparison, by their metric names.

    `rho_change/<language>.<ISO3>` is for each language the change with the people of its own countries.
    """
    metrics: dict[str, float] = {}
    if "similarity" in tables:
        metrics["similarity"] = tables["similarity"]["spearman"].iloc[0]
    if "parallelism" in tables:
        metrics["parallelism"] = tables["parallelism"]["cosine"].iloc[0]
    if "alignment_change" in tables:
        changes = tables["alignment_change"]
        own = changes[changes["own"]]
        metrics |= alignment_metrics(own, "rho_change", "change")
    if "mean_dissimilarity" in tables:
        means = tables["mean_dissimilarity"]
        metrics |= dict(zip("dissimilarity/" + means["model"], means["dissimilarity"], strict=True))
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}


def _alignment_change(
    base: pd.DataFrame,
    tuned: pd.DataFrame,
    truth: SurveyTruth,
    items: Mapping[str, Item],
    selection: Selection,
    chosen: Countries,
) -> pd.DataFrame:
    languages = dict.fromkeys([*base.columns, *tuned.columns])
    own = [(language, country) for language in languages for country in countries_of(language, chosen, truth)]
    countries = list(truth.profile.columns if truth.source == "own" else dict.fromkeys(country for _, country in own))
    if not countries:
        raise ValueshiftError(f"the survey has no country of {', '.join(languages)} ({truth.provenance})")
    table = alignment_change(base, [tuned], truth.profile[countries], items, selection)
    return table.assign(own=[pair in own for pair in zip(table["language"], table["country"], strict=True)])


def _structures(models: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Both structures over the questions that both models have, pair by pair of languages."""
    asked = [set(table.index[table.notna().any(axis=1)]) for table in models.values()]
    common = [question for question in next(iter(models.values())).index if all(question in one for one in asked)]
    rows = []
    for model, table in models.items():
        between = dissimilarity(table.loc[common])
        for first, second in combinations(between.columns, 2):
            value = between.loc[first, second]
            rows.append({"model": model, "first": first, "second": second, "dissimilarity": value})
    if not rows:
        raise ValueshiftError("the models share fewer than two languages; probe them in the same languages")
    return pd.DataFrame(rows)


def _direction(models: Mapping[str, pd.DataFrame], items: Mapping[str, Item], selection: Selection) -> pd.DataFrame:
    found = plane(models, items, selection)
    first, second = found.explained
    return found.points.assign(explained_x=first, explained_y=second, n=found.n, dropped=found.dropped)
