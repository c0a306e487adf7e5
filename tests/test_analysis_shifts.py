"""Profiles and shifts against examples counted by hand."""

import numpy as np
import pandas as pd
import pytest
from valueshift.analysis.answers import answers_of
from valueshift.analysis.profiles import profile, selected, summary_metrics
from valueshift.analysis.shifts import common, flipped, unchanged
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import Item
from valueshift.core.scores import answer, p_first, scores_frame


def item(number: int, category: int = 1, pole: str = "often", paper: bool = True) -> Item:
    return Item(
        question=f"Q{number}",
        survey="toy",
        variable=f"Q{number}",
        category=category,
        category_name="toy",
        first_codes=(1,),
        second_codes=(2,),
        middle_codes=(),
        excluded_codes=(),
        measures="a thing",
        first_pole=pole,
        second_pole="never",
        paper=paper,
        note="",
    )


ITEMS = {f"Q{n}": item(n, category=1 + (n > 12), pole="often" if n % 2 else "seldom") for n in range(1, 25)}


def scores(differences: dict[str, list[float]], probe_set: str = "toy") -> pd.DataFrame:
    """Scores whose options differ by the given log-probabilities, from Q1 on; NaN leaves the question out."""
    return scores_frame(
        [
            {
                "probe_set": probe_set,
                "language": language,
                "question": f"Q{number}",
                "category": ITEMS[f"Q{number}"].category,
                "logprob_first": value - 5,
                "logprob_second": -5.0,
                "p_first": p_first(value, 0.0),
                "answer": answer(value, 0.0),
            }
            for language, values in differences.items()
            for number, value in enumerate(values, 1)
            if not np.isnan(value)
        ]
    )


BASE = scores({"de": [1.0] * 24, "fa": [2.0] * 12 + [-2.0] * 12})
TUNED = scores(
    {
        "de": [1.0] * 18 + [-1.0] * 3 + [0.0] + [float("nan")] * 2,  # 18 kept, 3 shifted, 1 tie, 2 not asked
        "fa": [2.0] * 12 + [2.0] * 12,  # category 2 shifted as a whole
    }
)


def test_a_profile_has_questions_by_languages_in_the_order_asked() -> None:
    table = profile(TUNED, selection=["Q23", "Q1", "Q19"])
    assert table.index.tolist() == ["Q1", "Q19", "Q23"]
    assert table.columns.tolist() == ["de", "fa"]
    assert table.loc["Q19", "de"] == pytest.approx(1 / (1 + np.e))
    assert np.isnan(table.loc["Q23", "de"])


def test_a_choice_is_neither_on_a_tie_and_missing_where_it_was_not_asked() -> None:
    found = answers_of(TUNED)
    german = found.on(found.choices, list(ITEMS), ["de", "ko"]).T
    np.testing.assert_array_equal(german[0], [1] * 18 + [-1] * 3 + [0] + [np.nan] * 2)
    assert np.isnan(german[1]).all()
    assert profile(TUNED).loc["Q22", "de"] == 0.5


