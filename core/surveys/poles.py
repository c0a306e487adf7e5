"""A survey's codes collapsed to two poles, by the rules of the registry [paper 3.5]."""

from collections.abc import Mapping
from typing import Literal

import pandas as pd

from ..errors import ValueshiftError
from ..probes import Item
from .counting import WEIGHT
from .importer import UNWEIGHTED, registry_codes

Middle = Literal["split", "drop"]


def collapse(
    shares: pd.DataFrame, items: Mapping[str, Item], *, middle: Middle = "split", weighted: bool = True
) -> pd.DataFrame:
    """Share of each country at the first pole of each question.

    Each code's share goes to the pole that the item gives it (paper: the nearer one); excluded codes leave the
    denominator. How an exact middle is treated and whether shares are weighted are ours, the paper is silent.

    Args:
        shares: `SurveyImport.shares`.
        items: the rules by question; change them to change the poles.
        middle: `split` adds half of a middle code's share to each pole, `drop` leaves it out of the denominator.
        weighted: take the weighted shares of the countries that have weights.

    Returns:
        One row per `country` and `question` (of the registry: Q106a, Q106b from variable Q106) that has answers:
        `p_first` in [0, 1]; `n` respondents in the denominator; their Kish `n_effective`; `weight` (`W_WEIGHT` or
        `none`) and `middle` as used.

    Raises:
        ValueshiftError: the shares hold a code that the item's rules do not place.
    """
    _refuse_unplaced(shares, items)
    has_weights = shares["country"].isin(shares.loc[shares["weight"] == WEIGHT, "country"])
    wanted = has_weights.map({True: WEIGHT, False: UNWEIGHTED}) if weighted else UNWEIGHTED
    rows = shares[shares["weight"] == wanted].rename(columns={"question": "variable"})
    rows = rows.merge(_rules(items, middle), on=["variable", "code"])
    rows["at_first"] = rows["share"] * rows["first"]
    # Squared weights add up, so the Kish size of several codes follows from those of each: see SurveyImport.shares.
    rows["squares"] = (rows["share"] ** 2 / rows["n_effective"].where(rows["n_effective"] > 0)).fillna(0.0)
    sums = rows.groupby(["country", "question", "weight"], as_index=False)[["share", "at_first", "n", "squares"]].sum()
    sums = sums[sums["share"] > 0]
    table = sums.assign(
        p_first=sums["at_first"] / sums["share"], n_effective=sums["share"] ** 2 / sums["squares"], middle=middle
    )
    table["place"] = table["question"].map({question: place for place, question in enumerate(items)})
    table = table.sort_values(["country", "place"])
    return table[["country", "question", "p_first", "n", "n_effective", "weight", "middle"]].reset_index(drop=True)


def _rules(items: Mapping[str, Item], middle: Middle) -> pd.DataFrame:
    """Question, variable, code, and the part of the code's share that goes to the first pole."""
    rows = []
    for item in items.values():
        poles = [(item.first_codes, 1.0), (item.second_codes, 0.0)]
        if middle == "split":
            poles.append((item.middle_codes, 0.5))
        rows += [(item.question, item.variable, code, part) for codes, part in poles for code in codes]
    return pd.DataFrame(rows, columns=["question", "variable", "code", "first"])


def _refuse_unplaced(shares: pd.DataFrame, items: Mapping[str, Item]) -> None:
    held = shares[["question", "code"]].drop_duplicates().groupby("question")["code"].agg(set)
    for item in items.values():
        unplaced = held.get(item.variable, set()) - registry_codes({item.question: item})[item.variable]
        if unplaced:
            raise ValueshiftError(
                f"the rules of question {item.question} do not place code {min(unplaced)} of variable {item.variable}; "
                f"add it to its first, second, middle or excluded codes"
            )
