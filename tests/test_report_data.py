"""The data side of the report: records joined into a study, and every exhibit's numbers against analysis itself."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from valueshift.analysis.alignment import alignment, alignment_change, influence
from valueshift.analysis.bootstrap import batteries, bootstrap_weights
from valueshift.analysis.direction import parallelism, plane
from valueshift.analysis.influences import Attributed, cross_test_overlap, language_shares, parallel_overlap
from valueshift.analysis.placebo import changes_among_placebos, unchanged_among_placebos
from valueshift.analysis.profiles import profile, spoken
from valueshift.analysis.shifts import agreement, unchanged, unchanged_difference
from valueshift.analysis.significance import adjusted
from valueshift.analysis.similarity import dissimilarities, dissimilarity, mean_dissimilarity, structure
from valueshift.analysis.sources import category_consistency, unique_shifts
from valueshift.analysis.wordings import noise_ceiling
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import Item, read_items, registry_folder
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.core.surveys import survey_truth
from valueshift.tracking.report import noise, people, shifts, theirs
from valueshift.tracking.report.arms import Arm, Study
from valueshift.tracking.report.exhibit import Exhibit
from valueshift.tracking.report.exhibits import exhibits
from valueshift.tracking.report.study import collect

LANGUAGES = ("de", "fa", "ko", "ro")


def registry(name: str = "wvs") -> dict[str, Item]:
    return read_items(registry_folder(name) / "items.csv")


def odds(seed: int, languages: Sequence[str] = LANGUAGES) -> dict[tuple[str, str], float]:
    """Log-odds of the first option by language and question, as a model might answer."""
    generator = np.random.default_rng(seed)
    return {(code, question): float(generator.normal(0, 1.5)) for code in languages for question in registry()}


def moved(start: Mapping[tuple[str, str], float], seed: int, far: float) -> dict[tuple[str, str], float]:
    """The same after some noise."""
    generator = np.random.default_rng(seed)
    return {key: value + float(generator.normal(0, far)) for key, value in start.items()}


def scores(answers: Mapping[tuple[str, str], float], name: str = "wvs") -> pd.DataFrame:
    items = registry(name)
    rows = []
    for (code, question), value in answers.items():
        first, second = value / 2 - 3, -value / 2 - 3
        rows.append(
            {"probe_set": name, "language": code, "question": question, "category": items[question].category}
            | {"logprob_first": first, "logprob_second": second, "tokens_first": 1, "tokens_second": 1}
            | {"p_first": p_first(first, second), "answer": answer(first, second)}
        )
    return scores_frame(rows)


def probed(
    root: Path, model: str, answers: Mapping[tuple[str, str], float], named: str | None = None, **inputs: Any
) -> Path:
    """A probe record; `model` stands for the digest."""
    name = inputs.pop("probe_set", "wvs")
    reading = inputs.pop("reading", "sum")
    codes = list(dict.fromkeys(code for code, _ in answers))
    asked = {"format": "encoder-decoder", "dtype": "float32", "probes": dict.fromkeys(codes, "0")} | inputs
    settings = {"model": named or f"models/{model}", "reading": reading}
    return write_record(
        root,
        "probe",
        {"model": model, "probe_set": name, **asked},
        {"scores": scores(answers, name)},
        settings=settings,
    )


def tuned(
    root: Path,
    base: str,
    made: str,
    languages: Sequence[str] = ("fa",),
    *,
    source: str = "pbc",
    corpus: str = "",
    **inputs: Any,
) -> Path:
    """A finetune record: `base` trained to `made`."""
    stated = {
        "size": 2000,
        "seed": 0,
        "placebo": False,
        "lora": None,
        "epochs": 5,
        "learning_rate": 5e-5,
        "batch_size": 8,
    } | inputs
    examples = pd.DataFrame(
        {
            "example": [f"{source}:{code}:{n}" for code in languages for n in range(40)],
            "language": [code for code in languages for _ in range(40)],
            "split": ["train", "train", "train", "dev"] * (10 * len(languages)),
        }
    )
    return write_record(
        root,
        "finetune",
        {"model": base, "corpus": {"name": source, "digest": "0"}, "languages": list(languages), **stated},
        {"examples": examples},
        settings={
            "model": f"models/{base}",
            "corpus": corpus or source,
            "checkpoint": f"checkpoints/{made}",
            "checkpoint_digest": made,
        },
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pretrained models; of the first, 2 languages x 2 sources x 2 seeds, one of 10,000, a multilingual and 5 placebos."""
    root = tmp_path_factory.mktemp("runs")
    start, other = odds(0), odds(1)
    probed(root, "small", start)
    probed(root, "large", other)
    seeds = iter(range(10, 100))
    for source in ("pbc", "tanzil"):
        for code in ("fa", "ko"):
            for seed in (0, 1):
                name = f"{source}-{code}-{seed}"
                tuned(root, "small", name, [code], source=source, seed=seed)
                probed(root, name, moved(start, next(seeds), 1.0))
    for name, languages, inputs in (
        ("many", ["fa"], {"size": 10_000}),
        ("multi", ["fa", "ko"], {}),
        *((f"placebo-{seed}", ["fa"], {"placebo": True, "seed": seed}) for seed in range(5)),
    ):
        tuned(root, "small", name, languages, **inputs)
        probed(root, name, moved(start, next(seeds), 0.3))
    tuned(root, "large", "large-fa", ["fa"])
    probed(root, "large-fa", moved(other, next(seeds), 1.0))
    return root


