"""The whole chain against a known truth: probing and alignment recover what is planted in the toy community."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from valueshift.analysis.alignment import alignment
from valueshift.analysis.profiles import profile
from valueshift.core.languages import LANGUAGES
from valueshift.core.probes import probe_set
from valueshift.core.records import read_record
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.toy import CORPORA, FINETUNING, build_toy
from valueshift.harness_ext.probing import Asking, ask

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("toy")]

Answers = Callable[[str], pd.DataFrame]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_toy(tmp_path_factory.mktemp("toy") / "toy", progress=False)


def answers_of(toy: Path, checkpoint: str | Path, languages: tuple[str, ...]) -> pd.DataFrame:
    run = ask(str(toy / checkpoint), probe_set("wvs"), languages, toy.parent / "runs", Asking(device="cpu"))
    return profile(run.scores)


def rise(toy: Path, name: str, language: str, *, placebo: bool) -> float:
    """Spearman with the profile of a corpus, after fine-tuning base on its text in one language minus before."""
    runs = toy.parent / "runs"
    text = str(toy / name / f"{language}.parquet")
    record = finetune(str(toy / "base"), text, [language], 2000, FINETUNING, placebo=placebo, root=runs)
    truth = planted(toy, CORPORA[name])[language]
    found = []
    for checkpoint in ("base", runs / str(read_record(record).settings["checkpoint"])):
        answers = answers_of(toy, checkpoint, (language,))[language]
        found.append(spearmanr(answers, truth.reindex(answers.index)).statistic)
    return float(found[1] - found[0])


def planted(toy: Path, checkpoint: str) -> pd.DataFrame:
    truth = pd.read_csv(toy / "truth.csv").query("checkpoint == @checkpoint")
    return truth.pivot(index="question", columns="language", values="p_first")


@pytest.mark.parametrize("checkpoint", ["base", "moved"])
def test_probing_recovers_the_plant(toy: Path, checkpoint: str) -> None:
    answers, truth = answers_of(toy, checkpoint, ("de", "fa")), planted(toy, checkpoint)
    for code in ("de", "fa"):
        assert spearmanr(answers[code], truth[code].reindex(answers.index)).statistic >= 0.9


def test_alignment_is_with_the_own_plant_and_with_no_permuted_one(toy: Path) -> None:
    answers, truth = answers_of(toy, "base", ("de", "fa")), planted(toy, "base")
    items = probe_set("wvs").items
    found = alignment(answers, truth, items).set_index(["language", "country"])
    for code, other in (("de", "fa"), ("fa", "de")):
        assert found.loc[(code, code), "spearman"] >= 0.9
        assert found.loc[(code, code), "adjusted"] < 0.05
        assert abs(found.loc[(code, other), "spearman"]) < 0.2
    order = np.random.default_rng(0).permutation(len(truth))
    permuted = pd.DataFrame(truth.to_numpy()[order], truth.index, truth.columns)
    null = alignment(answers, permuted, items)
    assert (null["adjusted"] > 0.05).all()
    assert ((null["low"] < 0) & (null["high"] > 0)).all()


def test_fine_tuning_moves_the_answers_to_what_the_text_says(toy: Path) -> None:
    """By span corruption with random spans; the same tokens permuted say next to nothing."""
    assert rise(toy, "corpus", "de", placebo=False) >= 0.3
    assert rise(toy, "corpus", "de", placebo=True) < 0.15


@pytest.mark.full
def test_all_languages_are_recovered(tmp_path: Path) -> None:
    toy = build_toy(tmp_path / "toy", languages=tuple(LANGUAGES), progress=False)
    answers, truth = answers_of(toy, "base", tuple(LANGUAGES)), planted(toy, "base")
    found = alignment(answers, truth, probe_set("wvs").items).set_index(["language", "country"])["spearman"]
    recovered = pd.Series({code: found[(code, code)] for code in LANGUAGES})
    assert recovered.min() >= 0.7, recovered.to_dict()
