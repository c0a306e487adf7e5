"""Shifts: which answers a fine-tuned model gives differently [paper 5.2.1].

A question is *common* to two models when both were asked it in the same language and both chose an option. An exact
tie on either side is no answer: such a question is neither kept nor shifted, and is counted under `ties`. What only one
of the two was asked is counted under `dropped`.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from ..core.probes import Item
from .answers import Scores, answers_of, checked
from .bootstrap import Floats, Groups, batteries, mean
from .intervals import shares, symmetric
from .pairs import MINIMUM, alike
from .profiles import Selection, selected
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
    sets, spoken = ([set(side[name].unique()) for side in (base, tuned)] for name in ("probe_set", "language"))
    _check_comparable(sets, spoken)
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


def compared(
    models: Sequence[Scores], items: Mapping[str, Item], selection: Selection
) -> tuple[Floats, list[str], list[str]]:
    """The answers of models that can be compared, as `Answers.choices`, on the same questions and languages.

    Returns:
        Choices (models, questions, languages), the questions of the selection, and the languages of any model, the first
        model's first.

    Raises:
        ValueshiftError: the models were asked different probe sets, or one shares no language with the first.
    """
    each = [answers_of(scores) for scores in models]
    _check_comparable([{one.probe_set} - {None} for one in each], [set(one.languages) for one in each])
    questions = selected(items, selection)
    languages = list(dict.fromkeys(language for answers in each for language in answers.languages))
    choices = np.stack([answers.on(answers.choices, questions, languages) for answers in each])
    return choices, questions, languages


def _check_comparable(probe_sets: Sequence[set[Any]], languages: Sequence[set[str]]) -> None:
    """Raises ValueshiftError where models were asked different probe sets, or one shares no language with the first."""
    if len(sets := set().union(*probe_sets)) > 1:
        raise ValueshiftError(
            f"the models were asked different probe sets ({', '.join(sorted(sets))}); probe both with one"
        )
    if any(languages[0].isdisjoint(others) for others in languages):
        raise ValueshiftError("the two models share no language; probe both in the same languages")


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
    base_scores: Scores,
    tuned_scores: Scores,
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
    (base, tuned), questions, languages = compared([base_scores, tuned_scores], items, selection)
    column, row = np.nonzero(~(np.isnan(base) & np.isnan(tuned)).T)  # of what either was asked, language by language
    product = base[row, column] * tuned[row, column]  # 1 the same answer, -1 another, 0 a tie, NaN one was not asked
    of_question = pd.Index([items[question].category for question in questions], dtype="Int64")
    category, categories = pd.factorize(of_question, sort=True, use_na_sentinel=False)
    codes = {"language": column, "category": category[row]}
    names = {"language": pd.Index(languages), "category": categories}
    keys: list[str] = [by] if isinstance(by, str) else list(by)
    extent = [len(names[key]) for key in keys]
    cell = np.ravel_multi_index([codes[key] for key in keys], extent) if keys else np.zeros_like(row)
    cell, found = pd.factorize(cell, sort=keys == ["category"])
    count = len(found) if keys else 1

    def counted(which: NDArray[np.bool_], ids: Groups) -> NDArray[np.intp]:
        """How many rows of each cell and id: (cells, ids)."""
        width = len(questions)
        counts: NDArray[np.intp] = np.bincount((cell * width + ids)[which], minlength=count * width)
        return counts.reshape(-1, width)

    answered, same, groups = np.abs(product) == 1, product == 1, batteries(questions, items)[row]
    both, n = (counted(which, row).sum(axis=1) for which in (~np.isnan(product), answered))
    clustered, plain = (shares(counted(same, ids), counted(answered, ids)) for ids in (groups, row))
    enough = n >= (fewest := 1 if "category" in keys else MINIMUM)
    table: dict[str, object] = {}
    if keys:
        table |= {key: names[key].take(place) for key, place in zip(keys, np.unravel_index(found, extent), strict=True)}
    values = zip(("unchanged", "low", "high", "plain_low", "plain_high"), (*clustered, *plain[1:]), strict=True)
    table |= {name: np.where(enough, value, np.nan) for name, value in values}
    table |= {"n": n, "ties": both - n, "dropped": counted(np.isnan(product), row).sum(axis=1)}
    few = np.where(both == 0, "asked of one model only", f"fewer than {fewest} common questions")
    return pd.DataFrame(table | {"reason": np.where(enough, "", few)})


def unchanged_difference(
    base_scores: Scores,
    first_scores: Scores,
    second_scores: Scores,
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
    choices, questions, languages = compared([base_scores, first_scores, second_scores], items, selection)
    base, first, second = choices
    asked = ~np.isnan(choices).all(axis=0)
    kept = (np.abs(choices) == 1).all(axis=0)
    stayed = np.stack([first == base, second == base]).astype(np.float64)
    cells = {name: np.full(len(languages), np.nan) for name in ("first", "second", "difference", "low", "high", "p")}
    for common_to, some in alike(kept):
        if common_to.sum() >= MINIMUM:
            groups = batteries([q for q, one in zip(questions, common_to, strict=True) if one], items)
            shares_of = stayed[:, common_to][:, :, some]
            difference = shares_of[1] - shares_of[0]
            found = (
                *shares_of.mean(axis=1),
                *symmetric(mean(difference), groups),
                sign_flip_p(difference, groups, seed),
            )
            for cell, value in zip(cells.values(), found, strict=True):
                cell[some] = value
    n = kept.sum(axis=0)
    few = f"fewer than {MINIMUM} common questions"
    rows = {
        "language": languages,
        **cells,
        "n": n,
        "dropped": asked.sum(axis=0) - n,
        "reason": np.where(n < MINIMUM, few, ""),
    }
    table = pd.DataFrame(rows)
    table.insert(list(table.columns).index("p") + 1, "adjusted", adjusted(table["p"]))
    return table


def agreement(
    models: Mapping[str, Scores],
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