@pytest.fixture(scope="module")
def study(root: Path) -> Study:
    return collect([root])


@pytest.fixture(scope="module")
def made(study: Study) -> dict[str, Exhibit]:
    return {exhibit.name: exhibit for exhibit in exhibits(study)}


def arm_of(study: Study, name: str) -> Arm:
    (arm,) = (arm for arm in study.arms if arm.tuned.name == name)
    return arm


def rows_of(exhibit: Exhibit, arm: Arm) -> pd.DataFrame:
    return exhibit.table[exhibit.table["run"] == arm.tuned.run].reset_index(drop=True)


def same(left: pd.DataFrame, right: pd.DataFrame, columns: Sequence[str]) -> None:
    """Equal values in these columns, row by row."""
    pd.testing.assert_frame_equal(
        left[list(columns)].reset_index(drop=True), right[list(columns)].reset_index(drop=True), check_dtype=False
    )


class TestCollect:
    def test_runs_are_joined_by_digest(self, study: Study) -> None:
        assert [model.name for model in study.pretrained] == ["small", "large"]
        assert len(study.arms) == 16
        assert study.notes == ()
        arm = arm_of(study, "multi")
        assert arm.base is study.pretrained[0]
        assert arm.cells == {
            "model": "small",
            "source": "pbc",
            "tuning": "fa+ko",
            "size": 2000,
            "training": "5 epochs, lr 5e-05",
            "seed": 0,
            "placebo": False,
            "run": arm.tuned.run,
        }
        assert arm.runs[0].startswith("probe-") and arm.runs[1].startswith("finetune-")
        assert sum(arm.placebo for arm in study.arms) == 5

    def test_source_and_training_by_name(self, tmp_path: Path) -> None:
        probed(tmp_path, "base", odds(0))
        tuned(tmp_path, "base", "a", source="fa", corpus="toy/other/fa.parquet", epochs=1, batch_size=16, lora={"r": 8})
        tuned(tmp_path, "base", "b", source="news", corpus="texts/news.parquet", learning_rate=0.001)
        for seed, name in enumerate("ab"):
            probed(tmp_path, name, odds(seed + 1))
        named = {arm.tuned.name: (arm.source, arm.training) for arm in collect([tmp_path]).arms}
        assert named == {"a": ("other", "1 epoch, lr 5e-05, batch 16, LoRA"), "b": ("news", "5 epochs, lr 0.001")}

    def test_a_folder_and_its_records_are_the_same(self, root: Path, study: Study) -> None:
        again = collect([*sorted(root.iterdir()), root])
        assert [arm.cells for arm in again.arms] == [arm.cells for arm in study.arms]

    def test_records_in_different_languages_are_one_model(self, tmp_path: Path) -> None:
        answers = odds(0)
        for code in LANGUAGES:
            probed(tmp_path, "m", {key: value for key, value in answers.items() if key[0] == code})
        (model,) = collect([tmp_path]).pretrained
        pd.testing.assert_frame_equal(model.profile, profile(scores(answers)), check_dtype=False, check_names=False)
        assert len(model.records) == 4

    def test_other_questions_are_joined_and_said(self, tmp_path: Path) -> None:
        answers = odds(0)
        probed(tmp_path, "base", answers)
        tuned(tmp_path, "base", "made")
        probed(tmp_path, "made", dict(list(moved(answers, 1, 1.0).items())[:-30]))
        study = collect([tmp_path])
        assert study.notes == (
            "Fine-tuned models that were asked other questions than their base: 1 of 1. Answers are joined by "
            "question, and what one side lacks is counted as dropped.",
        )
        assert shifts.unchanged(study).table.set_index("language").loc["ro", "dropped"] > 20

    def test_other_surveys_are_kept_apart_and_other_wordings_give_the_ceiling(self, tmp_path: Path) -> None:
        answers = odds(0)
        for model in ("a", "b"):
            probed(tmp_path, model, answers)
        probed(tmp_path, "a", moved(answers, 1, 1.0), probe_set="wvs_arora")
        hofstede = {("de", question): 1.0 for question in registry("hofstede_arora")}
        probed(tmp_path, "c", hofstede, probe_set="hofstede_arora")
        study = collect([tmp_path])
        assert study.probe_set == "wvs"
        assert [model.name for model in study.pretrained] == ["a", "b"]
        assert study.notes == (
            "1 record of probe set wvs_arora, another wording of wvs: used for the noise ceiling only.",
            "1 record of probe set hofstede_arora left out: report its records on their own.",
            "Taken as pretrained, since no finetune record among the runs made them: a, b.",
        )
        first, again = study.wordings[0]
        expected = noise_ceiling(first.profile, again.profile, study.items)
        same(people.ceiling(study).table, expected, ["language", "reliability", "low", "ceiling", "same", "n"])

    def test_readings_that_differ_are_read_as_the_papers(self, tmp_path: Path) -> None:
        probed(tmp_path, "a", odds(0))
        probed(tmp_path, "b", odds(1), reading="token_mean")
        study = collect([tmp_path])
        assert study.notes[0] == "The records are read as sum and token_mean; here all answers are read as sum."

    def test_the_same_model_in_two_dtypes_is_not_mixed(self, tmp_path: Path) -> None:
        probed(tmp_path, "a", odds(0))
        probed(tmp_path, "b", odds(1))
        probed(tmp_path, "b", odds(2), dtype="bfloat16")
        study = collect([tmp_path])
        assert study.pretrained[1].profile.loc["Q1", "de"] == pytest.approx(profile(scores(odds(1))).loc["Q1", "de"])
        assert "b is taken as asked in encoder-decoder and float32" in study.notes[0]

    def test_what_was_not_probed_is_said(self, tmp_path: Path) -> None:
        probed(tmp_path, "made", odds(0))
        tuned(tmp_path, "base", "made")
        tuned(tmp_path, "made", "again")
        study = collect([tmp_path])
        assert not study.arms
        assert study.notes == (
            "Fine-tuned models that were not probed: 1. Run `valueshift probe checkpoints/again`.",
            "Fine-tuned models whose base was not probed: 1. Run `valueshift probe models/base`.",
        )

    def test_names_are_unique(self, tmp_path: Path) -> None:
        for digest, named in (("1", "google/mt5-small"), ("2", "a/base"), ("3", "b/base"), ("4", "b/base")):
            probed(tmp_path, digest, odds(int(digest)), named=named)
        names = {model.digest: model.name for model in collect([tmp_path]).pretrained}
        assert names == {"1": "mt5-small", "2": "a/base", "3": "b/base (3)", "4": "b/base (4)"}

    def test_refusals(self, tmp_path: Path) -> None:
        with pytest.raises(ValueshiftError, match="no record.json"):
            collect([tmp_path])
        tuned(tmp_path, "base", "made")
        with pytest.raises(ValueshiftError, match="holds no probe record; run `valueshift probe MODEL` first"):
            collect([tmp_path])
        record = probed(tmp_path, "a", odds(0)) / "record.json"
        record.write_text(record.read_text().replace('"schema_version": 1', '"schema_version": 9'))
        with pytest.raises(ValueshiftError, match="schema 9"):
            collect([tmp_path])
        record.write_text("{")
        with pytest.raises(ValueshiftError, match="is damaged"):
            collect([tmp_path])

    @pytest.mark.parametrize(
        "text", ["", "checkpoint,question,p_first\nbase,Q1,1\n", "checkpoint,language,question,p_first\nb,de,Q1,x\n"]
    )
    def test_a_plant_that_is_none(self, tmp_path: Path, text: str) -> None:
        probed(tmp_path, "a", odds(0))
        (tmp_path / "truth.csv").write_text(text)
        with pytest.raises(ValueshiftError, match="truth.csv"):
            collect([tmp_path])


