"""Similarity structure and direction against scipy, scikit-learn and examples by hand."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import pdist, squareform
from sklearn.decomposition import PCA
from valueshift.analysis.direction import parallelism, plane
from valueshift.analysis.profiles import spoken
from valueshift.analysis.similarity import dissimilarity, mantel, mean_dissimilarity, structure
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.core.probes import read_items

ITEMS = {name: item for name, item in read_items(TASKS / "wvs" / "items.csv").items() if item.paper}
LANGUAGES = ["de", "fa", "ko", "tr", "vi", "ro"]
RNG = np.random.default_rng(5)


def profiles(spread: float = 1.0, like: pd.DataFrame | None = None) -> pd.DataFrame:
    """Random profiles on eighty questions; with `like`, that table moved by a random amount of size `spread`."""
    names = list(ITEMS)[::2][:80]
    values = RNG.random((80, len(LANGUAGES)))
    if like is not None:
        values = (like.to_numpy() + spread * (values - 0.5)).clip(0, 1)
    return pd.DataFrame(values, index=names, columns=LANGUAGES)


BASE = profiles()
NEAR, FAR = profiles(0.2, BASE), profiles(1.5, BASE)


def test_dissimilarity_is_scipys_cosine_distance() -> None:
    expected = squareform(pdist(BASE.T, "cosine"))
    assert dissimilarity(BASE).to_numpy() == pytest.approx(expected, abs=1e-12)


def test_dissimilarity_of_a_pair_is_over_its_common_questions() -> None:
    lacking = BASE.copy()
    lacking.iloc[:20, 0] = np.nan
    lacking.iloc[9:, 1] = np.nan
    table = dissimilarity(lacking)
    assert table.loc["de", "ko"] == pytest.approx(pdist(BASE.iloc[20:, [0, 2]].T, "cosine")[0])
    assert np.isnan(table.loc["de", "fa"]) and np.isnan(table.loc["ko", "fa"])


def test_structure_is_spearman_between_upper_triangles() -> None:
    found = structure(BASE, NEAR, ITEMS)
    expected = stats.spearmanr(pdist(BASE.T, "cosine"), pdist(NEAR.T, "cosine")).statistic
    assert found["spearman"] == pytest.approx(expected)
    assert found["low"] < expected < found["high"]
    assert (found["profiles"], found["pairs"], found["n"], found["reason"]) == (6, 15, 80, "")
    assert found["p"] < 0.01 < structure(BASE, profiles(), ITEMS)["p"]


def test_mantel_p_counts_every_order_by_hand() -> None:
    first, second = (squareform(pdist(table.T, "cosine")) for table in (BASE, FAR))
    upper = np.triu_indices(6, 1)
    observed = abs(stats.spearmanr(first[upper], second[upper]).statistic)
    orders = [list(order) for order in itertools.permutations(range(6))]
    sizes = [abs(stats.spearmanr(first[upper], second[np.ix_(order, order)][upper]).statistic) for order in orders]
    larger, as_large = (np.mean([size > observed + margin for size in sizes]) for margin in (1e-9, -1e-9))
    assert mantel(first, second) == pytest.approx((larger + as_large) / 2)


def test_mantel_with_many_profiles_samples_orders() -> None:
    tables = [squareform(RNG.random(45)) for _ in range(2)]
    assert mantel(tables[0], tables[0]) == pytest.approx(1 / 10_000)
    assert mantel(*tables, seed=1) == pytest.approx(mantel(*tables, seed=2), abs=0.02)


def test_structures_that_cannot_be_compared_say_why() -> None:
    few = structure(BASE[["de", "fa", "ko"]], NEAR, ITEMS)
    assert (few["profiles"], few["reason"]) == (3, "fewer than 4 common profiles")
    short = structure(BASE.iloc[:9], NEAR, ITEMS)
    assert (short["n"], short["dropped"], short["reason"]) == (9, 71, "fewer than 10 common questions")
    assert np.isnan([few["spearman"], short["p"]]).all()


def test_mean_dissimilarity_averages_models_and_compares_with_the_first_kind() -> None:
    table = mean_dissimilarity({"base": [BASE], "mono": [NEAR, FAR], "same": [BASE]}, ITEMS).set_index("model")
    expected = np.mean([pdist(NEAR.T, "cosine").mean(), pdist(FAR.T, "cosine").mean()])
    assert table.loc["mono", "dissimilarity"] == pytest.approx(expected)
    assert table.loc["mono", "change"] == pytest.approx(expected - pdist(BASE.T, "cosine").mean())
    assert table.loc["same", ["change", "change_low", "change_high"]].abs().max() < 1e-9
    assert (table["low"] < table["dissimilarity"]).all() and (table["dissimilarity"] < table["high"]).all()
    assert table["models"].tolist() == [1, 2, 1] and (table["n"] == 80).all()


def test_mean_dissimilarity_needs_two_common_languages() -> None:
    with pytest.raises(ValueshiftError, match="fewer than two languages"):
        mean_dissimilarity({"base": [BASE], "tuned": [BASE[["de"]]]}, ITEMS)


def test_plane_is_scikit_learns_pca_up_to_sign() -> None:
    found = plane({"base": BASE, "tuned": NEAR}, ITEMS)
    fitted = PCA(2)
    expected = fitted.fit_transform(pd.concat([BASE, NEAR], axis=1).T)
    assert np.abs(found.points[["x", "y"]]).to_numpy() == pytest.approx(np.abs(expected), abs=1e-8)
    assert found.explained == pytest.approx(tuple(fitted.explained_variance_ratio_))
    assert found.points["model"].tolist() == ["base"] * 6 + ["tuned"] * 6
    assert (found.n, found.dropped) == (80, 0)


def test_plane_leaves_out_questions_that_one_profile_lacks() -> None:
    lacking = NEAR.copy()
    lacking.iloc[:4, 2] = np.nan
    found = plane({"base": BASE, "tuned": lacking}, ITEMS)
    assert (found.n, found.dropped) == (76, 4)
    with pytest.raises(ValueshiftError, match="only 5 questions"):
        plane({"base": BASE, "tuned": NEAR.iloc[:5]}, ITEMS)
    with pytest.raises(ValueshiftError, match="at least three profiles"):
        plane({"base": BASE[["de", "fa"]]}, ITEMS)


def test_languages_that_move_alike_are_parallel() -> None:
    step = RNG.normal(size=(80, 1))
    found = parallelism(BASE, BASE + step * np.array([0.5, 1, 2, 0.1, 1, 0]), ITEMS)
    assert found["cosine"] == pytest.approx(1)
    assert found["languages"] == 5
    opposite = parallelism(BASE[["de", "fa"]], BASE[["de", "fa"]] + step * np.array([1, -1]), ITEMS)
    assert opposite["cosine"] == pytest.approx(-1)
    random = parallelism(BASE, BASE + RNG.normal(size=(80, 6)), ITEMS)
    assert random["low"] < 0 < random["high"]
    assert parallelism(BASE, BASE, ITEMS)["reason"] == "fewer than two languages changed"


def test_survey_columns_by_language() -> None:
    truth = pd.DataFrame({"DEU": [0.1], "PAK": [0.2], "USA": [0.3]}, index=["Q1"])
    assert spoken(truth, ["ur", "ko", "de"]).loc["Q1"].to_dict() == {"ur": 0.2, "de": 0.1}
