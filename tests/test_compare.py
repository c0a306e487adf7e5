"""`valueshift compare` on simulated answers: its tables against scipy, scikit-learn and counts by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA
from valueshift.analysis.bootstrap import batteries
from valueshift.analysis.profiles import profile
from valueshift.cli.comparison import print_comparison
from valueshift.core.digests import digest
from valueshift.core.languages import LANGUAGES
from valueshift.core.probes import probe_set, probes_digest
from valueshift.core.records import read_record, read_table
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.core.shown import NO_INTERVAL
from valueshift.core.surveys import survey_truth
from valueshift.harness_ext.comparison import compare
from valueshift.harness_ext.results import ProbeRun

ITEMS = probe_set("wvs").items
PAPER = [question for question, item in ITEMS.items() if item.paper]
LANGUAGES_ASKED = ("de", "fa", "ko", "tr", "vi")
TABLES = {"kept", "kept_cat", "flipped", "similarity", "structure", "mean_dissimilarity", "direction", "parallelism"}


def run(name: str, odds: pd.DataFrame, name_of_set: str = "wvs", model: str | None = None) -> ProbeRun:
    """A probe run from log-odds of the first option: index question, columns language; NaN was not asked."""
    rows: list[dict[str, object]] = []
    for language in odds.columns:
        for question, value in odds[language].dropna().items():
            rows.append(
                {"probe_set": name_of_set, "language": language, "question": question}
                | {"category": ITEMS[str(question)].category, "logprob_first": value - 9, "logprob_second": -9.0}
                | {"p_first": p_first(value, 0.0), "answer": answer(value, 0.0)}
            )
    inputs = {"model": digest(model or name), "probe_set": name_of_set, "probes": dict.fromkeys(odds.columns, name)}
    inputs |= {"format": "causal", "dtype": "float32"}
    return ProbeRun(name, inputs, {"model": name}, scores_frame(rows))


def log_odds(seed: int, questions: list[str] = PAPER, languages: tuple[str, ...] = LANGUAGES_ASKED) -> pd.DataFrame:
    drawn = np.random.default_rng(seed).normal(size=(len(questions), len(languages)))
    return pd.DataFrame(drawn, index=questions, columns=list(languages))


def towards_the_people(odds: pd.DataFrame) -> pd.DataFrame:
    """Log-odds that become those of each language's own country where it was surveyed."""
    truth, moved = survey_truth().profile, odds.copy()
    for language in odds.columns:
        share = truth[LANGUAGES[language].country].reindex(odds.index).clip(0.01, 0.99)
        moved[language] = odds[language] * 0.3 + np.log(share / (1 - share)).fillna(odds[language] * 0.7)
    return moved


BASE = log_odds(0)
TUNED = towards_the_people(BASE)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, pd.DataFrame]]:
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("runs")
    patch.setenv("VALUESHIFT_CACHE", str(root / "cache"))  # the packaged survey, whatever this machine has imported
    folder, tables = compare(run("base", BASE), run("tuned", TUNED), root)
    patch.undo()
    return folder, tables


@pytest.fixture(autouse=True)
def _packaged_survey(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))


def p(odds: pd.DataFrame) -> pd.DataFrame:
    return 1 / (1 + np.exp(-odds))


def test_the_record_holds_the_tables_that_are_returned(compared: tuple[Path, dict[str, pd.DataFrame]]) -> None:
    folder, tables = compared
    record = read_record(folder)
    assert set(record.tables) == set(tables) == TABLES | {"alignment_change"}
    for name, table in tables.items():
        pd.testing.assert_frame_equal(read_table(folder, name), table, check_dtype=False)
    assert record.inputs["survey"] == record.settings["survey"]["digest"]