class TestShifts:
    def test_every_exhibit_is_named_once_and_says_what_is_missing(self, made: dict[str, Exhibit]) -> None:
        assert len(made) == 25
        absent = {name for name, exhibit in made.items() if exhibit.table.empty}
        assert absent == {"language_share", "parallel_overlap", "cross_test_overlap", "ceiling", "planted"}
        for name, exhibit in made.items():
            assert exhibit.missing if name in absent else exhibit.caption, name
        assert "run `valueshift attribute" in made["cross_test_overlap"].missing
        assert "--paraphrase" in made["ceiling"].missing
        assert "truth.csv" in made["planted"].missing

    def test_estimates_have_interval_and_n(self, made: dict[str, Exhibit]) -> None:
        plain = {"spread", "survey_plane", "direction", "influence", "placebo_shifts", "paper"}
        for name, exhibit in made.items():
            if name not in plain and not exhibit.table.empty:
                assert {"low", "high", "n"} <= set(exhibit.table.columns), name
            if "p" in exhibit.table.columns:
                np.testing.assert_array_equal(exhibit.table["adjusted"], adjusted(exhibit.table["p"]))

    def test_agreement_of_pretrained_and_of_tuned(self, study: Study, made: dict[str, Exhibit]) -> None:
        table = made["agreement"].table
        small, large = (model.scores for model in study.pretrained)
        before = table[table["stage"] == "pretrained"]
        assert before["language"].tolist() == ["all", *LANGUAGES]
        expected = agreement({"small": small, "large": large}, study.items)
        same(before.head(1), expected, ["first", "second", "agreement", "low", "high", "n"])
        after = table[(table["stage"] == "fine-tuned") & (table["language"] == "all")]
        tuned = {"small": arm_of(study, "pbc-fa-0").tuned.scores, "large": arm_of(study, "large-fa").tuned.scores}
        same(after, agreement(tuned, study.items), ["first", "second", "agreement", "low", "high", "n"])
        assert after[["source", "tuning", "size"]].to_numpy().tolist() == [["pbc", "fa", 2000]]

    def test_unchanged(self, study: Study, made: dict[str, Exhibit]) -> None:
        for name in ("pbc-ko-1", "placebo-3", "multi"):
            arm = arm_of(study, name)
            rows = rows_of(made["unchanged"], arm)
            columns = ["unchanged", "low", "high", "plain_low", "n", "ties", "dropped"]
            same(rows.head(1), unchanged(arm.base.scores, arm.tuned.scores, study.items, ()), columns)
            same(rows.tail(-1), unchanged(arm.base.scores, arm.tuned.scores, study.items), ["language", *columns])
            by_category = unchanged(arm.base.scores, arm.tuned.scores, study.items, "category")
            same(rows_of(made["unchanged_category"], arm), by_category, ["category", "unchanged", "low", "n", "reason"])
        assert set(made["unchanged_category"].table["category_name"]) <= {
            one.category_name for one in study.items.values()
        }
        assert set(made["unchanged"].runs) == {run for arm in study.arms for run in arm.runs}

    def test_spread_over_seeds_by_hand(self, made: dict[str, Exhibit]) -> None:
        table = made["unchanged"].table
        cell = table[(table["source"] == "pbc") & (table["tuning"] == "ko") & (table["language"] == "de")]["unchanged"]
        found = made["spread"].table
        (row,) = found[
            (found["over"] == "seeds")
            & (found["source"] == "pbc")
            & (found["tuning"] == "ko")
            & (found["language"] == "de")
        ].to_dict("records")
        assert row["replicates"] == 2
        assert row["mean"] == pytest.approx(sum(cell) / 2)
        assert row["deviation"] == pytest.approx(abs(cell.iloc[0] - cell.iloc[1]) / 2**0.5)
        languages = found[found["over"] == "fine-tuning languages"]
        assert set(languages["replicates"]) == {2}
        assert set(languages["seed"]) == {0, 1}

    def test_consistency_is_of_seeds_averaged_and_placebos_left_out(
        self, study: Study, made: dict[str, Exhibit]
    ) -> None:
        shares = pd.concat(
            unchanged(arm.base.scores, arm.tuned.scores, study.items, ("language", "category")).assign(
                source=arm.source, tuning_language=arm.tuning
            )
            for arm in study.real
            if arm.size == 2000 and not arm.multilingual and arm.base.name == "small"
        )
        keys = ["source", "tuning_language", "language", "category"]
        expected = category_consistency(shares.groupby(keys, as_index=False)["unchanged"].mean(), "pbc", "tanzil")
        table = made["category_consistency"].table
        both = table.merge(expected, on=["category", "averaging"], suffixes=("", "_expected"))
        assert len(both) == len(table) == 22
        np.testing.assert_allclose(both["pearson"], both["pearson_expected"])
        np.testing.assert_allclose(both["low"], both["low_expected"])

    def test_unique_shifts_and_sizes(self, study: Study, made: dict[str, Exhibit]) -> None:
        fa, ko, many = (arm_of(study, name) for name in ("pbc-fa-0", "pbc-ko-0", "many"))
        expected = unique_shifts(fa.base.scores, {"fa": fa.tuned.scores, "ko": ko.tuned.scores}, study.items)
        table = made["unique_shifts"].table
        rows = table[(table["source"] == "pbc") & (table["seed"] == 0)]
        same(rows, expected, ["language", "unique", "low", "high", "shifted", "n"])
        expected = unchanged_difference(fa.base.scores, fa.tuned.scores, many.tuned.scores, study.items)
        same(made["sizes"].table, expected, ["language", "first", "second", "difference", "low", "p", "n"])
        assert made["sizes"].table[["size_first", "size_second"]].drop_duplicates().to_numpy().tolist() == [
            [2000, 10000]
        ]


