"""The data side of the report: records joined into a study, and every exhibit's numbers against analysis itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from valueshift.analysis.profiles import profile
from valueshift.analysis.wordings import noise_ceiling
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import Item, read_items, registry_folder
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame
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
    root: Path, base: str, made: str, languages: Sequence[str] = ("fa",), *, source: str = "pbc", **inputs: Any
) -> Path:
    """A finetune record: `base` trained to `made`."""
    stated = {"size": 2000, "seed": 0, "placebo": False, "lora": None, "epochs": 5, "learning_rate": 5e-5} | inputs
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
        settings={"model": f"models/{base}", "checkpoint": f"checkpoints/{made}", "checkpoint_digest": made},
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


def made_of(study: Study, name: str) -> Exhibit:
    (exhibit,) = (exhibit for exhibit in exhibits(study) if exhibit.name == name)
    return exhibit


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
            "Fine-tuned models that were asked other questions than their base: 1 of 1. Answers are joined by question, and "
            "what one side lacks is counted as dropped.",
        )
        assert made_of(study, "unchanged").table.set_index("language").loc["ro", "dropped"] > 20

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
        )
        first, again = study.wordings[0]
        expected = noise_ceiling(first.profile, again.profile, study.items)
        same(made_of(study, "ceiling").table, expected, ["language", "reliability", "low", "ceiling", "same", "n"])

    def test_readings_that_differ_are_read_as_the_papers(self, tmp_path: Path) -> None:
        probed(tmp_path, "a", odds(0))
        probed(tmp_path, "b", odds(1), reading="token_mean")
        assert collect([tmp_path]).notes == (
            "The records are read as sum and token_mean; here all answers are read as sum.",
        )

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