def test_the_change_in_alignment_is_the_difference_of_two_spearman_correlations(
    compared: tuple[Path, dict[str, pd.DataFrame]],
) -> None:
    folder, tables = compared
    truth, changes = survey_truth().profile, tables["alignment_change"]
    assert len(changes) == len(LANGUAGES_ASKED) ** 2
    for row in changes.itertuples():
        shares = truth[str(row.country)].reindex(PAPER).dropna()
        before, after = (
            stats.spearmanr(p(odds)[row.language][shares.index], shares).statistic for odds in (BASE, TUNED)
        )
        assert (row.base, row.tuned, row.change) == pytest.approx((before, after, after - before), abs=1e-12)
        assert row.n == len(shares)
        assert row.low <= row.change <= row.high
    assert changes["adjusted"].to_numpy() == pytest.approx(stats.false_discovery_control(changes["p"]))
    own = changes[changes["country"] == changes["language"].map(lambda code: LANGUAGES[code].country)]
    assert (own["low"] > 0).all()
    assert (own["adjusted"] < 0.05).all()
    metrics = read_record(folder).metrics
    assert {name: value for name, value in metrics.items() if name.startswith("rho_change/")} == {
        f"rho_change/{row.language}.{row.country}": row.change for row in own.itertuples()
    }


def test_similarity_is_the_correlation_of_cosine_dissimilarities(
    compared: tuple[Path, dict[str, pd.DataFrame]],
) -> None:
    folder, tables = compared
    before, after = (pdist(p(odds).T.to_numpy(), "cosine") for odds in (BASE, TUNED))
    structure = tables["structure"]
    found = [structure.loc[structure["model"] == model, "dissimilarity"].to_numpy() for model in ("base", "tuned")]
    assert found[0] == pytest.approx(before)
    assert found[1] == pytest.approx(after)
    (row,) = tables["similarity"].itertuples()
    assert row.spearman == pytest.approx(stats.spearmanr(before, after).statistic)
    assert (row.profiles, row.pairs, row.n, row.reason) == (5, 10, len(PAPER), "")
    assert 0 < row.p <= 1
    means = tables["mean_dissimilarity"].set_index("model")
    assert means.loc["base", "dissimilarity"] == pytest.approx(before.mean())
    assert means.loc["tuned", "change"] == pytest.approx(after.mean() - before.mean())
    metrics = read_record(folder).metrics
    assert metrics["dissimilarity/tuned"] == means.loc["tuned", "dissimilarity"]
    assert metrics["similarity"] == row.spearman


def test_direction_is_the_plane_of_two_principal_components_of_both_models(
    compared: tuple[Path, dict[str, pd.DataFrame]],
) -> None:
    folder, tables = compared
    stacked = np.concatenate([p(odds).T.to_numpy() for odds in (BASE, TUNED)])
    fitted = PCA(2, svd_solver="full").fit(stacked)
    direction = tables["direction"]
    assert list(zip(direction["model"], direction["language"], strict=True)) == [
        (model, language) for model in ("base", "tuned") for language in LANGUAGES_ASKED
    ]
    expected = fitted.transform(stacked)
    for axis, column in enumerate(("x", "y")):
        coordinates = direction[column].to_numpy()
        assert np.abs(coordinates @ expected[:, axis]) == pytest.approx((expected[:, axis] ** 2).sum())
        assert np.linalg.norm(coordinates) == pytest.approx(np.linalg.norm(expected[:, axis]))
        assert direction[f"explained_{column}"].unique() == pytest.approx(fitted.explained_variance_ratio_[axis])
    change = (p(TUNED) - p(BASE)).T.to_numpy()
    (row,) = tables["parallelism"].itertuples()
    assert row.cosine == pytest.approx((1 - pdist(change, "cosine")).mean())
    assert read_record(folder).metrics["parallelism"] == row.cosine


