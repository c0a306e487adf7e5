"""Shifts: which answers a fine-tuned model gives differently [paper 5.2.1].

A question is *common* to two models when both were asked it in the same language and both chose an option. An exact
tie on either side is no answer: such a question is neither kept nor shifted, and is counted under `ties`. What only one
of the two was asked is counted under `dropped`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..core.errors import ValueshiftError
from ..core.probes import Item
from .bootstrap import batteries
from .intervals import share
from .pairs import MINIMUM
from .profiles import Selection, checked, selected

Dimension = Literal["language", "category"]
_VALUES = ["answer", "p_first"]


def common(base_scores: pd.DataFrame, tuned_scores: pd.DataFrame) -> pd.DataFrame:
    """Both models' answers side by side, one row per language and question that either was asked.

    Columns: language, question, category, answer_base, answer_tuned, p_first_base, p_first_tuned, and `in`, one of
    `both`, `base` and `tuned`.

    Raises:
        ValueshiftError: the two were asked different probe sets, or share no language.
    """
    base, tuned = checked(base_scores, (*_VALUES, "category")), checked(tuned_scores, (*_VALUES, "category"))
    sets = set(base["probe_set"]) | set(tuned["probe_set"])
    if len(sets) > 1:
        raise ValueshiftError(
            f"the models were asked different probe sets ({', '.join(sorted(sets))}); probe both with one"
        )
    if not set(base["language"]) & set(tuned["language"]):
        raise ValueshiftError("the two models share no language; probe both in the same languages")
    keys = ["language", "question"]
    columns = [*keys, "category", *_VALUES]
    rows = base[columns].merge(
        tuned[columns], how="outer", on=keys, suffixes=("_base", "_tuned"), indicator="in", sort=False
    )
    rows["in"] = rows["in"].cat.rename_categories({"left_only": "base", "right_only": "tuned"})
    rows["category"] = rows["category_base"].fillna(rows["category_tuned"])
    order = {name: place for place, name in enumerate(pd.concat([base, tuned])["language"].unique())}
    rows = rows.sort_values("language", key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return rows[[*keys, "category", *(f"{value}_{side}" for value in _VALUES for side in ("base", "tuned")), "in"]]


def flipped(base_scores: pd.DataFrame, tuned_scores: pd.DataFrame) -> pd.DataFrame:
    """The shifts: one row per language and question whose answer changed; ties on either side are left out.

    Columns: language, question, category, answer_base, answer_tuned, p_first_base, p_first_tuned.
    """
    rows = common(base_scores, tuned_scores)
    answered = rows["answer_base"].notna() & rows["answer_tuned"].notna()
    changed = answered & (rows["answer_base"] != rows["answer_tuned"]).fillna(False)
    return rows[changed].drop(columns="in").reset_index(drop=True)


def unchanged(
    base_scores: pd.DataFrame,
    tuned_scores: pd.DataFrame,
    items: Mapping[str, Item],
    by: Dimension | Sequence[Dimension] = "language",
    selection: Selection = "paper",
) -> pd.DataFrame:
    """Share of common questions with the same answer [paper 5.2.1; Fig. 2, 8-10], with intervals over batteries.

    Args:
        base_scores: scores of one model.
        tuned_scores: scores of the other, of the same probe set.
        items: the registry of that probe set.
        by: what to split by: `language`, `category`, both, or nothing (an empty sequence: one row).
        selection: the paper's questions or all.

    Returns:
        One row a cell: the columns of `by`, then unchanged, low, high (over batteries), plain_low, plain_high (over
        questions taken as independent), n (answers compared), ties, dropped, reason (why a value is missing, else "").

    Raises:
        ValueshiftError: different probe sets, no common language, or a question that is not in `items`.
    """
    rows = common(base_scores, tuned_scores)
    rows = rows[rows["question"].isin(selected(items, selection))]
    keys = [by] if isinstance(by, str) else list(by)
    cells: Iterable[tuple[tuple[Any, ...], pd.DataFrame]] = (
        rows.groupby(keys, sort="category" in keys and "language" not in keys) if keys else [((), rows)]
    )
    return pd.DataFrame([dict(zip(keys, name, strict=True)) | _unchanged(cell, items) for name, cell in cells])


def _unchanged(rows: pd.DataFrame, items: Mapping[str, Item]) -> dict[str, object]:
    both = rows[rows["in"] == "both"]
    answered = both.dropna(subset=["answer_base", "answer_tuned"])
    counts = {
        "n": len(answered),
        "ties": len(both) - len(answered),
        "dropped": len(rows) - len(both),
    }
    if len(answered) < MINIMUM:
        asked = rows.loc[rows["in"] == "both", "question"]
        reason = "asked of one model only" if asked.empty else f"fewer than {MINIMUM} common questions"
        missing = dict.fromkeys(("unchanged", "low", "high", "plain_low", "plain_high"), float("nan"))
        return missing | counts | {"reason": reason}
    same = (answered["answer_base"] == answered["answer_tuned"]).to_numpy(dtype=np.bool_)
    clustered = share(same, batteries(answered["question"].tolist(), items))
    plain = share(same, np.unique(answered["question"], return_inverse=True)[1])
    return {
        "unchanged": clustered.value,
        "low": clustered.low,
        "high": clustered.high,
        "plain_low": plain.low,
        "plain_high": plain.high,
        **counts,
        "reason": "",
    }