def test_summary_counts_a_tie_as_one_half() -> None:
    metrics = summary_metrics(TUNED)
    assert metrics["questions/de"] == 22
    assert metrics["first_share/de"] == pytest.approx(18.5 / 22)
    assert metrics["p_first/fa"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert set(metrics) == {
        f"{name}/{code}" for name in ("p_first", "first_share", "questions") for code in ("de", "fa")
    }


def test_unchanged_per_language_is_the_share_counted_by_hand() -> None:
    table = unchanged(BASE, TUNED, ITEMS).set_index("language")
    assert table.index.tolist() == ["de", "fa"]
    assert table.loc["de", ["unchanged", "n", "ties", "dropped"]].tolist() == [18 / 21, 21, 1, 2]
    assert table.loc["fa", ["unchanged", "n", "ties", "dropped"]].tolist() == [0.5, 24, 0, 0]
    assert (table["low"] < table["unchanged"]).all() and (table["unchanged"] < table["high"]).all()


def test_a_shift_of_whole_batteries_is_less_certain_than_one_of_single_questions() -> None:
    row = unchanged(BASE, TUNED, ITEMS).set_index("language").loc["fa"]
    assert row["high"] - row["low"] > 1.5 * (row["plain_high"] - row["plain_low"])


def test_unchanged_by_category_pools_the_languages() -> None:
    table = unchanged(BASE, TUNED, ITEMS, by="category").set_index("category")
    assert table["n"].to_dict() == {1: 24, 2: 21}
    assert table["unchanged"].to_dict() == {1: 1.0, 2: 6 / 21}


def test_unchanged_without_a_split_is_one_row_over_all_answers() -> None:
    table = unchanged(BASE, TUNED, ITEMS, by=[])
    assert table[["unchanged", "n"]].values.tolist() == [[30 / 45, 45]]


def test_unchanged_of_a_model_with_itself_is_one() -> None:
    assert unchanged(BASE, BASE, ITEMS, by=["language", "category"])["unchanged"].tolist() == [1.0] * 4


def test_only_questions_of_the_selection_count() -> None:
    half = {name: one.model_copy(update={"paper": number < 12}) for number, (name, one) in enumerate(ITEMS.items())}
    assert unchanged(BASE, TUNED, half)["n"].tolist() == [12, 12]
    assert unchanged(BASE, TUNED, half, selection="all")["n"].tolist() == [21, 24]
    with pytest.raises(ValueshiftError, match="choose the selection 'all'"):
        selected({name: one.model_copy(update={"paper": False}) for name, one in ITEMS.items()})


def test_too_few_common_questions_are_no_statistic_but_a_reason() -> None:
    few = scores({"de": [1.0] * 9})
    row = unchanged(BASE, few, ITEMS).set_index("language")
    assert row.loc["de", "reason"] == "fewer than 10 common questions"
    assert row.loc["fa", "reason"] == "asked of one model only"
    assert row[["unchanged", "low", "high"]].isna().all().all()
    assert row["dropped"].to_dict() == {"de": 15, "fa": 24}


def test_flipped_lists_the_shifts() -> None:
    table = flipped(BASE, TUNED, ITEMS)
    assert table["language"].value_counts().to_dict() == {"fa": 12, "de": 3}
    german = table[table["language"] == "de"]
    assert german["question"].tolist() == ["Q19", "Q20", "Q21"]
    assert german["answer_base"].tolist() == ["first"] * 3
    assert german["answer_tuned"].tolist() == ["second"] * 3
    assert german["p_first_tuned"].tolist() == pytest.approx([1 / (1 + np.e)] * 3)
    assert flipped(BASE, BASE, ITEMS).empty
    other = {name: one.model_copy(update={"paper": name != "Q20"}) for name, one in ITEMS.items()}
    assert set(table["question"]) - set(flipped(BASE, TUNED, other)["question"]) == {"Q20"}
    assert len(flipped(BASE, TUNED, other, "all")) == len(table)


def test_common_is_a_join_by_question_whatever_the_order() -> None:
    shuffled = TUNED.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(common(BASE, TUNED), common(BASE, shuffled))
    assert common(BASE, TUNED)["question"].tolist() == [f"Q{number}" for number in range(1, 25)] * 2


@pytest.mark.parametrize(
    ("tuned", "message"),
    [
        (scores({"de": [1.0] * 24}, probe_set="other"), "different probe sets"),
        (scores({"ko": [1.0] * 24}), "share no language"),
        (pd.concat([TUNED, TUNED]), "scored twice"),
        (pd.concat([TUNED, scores({"de": [1.0]}, probe_set="other")]), "one probe set at a time"),
        (TUNED.drop(columns="answer"), "no column answer"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(tuned: pd.DataFrame, message: str) -> None:
    with pytest.raises(ValueshiftError, match=message):
        common(BASE, tuned)