def test_the_overview_counts_all_languages_together(compared: tuple[Path, dict[str, pd.DataFrame]]) -> None:
    folder, tables = compared
    kept = ((BASE > 0) == (TUNED > 0)).to_numpy()
    metrics = read_record(folder).metrics
    assert metrics["kept"] == pytest.approx(kept.mean())
    assert metrics["shifted"] == (~kept).sum() == len(tables["flipped"])
    assert len(metrics) <= 60


def test_a_run_compared_with_itself_has_not_moved(tmp_path: Path) -> None:
    folder, tables = compare(run("base", BASE), run("base", BASE), tmp_path)
    assert (tables["kept"]["unchanged"] == 1).all()
    assert tables["alignment_change"]["change"].to_numpy() == pytest.approx(0)
    assert (tables["alignment_change"]["p"] == 1).all()
    assert tables["similarity"]["spearman"].iloc[0] == pytest.approx(1)
    assert tables["parallelism"]["reason"].iloc[0] == "fewer than two languages changed"
    points = tables["direction"].set_index(["model", "language"])[["x", "y"]]
    assert points.loc["base"].to_numpy() == pytest.approx(points.loc["tuned"].to_numpy())
    assert "parallelism" not in read_record(folder).metrics


# What cannot be compared is said


def test_a_language_that_one_run_lacks_is_named_and_left_out(tmp_path: Path) -> None:
    folder, tables = compare(run("base", BASE), run("tuned", TUNED.drop(columns="fa")), tmp_path)
    assert "Only the base run was asked in fa; there is nothing to compare." in read_record(folder).notes
    kept = tables["kept"].set_index("language")
    assert kept.loc["fa", "reason"] == "asked of one model only"
    changes = tables["alignment_change"].set_index(["language", "country"])
    assert set(changes.loc["fa", "reason"]) == {"fewer than 10 common questions"}
    assert changes.loc["fa", "change"].isna().all()
    assert changes.drop(index="fa")["change"].notna().all()
    assert tables["similarity"]["profiles"].iloc[0] == 4
    assert "fa" not in set(tables["direction"]["language"])
    assert not any(".IRN" in name for name in read_record(folder).metrics)


def test_three_languages_have_no_structure(tmp_path: Path) -> None:
    three = ["de", "fa", "ko"]
    _, tables = compare(run("base", BASE[three]), run("tuned", TUNED[three]), tmp_path)
    (row,) = tables["similarity"].itertuples()
    assert row.reason == "fewer than 4 common profiles"
    assert np.isnan(row.spearman)
    assert len(tables["structure"]) == 6


def test_one_language_leaves_what_needs_several_out_and_says_so(tmp_path: Path) -> None:
    folder, tables = compare(run("base", BASE[["de"]]), run("tuned", TUNED[["de"]]), tmp_path)
    assert set(tables) == {"kept", "kept_cat", "flipped", "alignment_change", "similarity", "parallelism"}
    notes = read_record(folder).notes
    for name in ("structure", "mean_dissimilarity", "direction"):
        assert any(note.startswith(f"No table {name}: ") for note in notes)


@pytest.mark.parametrize("few", [1, 9])
def test_fewer_than_ten_common_questions_carry_no_statistic(tmp_path: Path, few: int) -> None:
    surveyed = [question for question in survey_truth().profile.index if question in PAPER]
    folder, tables = compare(run("base", BASE), run("tuned", TUNED.loc[surveyed[:few]]), tmp_path)
    for name in ("kept", "alignment_change", "similarity", "mean_dissimilarity", "parallelism"):
        assert set(tables[name]["reason"]) == {"fewer than 10 common questions"}, name
    assert tables["structure"]["dissimilarity"].isna().all()
    record = read_record(folder)
    assert f"No table direction: only {few} questions are answered in every profile" in " ".join(record.notes)
    left_out = (len(PAPER) - few) * len(LANGUAGES_ASKED)
    assert f"{left_out} questions of shared languages were asked in one run only and are left out." in record.notes
    assert not [name for name in record.metrics if name.startswith(("kept/", "rho_change/", "dissimilarity/"))]


