"""Alignment and its changes against scipy and against examples worked out by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon
from valueshift.analysis.alignment import (
    alignment,
    alignment_change,
    best_aligned,
    each_alignment,
    influence,
    swapped_changes,
)
from valueshift.analysis.bootstrap import batteries, bootstrap_weights, resampled
from valueshift.analysis.correlations import spearman
from valueshift.analysis.poles import distances, turned_range, within
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.core.probes import read_items

ITEMS = {name: item for name, item in read_items(TASKS / "wvs" / "items.csv").items() if item.paper}
RNG = np.random.default_rng(11)


def profiles(columns: list[str], like: pd.DataFrame | None = None, questions: int = 60) -> pd.DataFrame:
    """Random profiles on every fourth question, half-way to the columns of another table where one is given."""
    names = list(ITEMS)[::3][:questions]
    values = RNG.random((len(names), len(columns)))
    return pd.DataFrame(values if like is None else (values + like.to_numpy()) / 2, index=names, columns=columns)


MODEL = profiles(["de", "fa", "ko"])
TRUTH = profiles(["DEU", "IRN", "KOR"], MODEL)


def cell(table: pd.DataFrame, language: str, country: str) -> pd.Series:
    return table[(table["language"] == language) & (table["country"] == country)].iloc[0]


def test_alignment_is_scipys_spearman_in_the_order_given() -> None:
    table = alignment(MODEL, TRUTH, ITEMS)
    assert list(zip(table["language"], table["country"], strict=True)) == list(
        itertools.product(MODEL.columns, TRUTH.columns)
    )
    for row in table.itertuples():
        expected = stats.spearmanr(MODEL[row.language], TRUTH[row.country]).statistic
        assert row.spearman == pytest.approx(expected, abs=1e-9)
        assert row.low < row.spearman < row.high and row.plain_low < row.spearman < row.plain_high
    assert cell(table, "de", "DEU")["adjusted"] < 0.01 < 0.1 < cell(table, "de", "IRN")["p"]
    assert table["adjusted"].to_numpy() == pytest.approx(stats.false_discovery_control(table["p"]))


def test_questions_are_joined_by_name_and_the_rest_is_counted() -> None:
    lacking = TRUTH.sample(frac=1, random_state=0).drop(index=list(MODEL.index[:7]))
    lacking.loc[MODEL.index[10], "IRN"] = np.nan
    asked = MODEL.drop(index=[MODEL.index[20]])
    table = alignment(asked, lacking, ITEMS)
    german, persian = cell(table, "de", "DEU"), cell(table, "de", "IRN")
    assert (german["n"], german["dropped"]) == (52, 8)
    assert (persian["n"], persian["dropped"]) == (51, 9)
    both = asked["de"].index.intersection(lacking["IRN"].dropna().index)
    assert persian["spearman"] == pytest.approx(stats.spearmanr(asked.loc[both, "de"], lacking.loc[both, "IRN"])[0])


def test_a_profile_is_perfectly_aligned_with_itself() -> None:
    row = cell(alignment(MODEL, MODEL, ITEMS), "fa", "fa")
    assert row[["spearman", "within"]].tolist() == pytest.approx([1, 1])
    assert row[["jensen_shannon", "wasserstein"]].tolist() == pytest.approx([0, 0], abs=1e-7)
    assert row["p"] == 1e-4


@pytest.mark.parametrize("questions", [0, 9])
def test_too_few_common_questions_have_a_reason_and_no_value(questions: int) -> None:
    row = cell(alignment(MODEL.iloc[: questions + 15], TRUTH.iloc[15:], ITEMS), "de", "DEU") if questions else None
    if row is None:
        with pytest.raises(ValueshiftError, match="share no question"):
            alignment(MODEL.iloc[:20], TRUTH.iloc[20:], ITEMS)
    else:
        assert (row["n"], row["reason"]) == (9, "fewer than 10 common questions")
        assert row[["spearman", "low", "p", "adjusted", "within", "wasserstein"]].isna().all()


def test_a_constant_profile_is_said_to_be_one() -> None:
    table = alignment(MODEL.assign(fa=0.25), TRUTH, ITEMS)
    row = cell(table, "fa", "IRN")
    assert row["reason"] == "constant profile"
    assert row[["spearman", "low", "high", "p", "adjusted", "turned_low", "within"]].isna().all()
    assert row["wasserstein"] == pytest.approx((TRUTH["IRN"] - 0.25).abs().mean())
    assert (table.loc[table["language"] != "fa", "reason"] == "").all()
    (best,) = best_aligned([MODEL.assign(fa=0.25)], TRUTH, ITEMS, resamples=50)
    assert best.loc[best["best"].isna(), "language"].tolist() == ["fa"] * len(TRUTH.columns)


def test_a_language_missing_from_one_model_is_reported_not_guessed() -> None:
    table = alignment_change(MODEL, [MODEL.drop(columns="ko")], TRUTH, ITEMS)
    row = cell(table, "ko", "KOR")
    assert (row["n"], row["dropped"], row["reason"]) == (0, 60, "fewer than 10 common questions")
    assert np.isnan(row["change"])


def test_doubled_questions_are_refused() -> None:
    with pytest.raises(ValueshiftError, match="appears twice"):
        alignment(pd.concat([MODEL, MODEL.iloc[:1]]), TRUTH, ITEMS)


def test_distances_are_scipys() -> None:
    found = distances(MODEL.to_numpy(), TRUTH.to_numpy())
    p, q = MODEL["de"], TRUTH["KOR"]
    pairs = [([a, 1 - a], [b, 1 - b]) for a, b in zip(p, q, strict=True)]
    assert found["jensen_shannon"][0, 2] == pytest.approx(np.mean([jensenshannon(a, b, base=2) for a, b in pairs]))
    expected = np.mean([stats.wasserstein_distance([0, 1], [0, 1], a, b) for a, b in pairs])
    assert found["wasserstein"][0, 2] == pytest.approx(expected)


def test_turning_poles_moves_the_correlation_but_not_what_lies_within_pairs() -> None:
    groups = batteries(list(MODEL.index), ITEMS)
    x, y = MODEL.to_numpy(), TRUTH.to_numpy()
    turned = np.isin(groups, [0, 2, 3])[:, None]
    x_turned, y_turned = (np.where(turned, 1 - values, values) for values in (x, y))
    weights = np.ones((1, len(x)))
    assert np.abs(spearman(x, y)(weights) - spearman(x_turned, y_turned)(weights)).max() > 0.005
    assert within(x, y, groups)(weights) == pytest.approx(within(x_turned, y_turned, groups)(weights), abs=1e-12)
    low, high = turned_range(x, y, groups)
    assert (low < high).all() and low[0, 0] > 0.4


def test_the_range_over_turned_poles_is_that_of_every_turn_ranked_by_scipy() -> None:
    """With ties between shares that are turned and others that are not, such as 0.3 and 1 - 0.7."""
    groups = np.repeat(np.arange(4), [6, 5, 4, 5])
    x, y = RNG.integers(1, 10, (2, 20, 3)) / 10
    found: list[list[list[float]]] = []
    for number in range(16):
        turned = (number >> groups & 1 == 1)[:, None]
        left, right = (np.where(turned, 1 - values, values).round(9) for values in (x, y))
        found.append([[stats.spearmanr(one, two).statistic for two in right.T] for one in left.T])
    assert np.array(turned_range(x, y, groups, turns=16)) == pytest.approx(
        np.quantile(found[::2], [0.025, 0.975], axis=0)
    )


def test_within_one_battery_is_plain_spearman() -> None:
    x, y = MODEL.to_numpy(), TRUTH.to_numpy()
    one = np.zeros(len(x), dtype=np.intp)
    assert within(x, y, one)(np.ones((1, 60))) == pytest.approx(spearman(x, y)(np.ones((1, 60))), abs=1e-9)


def test_change_is_the_mean_difference_of_scipys_correlations() -> None:
    tuned = [profiles(list(MODEL.columns), TRUTH) for _ in range(3)]
    table = alignment_change(MODEL, tuned, TRUTH, ITEMS)
    for row in table.itertuples():
        before = stats.spearmanr(MODEL[row.language], TRUTH[row.country]).statistic
        after = np.mean([stats.spearmanr(one[row.language], TRUTH[row.country]).statistic for one in tuned])
        assert (row.base, row.tuned, row.change) == pytest.approx((before, after, after - before), abs=1e-9)
        assert row.low < row.change < row.high


def test_an_unchanged_model_has_no_change_in_alignment() -> None:
    table = alignment_change(MODEL, [MODEL, MODEL], TRUTH, ITEMS)
    assert table[["change", "low", "high"]].abs().max().max() < 1e-9
    assert (table["p"] == 1).all()


def test_exchanging_batteries_by_hand_gives_the_same_changes() -> None:
    groups = np.repeat(np.arange(4), 5)
    base, tuned, truth = RNG.random((3, 20, 1))
    found = np.sort(swapped_changes([base, tuned], truth, groups)[0].ravel())
    ranks = [stats.rankdata(values) for values in (base[:, 0], tuned[:, 0], truth[:, 0])]
    by_hand = []
    for exchange in itertools.product((False, True), repeat=4):
        swap = np.array(exchange)[groups]
        before, after = np.where(swap, ranks[1], ranks[0]), np.where(swap, ranks[0], ranks[1])
        by_hand.append(np.corrcoef(after, ranks[2])[0, 1] - np.corrcoef(before, ranks[2])[0, 1])
    assert found == pytest.approx(np.sort(by_hand))


def test_no_country_is_the_best_where_too_few_questions_are_asked() -> None:
    (table,) = best_aligned([MODEL.iloc[:9]], TRUTH, ITEMS)
    assert len(table) == 9 and table["best"].isna().all()
    assert [len(found) for found in influence([MODEL.iloc[:9], MODEL], TRUTH, ITEMS, top=2)] == [0, 18]


def test_best_aligned_shares_a_row_among_its_countries() -> None:
    (table,) = best_aligned([MODEL], TRUTH, ITEMS, resamples=400)
    assert table.groupby("language")["best"].sum().tolist() == pytest.approx([1, 1, 1])
    assert cell(table, "de", "DEU")["best"] > 0.95


def test_influence_is_the_correlation_without_the_question() -> None:
    (table,) = influence([MODEL], TRUTH, ITEMS, top=2)
    assert len(table) == 18
    for row in table.itertuples():
        kept = MODEL.index != row.question
        expected = stats.spearmanr(MODEL.loc[kept, row.language], TRUTH.loc[kept, row.country]).statistic
        assert row.without == pytest.approx(expected, abs=1e-9)
    first, second = table["difference"].abs().to_numpy()[:2]
    assert first >= second


def test_resamples_of_a_full_table_are_drawn_hundreds_at_a_time() -> None:
    """Neither one by one, which takes minutes, nor all at once, which takes gigabytes."""
    x, y = RNG.random((2, 241, 13))
    statistic, drawn = spearman(x, y), []

    def counted(weights: np.ndarray) -> np.ndarray:
        drawn.append(len(weights))
        return statistic(weights)

    draws = resampled(counted, bootstrap_weights(np.arange(241) // 5, 1_000))
    assert draws.shape == (1_000, 13, 13)
    assert 100 <= min(drawn) <= max(drawn) <= 1_000 / 2


def test_the_alignment_of_many_models_is_that_of_each_alone() -> None:
    asked = list(ITEMS)[:90]
    rng = np.random.default_rng(3)
    truth = pd.DataFrame(rng.random((90, 4)), asked, ["DEU", "IRN", "KOR", "ROU"])
    models = [pd.DataFrame(rng.random((90, 2)), asked, ["de", "fa"]) for _ in range(3)]
    models[1] = models[1].iloc[:50]
    draws = bootstrap_weights(batteries(asked, ITEMS), 200)
    for model, table in zip(models, each_alignment(models, truth, ITEMS), strict=True):
        pd.testing.assert_frame_equal(table, alignment(model, truth, ITEMS), rtol=1e-9)
    for model, table in zip(models, best_aligned(models, truth, ITEMS, resamples=200), strict=True):
        assert table.equals(best_aligned([model], truth, ITEMS, resamples=200)[0])
        if len(model) == len(asked):
            values = spearman(model.to_numpy(), truth.to_numpy())(draws)
            shares = (values.argmax(axis=2)[:, :, None] == np.arange(4)).mean(axis=0)
            assert table["best"].tolist() == shares.ravel().tolist()