class TestLikeness:
    def test_dissimilarities_are_those_of_the_square_table(self, study: Study, made: dict[str, Exhibit]) -> None:
        square = dissimilarity(
            study.pretrained[0].profile.loc[[name for name, item in study.items.items() if item.paper]]
        )
        table = made["dissimilarity"].table
        rows = table[table["run"] == study.pretrained[0].run]
        assert len(rows) == 6
        for row in rows.itertuples():
            assert row.dissimilarity == pytest.approx(square.loc[row.first, row.second])
            assert 0 <= row.low < row.dissimilarity < row.high <= 2

    def test_the_interval_of_a_dissimilarity_is_that_of_resampled_batteries(self, study: Study) -> None:
        (row,) = dissimilarities(study.pretrained[0].profile[["de", "fa"]], study.items).to_dict("records")
        profile = study.pretrained[0].profile[["de", "fa"]]
        profile = profile.loc[[name for name in profile.index if study.items[name].paper]]
        groups = batteries(list(profile.index), study.items)
        x, y = profile.to_numpy().T
        weights = bootstrap_weights(groups, 2000)
        cosines = (weights @ (x * y)) / np.sqrt((weights @ x**2) * (weights @ y**2))
        low, high = 1 - np.quantile(cosines, [0.975, 0.025])
        assert row["high"] - row["low"] == pytest.approx(high - low, rel=0.3)

    def test_structure(self, study: Study, made: dict[str, Exhibit]) -> None:
        arm = arm_of(study, "multi")
        rows = rows_of(made["structure"], arm).set_index("other")
        expected = structure(arm.base.profile, arm.tuned.profile, study.items)
        assert rows.loc["pretrained", "spearman"] == expected["spearman"]
        assert rows.loc["pretrained", "p"] == expected["p"]
        people = spoken(survey_truth("wvs").profile, LANGUAGES)
        assert rows.loc["survey", "spearman"] == structure(people, arm.tuned.profile, study.items)["spearman"]

    def test_mean_dissimilarity_by_kind(self, study: Study, made: dict[str, Exhibit]) -> None:
        table = made["mean_dissimilarity"].table
        rows = table[(table["source"] == "pbc") & (table["seed"] == 0) & (table["model"] == "small")]
        assert rows[["kind", "models"]].to_numpy().tolist() == [
            ["pretrained", 1],
            ["monolingual", 2],
            ["monolingual", 1],
            ["multilingual", 1],
        ]
        assert rows["size"].fillna(0).tolist() == [0, 2000, 10000, 2000]
        alone = [arm_of(study, name).tuned.profile for name in ("pbc-fa-0", "pbc-ko-0")]
        expected = mean_dissimilarity({"base": [study.pretrained[0].profile], "mono": alone}, study.items)
        columns = ["dissimilarity", "low", "change", "change_low", "change_high", "n"]
        same(rows.head(2), expected, columns)

    def test_direction_is_of_one_plane_a_panel(self, study: Study, made: dict[str, Exhibit]) -> None:
        arms = [arm_of(study, f"tanzil-{code}-1") for code in ("fa", "ko")]
        found = plane({"base": arms[0].base.profile, **{arm.tuning: arm.tuned.profile for arm in arms}}, study.items)
        points = found.points.set_index(["model", "language"])
        table = made["direction"].table
        rows = table[(table["source"] == "tanzil") & (table["seed"] == 1)]
        assert len(rows) == 8
        for row in rows.itertuples():
            assert (row.x, row.y) == pytest.approx(tuple(points.loc[(row.tuning, row.language)]))
            assert (row.x_base, row.y_base) == pytest.approx(tuple(points.loc[("base", row.language)]))
            assert row.explained_x == found.explained[0]
        cosine = parallelism(arms[0].base.profile, arms[0].tuned.profile, study.items)
        assert rows_of(made["parallelism"], arms[0]).loc[0, "cosine"] == cosine["cosine"]

    def test_survey_similarity_against_numpy(self, study: Study, made: dict[str, Exhibit]) -> None:
        truth = survey_truth("wvs").profile
        paper = [name for name in truth.index if study.items[name].paper]
        pair = truth.loc[paper, ["DEU", "PAK"]].dropna().to_numpy()
        cosine = pair[:, 0] @ pair[:, 1] / np.linalg.norm(pair[:, 0]) / np.linalg.norm(pair[:, 1])
        table = made["survey_similarity"].table.set_index(["first", "second"])
        row = table.loc[("PAK", "DEU")] if ("PAK", "DEU") in table.index else table.loc[("DEU", "PAK")]
        assert row["cosine"] == pytest.approx(cosine)
        assert row["low"] < cosine < row["high"] <= 1
        assert row["n"] == len(pair)

    def test_the_papers_figures_stand_beside_ours(self, made: dict[str, Exhibit]) -> None:
        table = made["paper"].table
        assert table["theirs"].tolist() == [0.84, 0.88]
        ours = made["survey_similarity"].table
        pair = ours[ours["first"].isin(["VNM", "SRB"]) & ours["second"].isin(["VNM", "SRB"])]
        assert table["ours"].tolist()[1] == pair["cosine"].item()
        assert "the paper has 238" in table["differs"][0]
        assert "not computed from the full survey" in table["differs"][0]

    def test_a_figure_of_a_run_is_found_by_its_cells(
        self, study: Study, made: dict[str, Exhibit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        row = "source=pbc;tuning=fa;size=2000;seed=0;placebo=False;language=ko"
        lines = [
            f"Table 2,unchanged,{row},unchanged,0.9,share,",
            "Table 2,unchanged,source=flores,unchanged,0.8,share,",
        ]
        monkeypatch.setattr(theirs, "PACKAGE", tmp_path)
        monkeypatch.setattr(theirs, "VALUES", tmp_path / "values.csv")
        theirs.VALUES.write_text("\n".join(["table,exhibit,row,column,value,unit,note", *lines]))
        exhibit = theirs.beside_paper(list(made.values()), study)
        small, large, absent = exhibit.table.to_dict("records")
        rows = rows_of(made["unchanged"], arm_of(study, "pbc-fa-0")).set_index("language")
        assert (small["theirs"], small["ours"], small["low"]) == (0.9, rows["unchanged"]["ko"], rows["low"]["ko"])
        assert small["differs"] == "model small, the paper has mT5"
        assert large["differs"] == "model large, the paper has mT5"
        assert np.isnan(absent["ours"]) and absent["differs"] == "not among our rows."
        assert exhibit.runs == (arm_of(study, "pbc-fa-0").tuned.run, arm_of(study, "large-fa").tuned.run)


class TestPeople:
    def test_alignment(self, study: Study, made: dict[str, Exhibit]) -> None:
        truth = survey_truth("wvs").profile[["IRN", "DEU", "ROU", "KOR", "PAK", "SRB", "VNM"]]
        arm = arm_of(study, "pbc-fa-0")
        rows = rows_of(made["alignment"], arm)
        expected = alignment(arm.tuned.profile, truth, study.items)
        assert len(rows) == len(expected) == 28
        both = rows.merge(expected, on=["language", "country"], suffixes=("", "_expected"))
        for column in ("spearman", "low", "high", "p", "turned_low", "within", "jensen_shannon", "wasserstein", "n"):
            np.testing.assert_array_equal(both[column], both[f"{column}_expected"])
        assert rows.groupby("language")["best"].sum().to_numpy() == pytest.approx(1)
        before = made["alignment"].table
        assert set(before[before["stage"] == "pretrained"]["model"]) == {"small", "large"}

    def test_change_in_alignment_of_a_run_and_of_their_mean(self, study: Study, made: dict[str, Exhibit]) -> None:
        truth = survey_truth("wvs").profile[["DEU"]]
        fa, ko = (arm_of(study, f"pbc-{code}-0") for code in ("fa", "ko"))
        table = made["alignment_change"].table
        table = table[table["country"] == "DEU"]
        columns = ["language", "base", "tuned", "change", "low", "high", "p", "n"]
        same(
            table[table["run"] == fa.tuned.run],
            alignment_change(fa.base.profile, [fa.tuned.profile], truth, study.items),
            columns,
        )
        mean = table[(table["tuning"] == "mean") & (table["source"] == "pbc") & (table["seed"] == 0)]
        assert set(mean["models"]) == {2}
        tuned = [fa.tuned.profile, ko.tuned.profile]
        same(mean, alignment_change(fa.base.profile, tuned, truth, study.items), columns)

    def test_influence_is_on_the_alignment_with_the_own_country(self, study: Study, made: dict[str, Exhibit]) -> None:
        table = made["influence"].table
        rows = table[(table["run"] == study.pretrained[1].run) & (table["language"] == "fa")]
        truth = survey_truth("wvs").profile[["IRN"]]
        expected = influence(study.pretrained[1].profile[["fa"]], truth, study.items)
        same(rows, expected, ["language", "country", "question", "without", "difference"])
        assert not table["placebo"].any()

    def test_planted_movement_is_significant_and_the_placebo_is_quiet(self, tmp_path: Path) -> None:
        start, target = odds(0), odds(5)
        towards = {key: 0.6 * start[key] + 0.6 * target[key] for key in start}
        probed(tmp_path, "base", start)
        seeds = iter(range(50, 60))
        for source in ("toy", "other"):
            for code in ("de", "fa", "ko"):
                tuned(tmp_path, "base", f"{source}-{code}", [code], source=source)
                probed(tmp_path, f"{source}-{code}", moved(towards, next(seeds), 0.5))
        tuned(tmp_path, "base", "placebo", ["de"], source="toy", placebo=True)
        probed(tmp_path, "placebo", moved(start, next(seeds), 0.5))
        rows = [
            {"checkpoint": name, "language": code, "question": question, "p_first": 1 / (1 + np.exp(-value))}
            for name, values in (("base", start), ("moved", target))
            for (code, question), value in values.items()
        ]
        pd.DataFrame(rows).to_csv(tmp_path / "truth.csv", index=False)
        table = people.planted(collect([tmp_path])).table
        assert len(table) == 7 * 4 * 2
        real, quiet = table[~table["placebo"]], table[table["placebo"]]
        planted = real[real["plant"] == "moved"]
        assert planted["change"].min() > 0.3
        assert planted["adjusted"].max() < 0.001
        assert planted["low"].min() > 0
        unmoved = quiet[quiet["plant"] == "moved"]
        assert unmoved["adjusted"].min() > 0.05
        assert ((unmoved["low"] < 0) & (unmoved["high"] > 0)).all()
        elsewhere = collect([tmp_path], tmp_path / "truth.csv")
        assert elsewhere.plant is not None and len(elsewhere.plant) == len(rows)


class TestNoise:
    def test_unchanged_among_placebos(self, study: Study, made: dict[str, Exhibit]) -> None:
        arm = arm_of(study, "pbc-fa-1")
        tuned = [arm.tuned, *(other.tuned for other in study.arms if other.placebo)]
        stayed, *placebos = (unchanged(arm.base.scores, one.scores, study.items, "language") for one in tuned)
        expected = unchanged_among_placebos(stayed, placebos)
        rows = rows_of(made["placebo"], arm)
        columns = ["language", "unchanged", "placebo_mean", "placebo_deviation", "rank", "rank_p", "z", "p", "placebos"]
        same(rows[rows["language"] != "all"], expected, columns)
        assert set(made["placebo"].table["run"]) == {arm_of(study, f"pbc-fa-{seed}").tuned.run for seed in (0, 1)}

    def test_shifts_beyond_placebos(self, study: Study, made: dict[str, Exhibit]) -> None:
        arm = arm_of(study, "pbc-fa-1")
        placebos = [other.tuned.scores for other in study.arms if other.placebo]
        questions = changes_among_placebos(arm.base.scores, arm.tuned.scores, placebos, study.items)
        beyond = questions[questions["shifted"] & (questions["adjusted"] <= 0.05)].groupby("language").size()
        rows = rows_of(made["placebo_shifts"], arm).set_index("language")
        assert rows["beyond"].sum() == beyond.sum() > 0
        assert rows["shifted"].to_dict() == questions.groupby("language")["shifted"].sum().to_dict()

    def test_few_placebos_have_a_rank_and_no_z(self, study: Study) -> None:
        few = replace(study, arms=tuple(arm for arm in study.arms if not arm.placebo or arm.seed < 2))
        table = noise.placebo(few, shifts.unchanged(few)).table
        assert table["z"].isna().all() and table["p"].isna().all()
        assert set(table["rank_p"]) <= {1 / 3, 2 / 3, 1}
        beyond = noise.placebo_shifts(few).table
        assert beyond["beyond"].isna().all()
        assert set(beyond["reason"]) == {"fewer than 5 placebo runs"}


class TestGaps:
    def test_two_runs_are_enough(self, tmp_path: Path) -> None:
        answers = odds(0)
        probed(tmp_path, "base", answers)
        tuned(tmp_path, "base", "made")
        probed(tmp_path, "made", moved(answers, 1, 1.0))
        made = {exhibit.name: exhibit for exhibit in exhibits(collect([tmp_path]))}
        assert len(made["unchanged"].table) == 5
        assert "another --seed" in made["spread"].missing and "other --languages" in made["spread"].missing
        assert "another --size" in made["sizes"].missing
        assert "another --corpus" in made["category_consistency"].missing
        assert "--placebo" in made["placebo"].missing

    def test_too_few_questions_and_constant_profiles_have_a_reason(self, tmp_path: Path) -> None:
        answers = {("de", f"Q{n}"): float(n % 3 - 1.5) for n in range(1, 9)} | {
            ("fa", name): 1.0 for name in registry()
        }
        probed(tmp_path, "base", answers)
        tuned(tmp_path, "base", "made")
        probed(tmp_path, "made", answers)
        made = {exhibit.name: exhibit for exhibit in exhibits(collect([tmp_path]))}
        rows = made["unchanged"].table.set_index("language")
        assert rows.loc["de", "reason"] == "fewer than 10 common questions"
        assert np.isnan(rows.loc["de", "unchanged"]) and rows.loc["fa", "unchanged"] == 1
        change = made["alignment_change"].table
        assert set(change[change["language"] == "de"]["reason"]) == {"fewer than 10 common questions"}
        assert set(change[change["language"] == "fa"]["reason"]) == {"constant profile"}
        assert "only 8 questions are answered in every profile; at least 10 are needed" in made["direction"].missing
        assert made["dissimilarity"].table["reason"].tolist() == ["fewer than 10 common questions"] * 2

    def test_another_wording_is_not_compared(self, tmp_path: Path) -> None:
        probed(tmp_path, "base", odds(0))
        tuned(tmp_path, "base", "made")
        probed(tmp_path, "made", odds(1), probes={**dict.fromkeys(LANGUAGES, "0"), "ko": "1"})
        study = collect([tmp_path])
        assert not study.arms
        assert [model.name for model in study.pretrained] == ["base"]
        assert "in ko it was asked another wording than its base" in study.notes[0]

    def test_other_languages_are_left_out_and_said(self, tmp_path: Path) -> None:
        answers = odds(0)
        probed(tmp_path, "base", {key: value for key, value in answers.items() if key[0] == "de"})
        tuned(tmp_path, "base", "made")
        probed(tmp_path, "made", {key: value for key, value in answers.items() if key[0] == "fa"})
        study = collect([tmp_path])
        assert not study.arms
        assert "asked in different languages" in study.notes[0]

    def test_intermediate_checkpoints_are_no_pretrained_models(self, tmp_path: Path) -> None:
        answers = odds(0)
        probed(tmp_path, "base", answers)
        name = tuned(tmp_path, "base", "made").name.removeprefix("finetune-")
        probed(tmp_path, "made", moved(answers, 1, 1.0), named=f"runs/checkpoints/{name}")
        probed(tmp_path, "halfway", moved(answers, 2, 1.0), named=f"runs/checkpoints/{name}-step100")
        study = collect([tmp_path])
        assert [model.name for model in study.pretrained] == ["base"]
        assert study.notes == (
            f"Left out, as intermediate or merged checkpoints of a fine-tuned model: {name}-step100.",
        )


class TestCauses:
    def test_attribution(self, tmp_path: Path) -> None:
        answers = odds(0)
        probed(tmp_path, "base", answers)
        generator = np.random.default_rng(0)
        training, tables = {}, {}
        for name, languages in (("fa", ["fa"]), ("ko", ["ko"]), ("multi", ["fa", "ko"])):
            finetune = tuned(tmp_path, "base", name, languages)
            probed(tmp_path, name, moved(answers, 3, 1.0))
            examples = pd.read_parquet(finetune / "examples.parquet").query("split == 'train'")
            queries = pd.DataFrame(
                [(code, question, "second") for code in ("de", "ro") for question in ("Q1", "Q2", "Q3")],
                columns=["language", "question", "answer_tuned"],
            )
            influence = pd.concat(
                examples.sample(10, random_state=generator).assign(
                    **query,
                    side=side,
                    rank=range(10),
                    train_language=lambda table: table["example"].str.split(":").str[1],
                )[["language", "question", "side", "rank", "example", "train_language"]]
                for query in queries[["language", "question"]].to_dict("records")
                for side in ("top", "bottom")
            )
            write_record(
                tmp_path,
                "attribution",
                {"tuned": [name]},
                {"queries": queries, "influence": influence},
            )
            training[name], tables[name] = examples, Attributed(queries, influence, examples)
        study = collect([tmp_path])
        made = {exhibit.name: exhibit for exhibit in exhibits(study)}
        expected = language_shares(tables["multi"].influence, training["multi"])
        same(made["language_share"].table, expected, ["language", "side", "train_language", "share", "low", "p", "n"])
        assert set(made["language_share"].table["tuning"]) == {"fa+ko"}
        alone = parallel_overlap({"fa": tables["fa"], "ko": tables["ko"]})
        same(made["parallel_overlap"].table, alone, ["first", "second", "overlap", "low", "chance", "n"])
        cross = rows_of(made["cross_test_overlap"], arm_of(study, "multi"))
        same(cross, cross_test_overlap(tables["multi"]), ["first", "second", "overlap", "maximum", "chance", "n"])
        assert sum(run.startswith("attribution-") for run in made["cross_test_overlap"].runs) == 3

    def test_attribution_of_another_run_is_left_out(self, tmp_path: Path) -> None:
        probed(tmp_path, "base", odds(0))
        write_record(tmp_path, "attribution", {"tuned": ["x"]}, {})
        study = collect([tmp_path])
        assert not study.attributions
        assert "the model that it explains is not among the runs" in " ".join(study.notes)
