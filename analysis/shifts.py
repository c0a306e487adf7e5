"""Shifts: which answers a fine-tuned model gives differently [paper 5.2.1].

A question is *common* to two models when both were asked it in the same language and both chose an option. An exact
tie on either side is no answer: such a question is neither kept nor shifted, and is counted under `ties`. What only one
of the two was asked is counted under `dropped`.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..core.errors import ValueshiftError
from ..core.probes import Item
from .bootstrap import batteries, mean
from .intervals import share, symmetric
from .pairs import MINIMUM
from .profiles import Selection, checked, selected
from .significance import adjusted, sign_flip_p

Dimension = Literal["language", "category"]
_VALUES = ["answer", "p_first"]


def common(base_scores: pd.DataFrame, tuned_scores: pd.DataFrame) -> pd.DataFrame:
    """Both models' answers side by side, one row per language and question that either was asked, in the order asked.

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
    language, languages = pd.factorize(pd.concat([base["language"], tuned["language"]], ignore_index=True))
    question, questions = pd.factorize(pd.concat([base["question"], tuned["question"]], ignore_index=True))
    places = language * len(questions) + question  # in the order of the rows, which need not be sorted again
    asked = np.unique(places)
    each = {"base": places[: len(base)], "tuned": places[len(base) :]}
    sides = {
        name: scores[["category", *_VALUES]].set_axis(each[name]).reindex(asked)
        for name, scores in (("base", base), ("tuned", tuned))
    }
    by_base, by_tuned = (np.isin(asked, of_side) for of_side in each.values())
    rows = {
        "language": languages.take(asked // len(questions)),
        "question": questions.take(asked % len(questions)),
        "category": sides["base"]["category"].fillna(sides["tuned"]["category"]).array,
        **{f"{value}_{name}": side[value].array for value in _VALUES for name, side in sides.items()},
        "in": pd.Categorical.from_codes(
            np.where(by_tuned, 1 + by_base, 0), dtype=pd.CategoricalDtype(["base", "tuned", "both"])
        ),
    }
    return pd.DataFrame(rows)


def flipped(
    base_scores: pd.DataFrame, tuned_scores: pd.DataFrame, items: Mapping[str, Item], selection: Selection = "paper"
) -> pd.DataFrame:
    """The shifts: one row per language and question whose answer changed; ties on either side are left out.

    Columns: language, question, category, answer_base, answer_tuned, p_first_base, p_first_tuned.
    """
    rows = common(base_scores, tuned_scores)
    rows = rows[rows["question"].isin(selected(items, selection))]
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
        One row a cell: the columns of `by`, then unchanged, low, high (over batteries; missing where there are fewer
        than three), plain_low, plain_high (over questions taken as independent), n (answers compared), ties, dropped,
        reason (why there is no share, else ""). A cell needs ten answers, a cell of one category one.

    Raises:
        ValueshiftError: different probe sets, no common language, or a question that is not in `items`.
    """
    rows = common(base_scores, tuned_scores)
    rows = rows[rows["question"].isin(selected(items, selection))]
    keys = [by] if isinstance(by, str) else list(by)
    cells: Iterable[tuple[tuple[Any, ...], pd.DataFrame]] = (
        rows.groupby(keys, sort=keys == ["category"], dropna=False) if keys else [((), rows)]
    )
    fewest = 1 if "category" in keys else MINIMUM
    return pd.DataFrame([dict(zip(keys, name, strict=True)) | _unchanged(cell, items, fewest) for name, cell in cells])


def unchanged_difference(
    base_scores: pd.DataFrame,
    first_scores: pd.DataFrame,
    second_scores: pd.DataFrame,
    items: Mapping[str, Item],
    selection: Selection = "paper",
    seed: int = 0,
) -> pd.DataFrame:
    """Whether one fine-tuned model keeps more answers than another: difference of their unchanged shares per language.

    Args:
        base_scores: scores before fine-tuning.
        first_scores: scores of a tuned model.
        second_scores: scores of another.
        items: the registry of their probe set.
        selection: the paper's questions or all.
        seed: of the randomisation.

    Returns:
        One row a language: language, first, second, difference (second minus first); low, high (paired, over
        batteries); p (no difference, batteries changing sign), adjusted (Benjamini-Hochberg over the table); n
        (questions that all three answered), dropped, reason.

    Raises:
        ValueshiftError: as `unchanged`.
    """
    keys = ["language", "question"]
    wanted = selected(items, selection)
    sides = [common(base_scores, scores).set_index(keys) for scores in (first_scores, second_scores)]
    answers = [side.loc[side.index.isin(wanted, level="question"), ["answer_base", "answer_tuned"]] for side in sides]
    same = [side["answer_base"] == side["answer_tuned"] for side in (table.dropna() for table in answers)]
    asked = answers[0].index.union(answers[1].index).get_level_values("language")
    both = pd.concat(same, axis=1, join="inner", keys=["first", "second"]).astype("float64")
    rows: list[dict[str, object]] = []
    for language in base_scores["language"].unique():
        kept = both[both.index.get_level_values("language") == language]
        row: dict[str, object] = {"language": language}
        row |= dict.fromkeys(("first", "second", "difference", "low", "high", "p"), float("nan"))
        if enough := len(kept) >= MINIMUM:
            groups = batteries(kept.index.get_level_values("question").tolist(), items)
            differences = (kept["second"] - kept["first"]).to_numpy()
            value, low, high = (float(part) for part in symmetric(mean(differences), groups))
            row |= {"first": kept["first"].mean(), "second": kept["second"].mean(), "difference": value}
            row |= {"low": low, "high": high, "p": float(sign_flip_p(differences, groups, seed))}
        reason = "" if enough else f"fewer than {MINIMUM} common questions"
        rows.append(row | {"n": len(kept), "dropped": int((asked == language).sum()) - len(kept), "reason": reason})
    table = pd.DataFrame(rows)
    table.insert(list(table.columns).index("p") + 1, "adjusted", adjusted(table["p"]))
    return table


def agreement(
    models: Mapping[str, pd.DataFrame],
    items: Mapping[str, Item],
    by: Dimension | Sequence[Dimension] = (),
    selection: Selection = "paper",
) -> pd.DataFrame:
    """Share of common questions that two models answer alike, for every pair of them [Table 1, Fig. 7].

    Args:
        models: name to scores, all of one probe set.
        items: the registry of that probe set.
        by: as in `unchanged`; nothing by default, so that all languages are counted together.
        selection: the paper's questions or all.

    Returns:
        The columns first, second (names of models), then those of `unchanged` with `agreement` for `unchanged`.

    Raises:
        ValueshiftError: fewer than two models, or two that `unchanged` does not compare.
    """
    tables = []
    for first, second in combinations(models, 2):
        table = unchanged(models[first], models[second], items, by, selection)
        table.insert(0, "first", first)
        table.insert(1, "second", second)
        tables.append(table.rename(columns={"unchanged": "agreement"}))
    if not tables:
        raise ValueshiftError("agreement is between models; give the scores of two or more")
    return pd.concat(tables, ignore_index=True)


def _unchanged(rows: pd.DataFrame, items: Mapping[str, Item], fewest: int) -> dict[str, object]:
    both = rows[rows["in"] == "both"]
    answered = both.dropna(subset=["answer_base", "answer_tuned"])
    counts = {
        "n": len(answered),
        "ties": len(both) - len(answered),
        "dropped": len(rows) - len(both),
    }
    if len(answered) < fewest:
        reason = "asked of one model only" if both.empty else f"fewer than {fewest} common questions"
        missing = dict.fromkeys(("unchanged", "low", "high", "plain_low", "plain_high"), float("nan"))
        return missing | counts | {"reason": reason}
    same = (answered["answer_base"] == answered["answer_tuned"]).to_numpy(dtype=np.bool_)
    clustered = share(same, batteries(answered["question"].tolist(), items))
    plain = share(same, pd.factorize(answered["question"], sort=True)[0])
    return {
        "unchanged": clustered.value,
        "low": clustered.low,
        "high": clustered.high,
        "plain_low": plain.low,
        "plain_high": plain.high,
        **counts,
        "reason": "",
    }
