"""Statistics over several runs, placebo runs, wordings and readings, against examples by hand."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit
from valueshift.analysis.placebo import among_placebos, changes_among_placebos, unchanged_among_placebos
from valueshift.analysis.profiles import profile
from valueshift.analysis.readings import READINGS, available, read, readings_agree
from valueshift.analysis.shifts import agreement, unchanged, unchanged_difference
from valueshift.analysis.sources import category_consistency, spread, unique_shifts
from valueshift.analysis.wordings import noise_ceiling, survey_reliability
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import TASKS
from valueshift.core.probes import read_items
from valueshift.core.scores import answer, p_first, scores_frame

ITEMS = {name: item for name, item in read_items(TASKS / "wvs" / "items.csv").items() if item.paper}
QUESTIONS = list(ITEMS)[::4][:40]
RNG = np.random.default_rng(9)


def scores(odds: dict[str, np.ndarray], probe_set: str = "wvs") -> pd.DataFrame:
    """Scores of the forty questions with these log-odds of the first option."""
    return scores_frame(
        [
            {
                "probe_set": probe_set,
                "language": language,
                "question": question,
                "category": ITEMS[question].category,
                "logprob_first": value - 9,
                "logprob_second": -9.0,
                "closing_first": -1.0 - place % 3,
                "closing_second": -1.5,
                "neutral_first": -4.0 - place % 2,
                "neutral_second": -5.0,
                "tokens_first": 1 + place % 2,
                "tokens_second": 2,
                "bytes_first": 5 + place,
                "bytes_second": 7,
                "p_first": p_first(value, 0.0),
                "answer": answer(value, 0.0),
            }
            for language, values in odds.items()
            for place, (question, value) in enumerate(zip(QUESTIONS, values, strict=True))
        ]
    )


def flipped(values: np.ndarray, places: range) -> np.ndarray:
    """The same log-odds with the answers of some questions turned round."""
    result = values.copy()
    result[list(places)] *= -1
    return result


ODDS = {"de": RNG.normal(size=40), "fa": RNG.normal(size=40)}
BASE = scores(ODDS)


def tuned(de: range, fa: range) -> pd.DataFrame:
    return scores({"de": flipped(ODDS["de"], de), "fa": flipped(ODDS["fa"], fa)})


def test_agreement_of_every_pair_of_models() -> None:
    models = {"base": BASE, "x": tuned(range(10), range(0)), "y": tuned(range(20), range(20))}
    table = agreement(models, ITEMS).set_index(["first", "second"])
    assert table["agreement"].to_dict() == {("base", "x"): 70 / 80, ("base", "y"): 40 / 80, ("x", "y"): 50 / 80}
    by_language = agreement(models, ITEMS, by="language").set_index(["first", "second", "language"])
    assert by_language.loc[("x", "y", "de"), "agreement"] == 30 / 40
    with pytest.raises(ValueshiftError, match="two or more"):
        agreement({"base": BASE}, ITEMS)


def test_a_category_of_few_questions_has_its_share() -> None:
    table = unchanged(BASE, tuned(range(10), range(0)), ITEMS, by=["language", "category"])
    assert table["n"].min() < 10 and (table["reason"] == "").all()
    assert table.groupby("language")["n"].sum().to_dict() == {"de": 40, "fa": 40}


def test_unique_shifts_counted_by_hand() -> None:
    models = {"ko": tuned(range(10), range(0)), "hi": tuned(range(5, 20), range(0)), "ru": tuned(range(0), range(0))}
    table = unique_shifts(BASE, models, ITEMS).set_index("language")
    assert table.loc["de", ["unique", "shifted", "n", "dropped"]].tolist() == [15 / 20, 20, 40, 0]
    assert table.loc["de", "low"] < 0.75 < table.loc["de", "high"]
    assert table.loc["fa", "reason"] == "no question shifted" and np.isnan(table.loc["fa", "unique"])
    assert table.loc["mean", "unique"] == 0.75


def test_unique_shifts_average_over_test_languages_and_drop_what_one_model_lacks() -> None:
    lacking = tuned(range(5, 20), range(8))
    lacking = lacking[~((lacking["language"] == "de") & lacking["question"].isin(QUESTIONS[:5]))]
    table = unique_shifts(BASE, {"ko": tuned(range(10), range(4)), "hi": lacking}, ITEMS).set_index("language")
    assert table.loc["de", ["unique", "shifted", "n", "dropped"]].tolist() == [10 / 15, 15, 35, 5]
    assert table.loc["fa", "unique"] == 0.5
    assert table.loc["mean", "unique"] == pytest.approx((10 / 15 + 0.5) / 2)
    with pytest.raises(ValueshiftError, match="two tuned models"):
        unique_shifts(BASE, {"ko": BASE}, ITEMS)


def test_difference_of_unchanged_shares_is_paired() -> None:
    table = unchanged_difference(BASE, tuned(range(20), range(4)), tuned(range(2), range(4)), ITEMS).set_index(
        "language"
    )
    assert table.loc["de", ["first", "second", "difference"]].tolist() == pytest.approx([0.5, 0.95, 0.45])
    assert table.loc["de", "low"] < 0.45 < table.loc["de", "high"] and table.loc["de", "p"] < 0.05
    assert table.loc["fa", ["difference", "low", "high"]].abs().max() < 1e-9 and table.loc["fa", "p"] == 1
    assert table["adjusted"].tolist() == pytest.approx(stats.false_discovery_control(table["p"]))


def shares() -> pd.DataFrame:
    cells = pd.MultiIndex.from_product(
        [["pbc", "tanzil"], ["fa", "ko"], [1, 2], ["de", "fa", "ko", "tr", "vi"]],
        names=["source", "tuning_language", "category", "language"],
    )
    return pd.DataFrame({"unchanged": RNG.random(len(cells))}, index=cells).reset_index()


def test_category_consistency_averages_before_and_after() -> None:
    table = shares()
    found = category_consistency(table, "pbc", "tanzil").set_index(["category", "averaging"])
    wide = table[table["category"] == 2].pivot(
        index="language", columns=["source", "tuning_language"], values="unchanged"
    )
    before = stats.pearsonr(wide["pbc"].mean(axis=1), wide["tanzil"].mean(axis=1)).statistic
    after = np.mean([stats.pearsonr(wide["pbc", name], wide["tanzil", name]).statistic for name in ("fa", "ko")])
    assert found.loc[(2, "before"), "pearson"] == pytest.approx(before)
    assert found.loc[(2, "after"), "pearson"] == pytest.approx(after)
    assert (found["low"] < found["pearson"]).all() and (found["pearson"] < found["high"]).all()
    assert (found["n"] == 5).all()


def test_category_consistency_says_what_it_lacks() -> None:
    table = shares()
    few = category_consistency(table[table["language"].isin(["de", "fa", "ko"])], "pbc", "tanzil")
    assert (few["reason"] == "fewer than 4 common test languages").all() and few["pearson"].isna().all()
    apart = table[(table["source"] == "pbc") == (table["tuning_language"] == "fa")]
    assert (category_consistency(apart, "pbc", "tanzil")["reason"] == "no common fine-tuning language").all()
    with pytest.raises(ValueshiftError, match="source 'news' is not among pbc, tanzil"):
        category_consistency(table, "pbc", "news")
    with pytest.raises(ValueshiftError, match="average over seeds first"):
        category_consistency(pd.concat([table, table]), "pbc", "tanzil")


def test_spread_over_seeds() -> None:
    runs = pd.DataFrame({"language": ["de", "de", "de", "fa"], "unchanged": [0.6, 0.7, 0.8, 0.5]})
    table = spread(runs, "unchanged", ["language"]).set_index("language")
    assert table.loc["de"].tolist() == pytest.approx([0.7, 0.1, 0.6, 0.8, 3])
    assert np.isnan(table.loc["fa", "deviation"])
    with pytest.raises(ValueshiftError, match="no column seed"):
        spread(runs, "unchanged", ["seed"])


def test_place_among_placebos_by_hand() -> None:
    placebos = np.array([[1.0], [2.0], [3.0], [4.0], [5.0]])
    row = among_placebos(np.array([9.0]), placebos).iloc[0]
    assert row[["placebo_mean", "placebo_deviation", "rank", "rank_p"]].tolist() == pytest.approx(
        [3, 2.5**0.5, 1, 1 / 6]
    )
    z = 6 / (2.5**0.5 * 1.2**0.5)
    assert row["z"] == pytest.approx(z) and row["p"] == pytest.approx(2 * stats.t.sf(z, 4))
    middle = among_placebos(np.array([3.0]), placebos).iloc[0]
    assert (middle["rank"], middle["z"]) == (6, 0)
    four = among_placebos(np.array([9.0]), placebos[:4]).iloc[0]
    assert four["rank_p"] == 0.2 and np.isnan(four[["z", "p"]].astype(float)).all()
    with pytest.raises(ValueshiftError, match="at least one"):
        among_placebos(np.array([9.0]), np.empty((0, 1)))


def test_changes_among_placebos_are_in_log_odds() -> None:
    runs = [scores({name: values + RNG.normal(0, 0.1, 40) for name, values in ODDS.items()}) for _ in range(6)]
    moved = scores({"de": ODDS["de"] + 5, "fa": ODDS["fa"]})
    table = changes_among_placebos(BASE, moved, runs, ITEMS)
    german = table[table["language"] == "de"]
    assert len(table) == 80 and german["change"].to_numpy() == pytest.approx(np.full(40, 5.0))
    assert (german["rank"] == 1).all() and (german["adjusted"] < 0.001).all()
    assert (german["shifted"].to_numpy() == (ODDS["de"] < 0)).all()
    assert table[table["language"] == "fa"]["change"].abs().max() < 1e-9
    stayed, *placebos = (unchanged(BASE, run, ITEMS, "language") for run in (moved, *runs))
    kept = unchanged_among_placebos(stayed, placebos).set_index("language")
    assert kept.loc["de", "unchanged"] == (ODDS["de"] > 0).mean() and kept.loc["de", "rank"] == 1


def test_noise_ceiling_is_the_root_of_the_reliabilities() -> None:
    other = scores({name: values + RNG.normal(0, 0.8, 40) for name, values in ODDS.items()}, "wvs_arora")
    first, second = profile(BASE), profile(other)
    row = noise_ceiling(first, second, ITEMS, survey_reliability=0.81).set_index("language").loc["de"]
    reliability = stats.spearmanr(first["de"], second["de"]).statistic
    assert row["reliability"] == pytest.approx(reliability, abs=1e-9)
    assert row["ceiling"] == pytest.approx(0.9 * reliability**0.5)
    assert row["ceiling_low"] < row["ceiling"] < row["ceiling_high"]
    assert row["same"] == ((first["de"] > 0.5) == (second["de"] > 0.5)).mean()
    few = noise_ceiling(first.iloc[:9], second, ITEMS).set_index("language").loc["de"]
    assert (few["n"], few["dropped"], few["reason"]) == (9, 31, "fewer than 10 common questions")
    assert noise_ceiling(first.assign(de=0.3), second, ITEMS).loc[0, "reason"] == "constant profile"


def test_survey_reliability_recovers_sampling_noise() -> None:
    truth = RNG.beta(2, 2, size=4_000)
    sample = RNG.binomial(50, truth) / 50
    names = [f"q{place}" for place in range(4_000)]
    found = survey_reliability(pd.Series(sample, names), pd.Series(50, names))
    assert found == pytest.approx(np.corrcoef(truth, sample)[0, 1] ** 2, abs=0.01)


def test_sum_is_what_the_scores_already_say() -> None:
    table = read(BASE, "sum", ITEMS)
    assert table["p_first"].to_numpy() == pytest.approx(BASE["p_first"].to_numpy())
    assert table["answer"].tolist() == BASE["answer"].tolist()


@given(st.lists(st.floats(-800, 800), min_size=40, max_size=40))
@settings(max_examples=25, deadline=None)
def test_readings_are_their_formulas(odds: list[float]) -> None:
    table = scores({"de": np.array(odds)})
    first, second = table["logprob_first"], table["logprob_second"]
    by_hand = {
        "token_mean": first / table["tokens_first"] - second / table["tokens_second"],
        "byte_mean": first / table["bytes_first"] - second / table["bytes_second"],
        "closed": first + table["closing_first"] - second - table["closing_second"],
        "dcpmi": first - table["neutral_first"] - second + table["neutral_second"],
    }
    for name, expected in by_hand.items():
        found = read(table, name, ITEMS)
        assert found["p_first"].to_numpy() == pytest.approx(expit(expected.to_numpy(dtype=float)))
        signs = np.sign(expected.to_numpy(dtype=float))
        assert found["answer"].fillna("tie").tolist() == [{1: "first", -1: "second", 0: "tie"}[sign] for sign in signs]


def test_calibration_takes_away_what_a_battery_prefers() -> None:
    table = read(BASE, "calibrated", ITEMS)
    battery = [name for name in QUESTIONS if (ITEMS[name].category, ITEMS[name].first_pole) == (3, "trust")]
    assert len(battery) >= 5
    german = BASE[BASE["language"] == "de"].set_index("question").loc[battery, "p_first"]
    expected = german / german.mean() / (german / german.mean() + (1 - german) / (1 - german).mean())
    found = table[table["language"] == "de"].set_index("question").loc[battery, "p_first"]
    assert found.to_numpy() == pytest.approx(expected.to_numpy())
    assert len(table) < len(BASE)


def test_a_reading_without_its_columns_is_refused_and_not_available() -> None:
    bare = BASE.assign(closing_first=np.nan, neutral_second=np.nan)
    assert available(bare) == ["sum", "token_mean", "byte_mean", "calibrated"]
    with pytest.raises(ValueshiftError, match="needs closing_first"):
        read(bare, "closed", ITEMS)
    with pytest.raises(ValueshiftError, match="unknown reading 'mean'"):
        read(bare, "mean", ITEMS)


def test_share_of_questions_on_which_readings_agree() -> None:
    names = ["sum", "token_mean", "closed"]
    table = readings_agree(BASE, ITEMS, names).set_index(["language", "reading"])
    answers = np.array([read(BASE, name, ITEMS)["answer"][:40] == "first" for name in names])
    assert table.loc[("de", "all"), "agree"] == (answers == answers[0]).all(axis=0).mean()
    assert table.loc[("de", "closed"), "agree"] == (answers[2] == answers[0]).mean()
    assert table.loc[("de", "all"), ["n", "dropped"]].tolist() == [40, 0]
    with pytest.raises(ValueshiftError, match="two readings"):
        readings_agree(BASE, ITEMS, ["sum"])


def test_a_readings_name_is_its_repr() -> None:
    assert [repr(reading) for reading in READINGS.values()] == list(READINGS)
    assert READINGS["sum"] == READINGS["sum"] and len(set(READINGS.values())) == 6
