"""Shares of the first pole: which codes stand where, who is counted, and what weights do."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from survey_files import ITEMS, Columns, survey, write_csv, write_xlsx
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import Item
from valueshift.core.surveys import collapse, import_survey

# Codes and poles


def p_first(path: Path, question: str, **options: object) -> float:
    table = collapse(import_survey([path]).shares, ITEMS, **options)  # type: ignore[arg-type]
    return float(table.set_index("question")["p_first"][question])


@pytest.mark.parametrize(
    ("question", "answers", "split", "drop"),
    [
        ("Q94", [0, 0, 0, 1, 2, 2, 2], 3 / 4, 3 / 4),  # 0 is not a member: excluded; 2 active, 1 inactive
        ("Q122", [0, 1, 1, 2, 2, 2], 4 / 6, 3 / 4),  # 2 agree, 0 disagree, 1 hard to say
        ("Q119", [0, 0, 1, 2, 3, 3, 4], 3 / 7, 2 / 5),  # 0 hard to say is the middle, not the low end
        ("Q56", [1, 1, 2, 3, 3], 3 / 5, 2 / 3),  # 3 is the same
        ("Q42", [1, 2, 2, 3, 3, 3], 1 / 3, 1 / 3),  # 3 fits neither pole
        ("Q221", [1, 2, 3, 3, 4, 4], 1.5 / 4, 1 / 3),  # 4 is not allowed to vote
        ("Q254", [1, 2, 3, 5, 5], 2 / 3, 2 / 3),  # 5 is no national
        ("Q241", [0, 0, 1, 6, 10], 2 / 5, 2 / 5),  # the extra 0 stands with the low codes
        ("Q106a", [1, 5, 6, 10, 10], 3 / 5, 3 / 5),
        ("Q106b", [1, 5, 6, 10, 10], 2 / 5, 2 / 5),
        ("Q130c", [1, 2, 3, 3, 4], 2 / 5, 2 / 5),
        ("Q176", [1, 2, 10], 2 / 3, 2 / 3),  # low codes agree here
        ("Q158", [1, 2, 10], 1 / 3, 1 / 3),  # and disagree here
    ],
)
def test_code_traps(tmp_path: Path, question: str, answers: list[int], split: float, drop: float) -> None:
    missing = [-1, -2, -4, -5, ""]
    path = write_csv(tmp_path / "a.csv", survey({ITEMS[question].variable: [*answers, *missing]}))
    assert p_first(path, question, middle="split") == pytest.approx(split)
    assert p_first(path, question, middle="drop") == pytest.approx(drop)


def test_the_denominator_is_counted(tmp_path: Path) -> None:
    imported = import_survey([write_csv(tmp_path / "a.csv", survey({"Q122": [0, 1, 1, 2, -1, -5, ""]}))])
    row = imported.report.set_index("question").loc["Q122"]
    assert (row["respondents"], row["valid"], row["missing"], row["status"]) == (7, 4, 3, "answered")
    assert collapse(imported.shares, ITEMS, middle="split")["n"].tolist() == [4]
    assert collapse(imported.shares, ITEMS, middle="drop")["n"].tolist() == [2]


def test_a_researcher_can_change_the_rules(tmp_path: Path) -> None:
    shares = import_survey([write_csv(tmp_path / "a.csv", survey({"Q43": [1, 2, 2, 3]}))]).shares

    def with_rules(**codes: tuple[int, ...]) -> dict[str, Item]:
        return {"Q43": ITEMS["Q43"].model_copy(update=codes)}

    kept = with_rules(first_codes=(1, 2), second_codes=(3,), middle_codes=())
    assert collapse(shares, kept)["p_first"].tolist() == [0.75]
    out = with_rules(middle_codes=(), excluded_codes=(2,))
    assert collapse(shares, out)[["p_first", "n"]].to_numpy().tolist() == [[0.5, 2]]
    with pytest.raises(ValueshiftError, match="question Q43 do not place code 2"):
        collapse(shares, with_rules(middle_codes=()))


def test_shares_of_a_question_add_up_to_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    columns = survey({"Q177": rng.integers(-2, 11, 200).clip(1).tolist()}, weight=rng.random(200).tolist())
    shares = import_survey([write_csv(tmp_path / "a.csv", columns)]).shares
    assert shares.groupby("weight")["share"].sum().tolist() == pytest.approx([1, 1])


# Weights


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.tuples(st.sampled_from([-1, 0, 1, 2, 3, 4]), st.floats(0.01, 20)), min_size=1, max_size=40),
    middle=st.sampled_from(["split", "drop"]),
)
def test_shares_and_kish_sizes_agree_with_direct_computation(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float]], middle: str
) -> None:
    codes, weights = np.array([code for code, _ in rows]), np.array([weight for _, weight in rows])
    parts = {1: 1.0, 2: 1.0, 3: 0.0, 4: 0.0} | ({0: 0.5} if middle == "split" else {})  # Q119
    used = np.isin(codes, list(parts))
    path = tmp_path_factory.mktemp("kish") / "a.csv"
    write_csv(path, survey({"Q119": codes.tolist(), "Q1": [1] * len(rows)}, weight=weights.tolist()))
    shares = import_survey([path]).shares
    for weighted, mass in ((True, weights), (False, np.ones(len(rows)))):
        table = collapse(shares, ITEMS, middle=middle, weighted=weighted).set_index("question")  # type: ignore[arg-type]
        assert set(table["weight"]) == {"W_WEIGHT" if weighted else "none"}
        assert set(table["middle"]) == {middle}
        if not used.any():
            assert "Q119" not in table.index
            continue
        row, own = table.loc["Q119"], mass[used]
        assert row["p_first"] == pytest.approx(sum(own * [parts[code] for code in codes[used]]) / own.sum())
        assert row["n"] == used.sum()
        assert row["n_effective"] == pytest.approx(own.sum() ** 2 / (own**2).sum())


def test_no_weights_are_said(tmp_path: Path) -> None:
    imported = import_survey([write_csv(tmp_path / "a.csv", survey({"Q1": [1, 1, 4]}))])
    assert any("a.csv has no column W_WEIGHT: its shares are unweighted" in note for note in imported.notes)
    assert set(imported.shares["weight"]) == {"none"} == set(imported.summary()["weight"])
    assert collapse(imported.shares, ITEMS, weighted=True)["weight"].tolist() == ["none"]


@pytest.mark.parametrize("write", [write_csv, lambda path, columns: write_xlsx(path.with_suffix(".xlsx"), columns)])
def test_weights_that_are_text_are_read_and_said(tmp_path: Path, write: Callable[[Path, Columns], Path]) -> None:
    path = write(tmp_path / "a.csv", survey({"Q1": [1, 4, 4]}, weight=["1,5", "0,5", "No weighting"]))
    imported = import_survey([path])
    assert any("column W_WEIGHT: 3 weights are text" in note for note in imported.notes)
    assert collapse(imported.shares, ITEMS)["p_first"].tolist() == [0.5]


def test_weights_can_be_left_out(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", survey({"Q1": [1, 4, 4]}, weight=[-5, -5, -5]))
    assert set(import_survey([path], weighted=False).shares["weight"]) == {"none"}


def test_a_weight_of_zero_counts_nobody(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", survey({"Q1": [1, 4, 4]}, weight=[0, 2, 2]))
    table = collapse(import_survey([path]).shares, ITEMS)
    assert (table["p_first"][0], table["n_effective"][0]) == (0.0, 2.0)
