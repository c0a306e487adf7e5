"""Resampling, intervals and randomisation tests against direct computation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cosine as cosine_distance
from valueshift.analysis import intervals
from valueshift.analysis.bootstrap import bootstrap_weights, left_out, mean, resampled
from valueshift.analysis.correlations import cosine, pearson, spearman, weighted_ranks
from valueshift.analysis.significance import adjusted, battery_sums, randomised_p, sign_flip_p, signs

GROUPS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5])
RNG = np.random.default_rng(7)
X, Y = RNG.random((12, 3)), RNG.random((12, 2))


def test_bootstrap_draws_whole_batteries() -> None:
    weights = bootstrap_weights(GROUPS, 500, seed=3)
    assert (weights[:, 0] == weights[:, 3]).all() and (weights[:, 4] == weights[:, 6]).all()
    drawn = weights[:, [0, 4, 7, 9, 10, 11]]
    assert (drawn.sum(axis=1) == 6).all()
    assert drawn.mean() == pytest.approx(1)
    assert (weights == bootstrap_weights(GROUPS, 500, seed=3)).all()


def test_resampled_means_spread_as_theory_says() -> None:
    values = RNG.normal(size=400)
    draws = resampled(mean(values), bootstrap_weights(np.arange(400), 4_000))
    assert draws.std() == pytest.approx(values.std() / 20, rel=0.05)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=4, max_size=25).filter(
        lambda rows: len({x for x, _, w in rows if w}) > 1 and len({y for _, y, w in rows if w}) > 1
    )
)
@settings(max_examples=200, deadline=None)
def test_weighted_correlations_are_those_of_the_questions_written_out(rows: list[tuple[int, int, int]]) -> None:
    x, y, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    written_x, written_y = (np.repeat(values, weights.astype(int)) for values in (x, y))
    columns = x[:, None], y[:, None]
    expected = stats.spearmanr(written_x, written_y).statistic, stats.pearsonr(written_x, written_y).statistic
    assert spearman(*columns)(weights[None])[0, 0, 0] == pytest.approx(expected[0], abs=1e-9)
    assert pearson(*columns)(weights[None])[0, 0, 0] == pytest.approx(expected[1], abs=1e-9)


def test_ranks_of_equal_weights_are_midranks() -> None:
    values = np.array([[3.0], [1.0], [3.0], [2.0]])
    ranks = weighted_ranks(values)(np.ones((1, 4)))[0, 0] + 0.5
    assert ranks.tolist() == stats.rankdata(values[:, 0]).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_constant_profiles_have_no_correlation() -> None:
    flat = np.full((12, 1), 0.3)
    for weights in (np.ones((1, 12)), left_out(GROUPS)):
        assert np.isnan(spearman(flat, Y)(weights)).all()
        assert np.isnan(pearson(flat, Y)(weights)).all()


def test_cosine_is_scipys() -> None:
    table = cosine(X, Y)(np.ones((1, 12)))[0]
    assert table[2, 1] == pytest.approx(1 - cosine_distance(X[:, 2], Y[:, 1]))


def test_standard_error_of_a_mean_is_the_formula_by_hand() -> None:
    values = X[:, 0]
    value, error, freedom = intervals.standard_error(mean(values), GROUPS)
    residuals = battery_sums(values - values.mean(), GROUPS)
    sizes = np.array([4, 3, 2, 1, 1, 1])
    assert value == pytest.approx(values.mean())
    assert error == pytest.approx(np.sqrt(((residuals / (12 - sizes)) ** 2).sum()), rel=1e-4)
    assert freedom == pytest.approx(144 / 32)


def test_independent_questions_give_the_textbook_errors() -> None:
    x, y = RNG.normal(size=(2, 1_500, 1))
    _, low, high = intervals.symmetric(mean(x[:, 0]), np.arange(1_500))
    assert high - low == pytest.approx(2 * 1.96 * x.std() / np.sqrt(1_500), rel=0.01)
    _, low, high = intervals.correlation(spearman(x, y), np.arange(1_500))
    assert np.arctanh(high) - np.arctanh(low) == pytest.approx(2 * 1.96 / np.sqrt(1_500), rel=0.05)


def test_share_of_independent_questions_is_wilsons() -> None:
    hits = np.arange(2_000) < 1_700
    estimate = intervals.share(hits, np.arange(2_000))
    expected = stats.binomtest(1_700, 2_000).proportion_ci(method="wilson")
    assert (estimate.value, estimate.n) == (0.85, 2_000)
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=2e-4)


@pytest.mark.parametrize("hits", [0, 40])
def test_share_of_none_or_all_still_has_an_interval(hits: int) -> None:
    estimate = intervals.share(np.arange(40) < hits, np.repeat(np.arange(8), 5))
    assert 0.1 < estimate.high - estimate.low < 0.15
    assert min(estimate.low, 1 - estimate.high) == pytest.approx(0, abs=1e-12)


def test_two_batteries_carry_no_interval() -> None:
    estimate = intervals.share(np.arange(20) < 12, np.repeat([0, 1], 10))
    assert estimate.value == 0.6 and np.isnan([estimate.low, estimate.high]).all()


def test_few_groups_are_turned_in_every_way() -> None:
    assert sorted(map(tuple, signs(4))) == sorted(itertools.product((-1.0, 1.0), repeat=4))
    many = signs(30, flips=200, seed=1)
    assert many.shape == (201, 30) and (many[0] == 1).all() and set(np.unique(many)) == {-1.0, 1.0}


def test_sign_flip_p_is_the_share_of_all_turns_by_hand() -> None:
    sums = np.array([3.0, 1.0, 1.0, -1.0])  # of the 16 turns two have a total of 6 or -6, six one of 4 or -4
    totals = [abs(np.dot(turn, sums)) for turn in itertools.product((-1, 1), repeat=4)]
    assert (totals.count(6), totals.count(4)) == (2, 6)
    p = sign_flip_p(np.repeat(sums / 2, 2), np.repeat(np.arange(4), 2))
    assert p == pytest.approx((2 + 6 / 2) / 16)


def test_sign_flip_p_of_single_questions_is_scipys_permutation_test() -> None:
    values = RNG.normal(0.3, 1, size=12)
    expected = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip_p(values, np.arange(12)) == pytest.approx(expected.pvalue - 1 / 2**12)


def test_nothing_observed_has_p_one() -> None:
    assert sign_flip_p(np.zeros((12, 2)), GROUPS).tolist() == [1, 1]


def test_undefined_statistics_have_no_p() -> None:
    assert np.isnan(randomised_p(np.array([[np.nan], [1.0]])))[0]


def test_adjusted_is_benjamini_hochberg_by_hand() -> None:
    assert adjusted(np.array([0.01, np.nan, 0.04, 0.03, 0.5])) == pytest.approx(
        [0.04, np.nan, 0.04 * 4 / 3, 0.04 * 4 / 3, 0.5], nan_ok=True
    )
    assert np.isnan(adjusted(np.array([np.nan, np.nan]))).all()


def test_a_perfect_correlation_has_no_width() -> None:
    value, low, high = intervals.correlation(spearman(X, X), GROUPS)
    assert np.diag(value) == pytest.approx([1, 1, 1])
    assert np.diag(low) == pytest.approx([1, 1, 1]) and np.diag(high) == pytest.approx([1, 1, 1])


def test_a_statistic_without_a_derivative_leaves_whole_batteries_out() -> None:
    values, groups = X[:, 0], np.repeat(np.arange(4), 3)
    _, error, freedom = intervals.standard_error(mean(values), groups, smooth=False)
    left = np.array([values[groups != group].mean() for group in range(4)])
    assert error == pytest.approx(np.sqrt(((left - values.mean()) ** 2).sum()))
    assert error == pytest.approx(intervals.standard_error(mean(values), groups)[1], rel=1e-4)
    assert freedom == 3
