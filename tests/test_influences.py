"""Statistics of attribution rankings: examples by hand, and their level where the ranking knows nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from valueshift.analysis.influences import (
    Attributed,
    cross_test_overlap,
    language_shares,
    overlaps,
    parallel_overlap,
    stability,
)
from valueshift.core.errors import ValueshiftError

LANGUAGES = ("fa", "ko", "hi", "ru")


def training(ids: int, languages: tuple[str, ...] = LANGUAGES) -> pd.DataFrame:
    """Parallel sentences 0 to ids - 1 in each language."""
    rows = [(f"pbc:{language}:v.{number}", language) for number in range(ids) for language in languages]
    return pd.DataFrame(rows, columns=["example", "language"])


def influence(lists: dict[tuple[str, str, str], list[str]]) -> pd.DataFrame:
    """The table of (test language, question, side) to examples."""
    rows = [
        (*key, rank, example, example.split(":")[1])
        for key, examples in lists.items()
        for rank, example in enumerate(examples, start=1)
    ]
    return pd.DataFrame(rows, columns=["language", "question", "side", "rank", "example", "train_language"])


def attributed(lists: dict[tuple[str, str], list[str]], answers: dict[tuple[str, str], str], train: pd.DataFrame):
    queries = pd.DataFrame(
        [(*key, answers.get(key, "first")) for key in lists], columns=["language", "question", "answer_tuned"]
    )
    table = influence({(*key, "top"): examples for key, examples in lists.items()})
    return Attributed(queries, table, train)


def drawn(rng: np.random.Generator, train: pd.DataFrame, probes: int, k: int, alike: float = 0.0) -> pd.DataFrame:
    """Top and bottom lists of one test language; `alike` is how much of the score all probes have in common."""
    common = rng.normal(size=len(train))
    lists = {}
    for probe in range(probes):
        order = np.argsort(np.sqrt(alike) * common + np.sqrt(1 - alike) * rng.normal(size=len(train)))
        examples = train["example"].to_numpy()[order]
        lists["tr", f"Q{probe}", "top"] = examples[:k].tolist()
        lists["tr", f"Q{probe}", "bottom"] = examples[::-1][:k].tolist()
    return influence(lists)


def test_shares_base_rates_and_odds_are_those_counted_by_hand():
    train = pd.concat([training(10, ("fa",)), training(30, ("ko",))])
    lists = {
        ("tr", "Q1", "top"): [f"pbc:fa:v.{n}" for n in (0, 1, 2)] + ["pbc:ko:v.0"],
        ("tr", "Q2", "top"): ["pbc:fa:v.3"] + [f"pbc:ko:v.{n}" for n in (1, 2, 3)],
        ("tr", "Q3", "top"): ["pbc:fa:v.0", "pbc:fa:v.1", "pbc:ko:v.4", "pbc:ko:v.5"],
        ("tr", "Q1", "bottom"): [f"pbc:ko:v.{n}" for n in (0, 1, 2, 3)],
    }
    table = language_shares(influence(lists), train, permutations=99).set_index(["side", "train_language"])
    assert table.loc[("top", "fa"), "share"] == pytest.approx(6 / 12)
    assert table.loc[("top", "fa"), "base_rate"] == pytest.approx(10 / 40)
    assert table.loc[("top", "fa"), "odds_ratio"] == pytest.approx(1 / (1 / 3))
    assert table.loc[("top", "ko"), "odds_ratio"] == pytest.approx(1 / 3)
    assert table.loc[("bottom", "ko"), "share"] == 1 and np.isinf(table.loc[("bottom", "ko"), "odds_ratio"])
    assert table.loc["top", "n"].tolist() == [3, 3] and table.loc["bottom", "n"].tolist() == [1, 1]
    assert table.loc["top", "low"].notna().all() and table.loc["bottom", "low"].isna().all()


def test_p_of_one_probe_is_the_hypergeometric_one():
    train = pd.concat([training(6, ("fa",)), training(14, ("ko",))])
    top = [f"pbc:fa:v.{n}" for n in range(4)] + ["pbc:ko:v.0"]
    table = language_shares(influence({("tr", "Q1", "top"): top}), train, permutations=40_000)
    # expected 1.5 of 5: two-sided mid-p of 4, with 5 and none (1.5 away, so nearer) on the other side
    exact = stats.hypergeom.pmf(4, 20, 6, 5) / 2 + stats.hypergeom.pmf(5, 20, 6, 5)
    assert table["p"][0] == pytest.approx(exact, abs=0.002)
    assert table["p"][1] == pytest.approx(table["p"][0]), "with two languages one share is the other's rest"


def test_a_model_of_one_language_has_nothing_to_say():
    train = training(30, ("fa",))
    table = language_shares(drawn(np.random.default_rng(0), train, 5, 10), train, permutations=99)
    assert (table["share"] == 1).all() and (table["base_rate"] == 1).all() and (table["p"] == 1).all()
    assert table["odds_ratio"].isna().all()


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_the_null_is_rejected_at_its_level_however_alike_the_lists_are(alike):
    rng, train = np.random.default_rng(1), training(60)
    p = np.concatenate(
        [
            language_shares(drawn(rng, train, 12, 24, alike), train, permutations=199, seed=n)["p"][::4]
            for n in range(200)
        ]
    )
    assert 0.02 <= (p <= 0.05).mean() <= 0.08  # 400 tests of one language: .05 with a standard error of .011


def test_the_interval_covers_the_share_that_probes_have_on_average():
    rng, train = np.random.default_rng(2), training(60)
    is_fa = (train["language"] == "fa").to_numpy()
    covered = []
    for _ in range(300):
        lists = {}
        for probe in range(20):  # probes differ in how much they prefer fa; their mean share is .4
            k_fa = int(rng.binomial(30, rng.beta(4, 6)))
            chosen = [
                *rng.choice(train["example"][is_fa], k_fa, replace=False),
                *rng.choice(train["example"][~is_fa], 30 - k_fa, replace=False),
            ]
            lists["tr", f"Q{probe}", "top"] = chosen
        row = language_shares(influence(lists), train, permutations=1).set_index("train_language").loc["fa"]
        covered.append(row["low"] <= 0.4 <= row["high"])
    assert 0.92 <= np.mean(covered) <= 0.98


def test_adjusted_values_are_of_the_whole_table():
    rng, train = np.random.default_rng(3), training(40)
    table = language_shares(drawn(rng, train, 6, 20), train, permutations=499)
    np.testing.assert_allclose(table["adjusted"], stats.false_discovery_control(table["p"]))


def test_unknown_examples_and_empty_tables_are_refused():
    train = training(5)
    with pytest.raises(ValueshiftError, match=r"pbc:fa:v\.7 is not among the training examples"):
        language_shares(influence({("tr", "Q1", "top"): ["pbc:fa:v.7"]}), train)
    with pytest.raises(ValueshiftError, match="no probe shifted"):
        language_shares(influence({}), train)
    with pytest.raises(ValueshiftError, match="two models or more"):
        parallel_overlap({"fa": attributed({}, {}, train)})


def test_parallel_overlap_counts_translations_of_the_same_question_and_new_answer():
    def of(language: str, *numbers: int) -> list[str]:
        return [f"pbc:{language}:v.{number}" for number in numbers]

    fa = attributed(
        {("tr", "Q1"): of("fa", 0, 1, 2, 3), ("tr", "Q2"): of("fa", 4, 5, 6, 7), ("de", "Q1"): of("fa", 0, 1, 8, 9)},
        {("tr", "Q2"): "second"},
        training(20, ("fa",)),
    )
    ko = attributed(
        {("tr", "Q1"): of("ko", 3, 0, 8, 9), ("tr", "Q2"): of("ko", 4, 5, 6, 7), ("de", "Q1"): of("ko", 0, 1, 8, 7)},
        {},
        training(20, ("ko",)),
    )
    table = parallel_overlap({"fa": fa, "ko": ko})
    assert table["first"].tolist() == ["fa", "all"] and table["second"].tolist() == ["ko", "all"]
    row = table.iloc[0]
    assert row["n"] == 2, "Q2 in tr took another answer"
    assert row["overlap"] == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert row["maximum"] == 0.75
    assert row["chance"] == pytest.approx(4 / 20)
    assert np.isnan(row["low"]), "both pairs of lists are of one question, so one cluster"


def test_chance_counts_only_sentences_that_both_have():
    rng = np.random.default_rng(4)
    train = {"fa": training(40, ("fa",)), "ko": training(60, ("ko",))}
    models = {}
    for name, table in train.items():
        lists = {("tr", f"Q{n}"): rng.choice(table["example"], 10, replace=False).tolist() for n in range(800)}
        models[name] = attributed(lists, {}, table)
    row = parallel_overlap(models).iloc[0]
    assert row["chance"] == pytest.approx(10 * 40 / (40 * 60))
    assert row["low"] <= row["chance"] <= row["high"] and row["high"] - row["low"] < 0.03


def test_cross_test_overlap_is_of_the_same_examples_for_questions_that_shifted_in_both():
    def of(*numbers: int) -> list[str]:
        return [f"pbc:fa:v.{number}" for number in numbers]

    lists = {
        ("tr", "Q1"): of(0, 1, 2, 3),
        ("tr", "Q2"): of(4, 5, 6, 7),
        ("de", "Q1"): of(3, 2, 8, 9),
        ("de", "Q2"): of(4, 5, 6, 7),
        ("id", "Q3"): of(4, 5, 6, 7),
    }
    table = cross_test_overlap(attributed(lists, {}, training(20, ("fa",)))).set_index(["first", "second"])
    assert table.loc[("tr", "de"), ["overlap", "maximum", "n"]].tolist() == [0.75, 1.0, 2]
    assert table.loc[("tr", "id"), "n"] == 0 and np.isnan(table.loc[("tr", "id"), "overlap"])
    assert table.loc[("all", "all"), ["overlap", "n"]].tolist() == [0.75, 2]
    assert table.loc[("all", "all"), "chance"] == pytest.approx(4 / 20)


def test_cross_test_overlap_of_random_lists_is_chance():
    rng, train = np.random.default_rng(5), training(100, ("fa",))
    lists = {
        (language, f"Q{n}"): rng.choice(train["example"], 20, replace=False).tolist()
        for language in ("tr", "de", "id")
        for n in range(150)
    }
    pooled = cross_test_overlap(attributed(lists, {}, train)).iloc[-1]
    assert pooled["n"] == 450 and pooled["chance"] == pytest.approx(0.2)
    assert pooled["low"] <= 0.2 <= pooled["high"] and pooled["high"] - pooled["low"] < 0.03


@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 10_000))
def test_overlaps_are_those_of_sets(queries, k, seed):
    rng = np.random.default_rng(seed)
    first, second = (np.stack([rng.permutation(20)[:k] for _ in range(queries)]) for _ in range(2))
    expected = [len(set(a) & set(b)) / k for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(overlaps(first, second), expected)
    np.testing.assert_allclose(overlaps(first, first), 1)


def test_stability_is_the_mean_over_pairs_of_rankings():
    lists = np.array([[[0, 1, 2, 3]], [[3, 2, 1, 9]], [[0, 1, 8, 9]]])
    np.testing.assert_allclose(stability(lists), [(3 / 4 + 2 / 4 + 2 / 4) / 3])
    assert np.isnan(stability(lists[:1])).all()


def test_stability_of_random_rankings_is_k_over_n():
    rng = np.random.default_rng(6)
    lists = np.stack([np.stack([rng.permutation(50)[:10] for _ in range(400)]) for _ in range(3)])
    assert stability(lists).mean() == pytest.approx(0.2, abs=0.01)