def test_runs_of_one_language_and_no_common_question(tmp_path: Path) -> None:
    folder, tables = compare(run("base", BASE.iloc[:100]), run("tuned", TUNED.iloc[100:]), tmp_path)
    assert set(tables["kept"]["reason"]) == {"asked of one model only"}
    assert not {"similarity", "parallelism", "direction", "mean_dissimilarity"} & set(tables)
    assert len(tables["flipped"]) == 0
    assert read_record(folder).metrics == {}
    print_comparison("base", "tuned", tables, read_record(folder).notes)


def test_the_printed_tables_say_what_the_record_holds(
    compared: tuple[Path, dict[str, pd.DataFrame]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, tables = compared
    print_comparison("base", "tuned", tables, read_record(folder).notes)
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines()]
    cells = {row[1].strip(): [cell.strip() for cell in row[2:-1]] for row in lines if len(row) > 2}
    (change,) = tables["alignment_change"].query("language == 'fa' and country == 'IRN'").itertuples()
    assert [row[3].strip() for row in lines if len(row) == 10 and row[1].strip() == "fa"] == [f"{change.base:+.2f}"]
    (similarity,) = tables["similarity"].itertuples()
    assert cells["similarity structures alike, Spearman"][0] == f"{similarity.spearman:+.3f}"
    point = tables["direction"].query("model == 'tuned' and language == 'fa'").iloc[0]
    assert cells["fa"][1] == f"{point['x']:+.2f}, {point['y']:+.2f}"


def test_a_survey_without_common_questions_is_said(tmp_path: Path) -> None:
    unsurveyed = [question for question in PAPER if question not in survey_truth().profile.index]
    odds = log_odds(1, unsurveyed)
    folder, tables = compare(run("base", odds), run("tuned", -odds), tmp_path)
    assert set(tables) == TABLES
    assert "No table alignment_change: the profiles and the survey share no question" in " ".join(
        read_record(folder).notes
    )


def test_a_constant_profile_has_no_correlation(tmp_path: Path) -> None:
    flat = TUNED.assign(de=0.5)
    folder, tables = compare(run("base", BASE), run("tuned", flat), tmp_path)
    changes = tables["alignment_change"].set_index("language")
    assert set(changes.loc["de", "reason"]) == {"constant profile"}
    assert changes.loc["de", "change"].isna().all()
    assert changes.drop(index="de")["change"].notna().all()
    assert "rho_change/de.DEU" not in read_record(folder).metrics


def test_two_models_that_answer_everything_alike(tmp_path: Path) -> None:
    flat = pd.DataFrame(0.5, index=PAPER, columns=LANGUAGES_ASKED)
    folder, tables = compare(run("base", flat), run("tuned", flat), tmp_path)
    assert tables["similarity"]["reason"].iloc[0] == "all pairs equally dissimilar"
    assert tables["mean_dissimilarity"]["dissimilarity"].to_numpy() == pytest.approx(0, abs=1e-12)
    assert set(tables["alignment_change"]["reason"]) == {"constant profile"}
    record = read_record(folder)
    assert "No table direction: all profiles are the same, so that there is no plane" in " ".join(record.notes)
    assert {"kept/de", "dissimilarity/base"} <= set(record.metrics)


def test_two_wordings_of_one_model_are_joined_by_question(tmp_path: Path) -> None:
    second = run("model, second wording", BASE + 0.1 * log_odds(2), "wvs_arora", model="base")
    folder, tables = compare(run("base", BASE), second, tmp_path)
    assert set(tables) == TABLES | {"alignment_change", "ceiling"}
    assert read_record(folder).inputs["runs"]["tuned"] == digest(second.inputs)
    reliability = stats.spearmanr(p(BASE)["de"], profile(second.scores)["de"]).statistic
    assert tables["ceiling"].set_index("language").loc["de", "reliability"] == pytest.approx(reliability)


def test_answers_are_read_as_both_records_are(tmp_path: Path) -> None:
    runs = [
        replace(one, scores=one.scores.assign(tokens_first=10, tokens_second=11), settings={"reading": "token_mean"})
        for one in (run("base", BASE), run("tuned", TUNED))
    ]
    _, tables = compare(*runs, tmp_path)
    before, after = (one.scores["logprob_first"] / 10 - one.scores["logprob_second"] / 11 > 0 for one in runs)
    assert len(tables["flipped"]) == (before != after).sum() > 0
    mixed, tables = compare(runs[0], replace(runs[1], settings={}), tmp_path)
    assert len(tables["flipped"]) == ((BASE > 0) != (TUNED > 0)).to_numpy().sum()
    assert "The runs are read as token_mean and sum; here both are read as sum." in read_record(mixed).notes


# What flipped, in its own words


def asked_as_packaged(one: ProbeRun) -> ProbeRun:
    """The run with the digests of the probes that are packaged, as far as it asked them."""
    digests = {}
    for language, rows in one.scores.groupby("language", sort=False):
        here = {probe.question: probe for probe in probe_set("wvs").probes(str(language))}
        digests[str(language)] = probes_digest(here[question] for question in rows["question"])
    return replace(one, inputs=one.inputs | {"probes": digests})


def test_flipped_answers_stand_in_their_statements(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [asked_as_packaged(run(name, odds[["de", "fa"]])) for name, odds in (("base", BASE), ("tuned", TUNED))]
    folder, tables = compare(*runs, tmp_path)
    flips = read_table(folder, "flipped")
    assert len(flips) == len(tables["flipped"]) > 10
    probes = {(code, one.question): one for code in ("de", "fa") for one in probe_set("wvs").probes(code)}
    for row in flips.itertuples():
        asked = probes[str(row.language), str(row.question)]
        assert (row.statement_base, row.statement_tuned) == (
            asked.filled(row.answer_base),
            asked.filled(row.answer_tuned),
        )
    print_comparison("base", "tuned", tables, ())
    printed = capsys.readouterr().out
    largest = flips.assign(by=(flips["p_first_tuned"] - flips["p_first_base"]).abs()).nlargest(10, "by")
    for row in largest.itertuples():
        assert f"    base   {row.statement_base}\n    tuned  {row.statement_tuned}\n" in printed


def test_a_wording_that_is_not_here_is_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = run("tuned", TUNED)  # of other probes, as its digests say
    own = [one.model_copy(update={"text": "Eigen: [MASK]."}) for one in probe_set("wvs").probes("de")]
    _, tables = compare(replace(run("base", BASE), asked=own), theirs, tmp_path)
    flips = tables["flipped"].set_index("language")
    assert flips["statement_tuned"].isna().all() and flips["statement_base"].drop("de").isna().all()
    assert flips.loc["de", "statement_base"].str.startswith("Eigen: ").all()
    print_comparison("base", "tuned", tables, ())
    assert "    tuned  second\n" in capsys.readouterr().out


def test_what_carries_no_interval_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = batteries_of(2)
    folder, tables = compare(run("base", BASE.loc[two]), run("tuned", TUNED.loc[two]), tmp_path)
    assert tables["mean_dissimilarity"]["dissimilarity"].notna().all()
    assert tables["mean_dissimilarity"]["low"].isna().all()
    print_comparison("base", "tuned", tables, read_record(folder).notes)
    printed = capsys.readouterr().out
    assert "nan" not in printed and NO_INTERVAL in printed


def batteries_of(number: int) -> list[str]:
    """The questions of the largest batteries: too few of these, however many questions, carry no interval."""
    groups = batteries(PAPER, ITEMS)
    largest = np.argsort(-np.bincount(groups))[:number]
    return [question for question, group in zip(PAPER, groups, strict=True) if group in largest]
