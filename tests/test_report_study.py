"""Records joined into a study: by digest, never mixed, and what is left out or missing is said with its remedy."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from report_records import LANGUAGES, arm_of, moved, odds, probed, registry, same, scores, tuned
from valueshift.analysis.profiles import profile
from valueshift.analysis.wordings import noise_ceiling
from valueshift.core.errors import ValueshiftError
from valueshift.tracking.report import people, shifts
from valueshift.tracking.report.arms import Study
from valueshift.tracking.report.exhibits import exhibits
from valueshift.tracking.report.study import collect

pytestmark = pytest.mark.xdist_group("report")  # what its tests share takes long to make


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

    def test_a_folder_and_its_records_are_the_same(self, study_runs: Path, study: Study) -> None:
        again = collect([*sorted(study_runs.iterdir()), study_runs])
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
        with pytest.raises(ValueshiftError, match="is no run record and holds none"):
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
