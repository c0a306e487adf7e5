"""The default method on the planted community, against models that are trained again; minutes of one core."""

import numpy as np
import pandas as pd
import pytest
from valueshift.attribution.attributing import method_of
from valueshift.attribution.checking import paper_method
from valueshift.attribution.checks import Trial, contrasts, lds_table, recall, trial
from valueshift.attribution.planted import COPIES, Planted, finetuned, plant
from valueshift.attribution.subjects import of_planted
from valueshift.core.probes import probe_set

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("planted")]
SEEDS = (0, 1, 2)
MODELS = 12


@pytest.fixture(scope="module")
def communities() -> list[Planted]:
    return [plant(seed=seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def trials(communities: list[Planted]) -> list[Trial]:
    """12 models trained on random halves in each community, and what every method says."""
    found = []
    for seed, community in zip(SEEDS, communities, strict=True):
        subject = of_planted(community, seed)
        methods = {"default": method_of(seeds=1), "paper": paper_method(len(subject.examples))}
        found.append(trial(subject, methods, MODELS, seed))
    return found


@pytest.fixture(scope="module")
def table(trials: list[Trial]) -> pd.DataFrame:
    found = lds_table(trials).set_index("method")
    print("\n" + found.round(3).to_string())
    return found


def test_the_default_predicts_retrained_models(table: pd.DataFrame) -> None:
    assert table.loc["default", "lds"] >= 0.7


@pytest.mark.parametrize("method", ["token overlap", "random", "paper"])
def test_the_default_is_better_than(table: pd.DataFrame, method: str) -> None:
    assert table.loc[method, "difference_low"] > 0, "95% paired interval"


def test_contradicting_sentences_are_at_the_bottom(communities: list[Planted], trials: list[Trial]) -> None:
    found = [
        recall(one.scores["default"], community.role("supporting"), community.role("contradicting"))
        for community, one in zip(communities, trials, strict=True)
    ]
    print(found)
    assert np.mean([one["contradicting"] for one in found]) >= 0.9
    assert np.mean([one["supporting"] for one in found]) >= 0.85


def test_token_overlap_finds_the_planted_and_predicts_little(communities: list[Planted], trials: list[Trial]) -> None:
    """Why recall proves nothing: what overlaps most is what was planted, for the answer and against it."""
    for community, one in zip(communities, trials, strict=True):
        planted = community.role("supporting") | community.role("contradicting")
        top = np.argsort(-one.scores["token overlap"], axis=0)[: 2 * COPIES]
        assert np.take_along_axis(planted, top, axis=0).mean() >= 0.8, "by chance it is .07"


def test_what_is_planted_is_what_is_said(communities: list[Planted]) -> None:
    community = communities[0]
    roles = community.sentences["role"].value_counts().to_dict()
    assert roles == {"neutral": 144, "supporting": 48, "contradicting": 48}
    assert len({example.example for example in community.examples}) == 240
    probes = {(p.language, p.question): p for code in ("de", "fa") for p in probe_set("wvs").probes(code)}
    for row in community.sentences.itertuples():
        probe = probes[row.language, row.question]
        stated = [pole for pole in ("first", "second") if probe.filled(pole) in row.text]
        if row.role != "neutral":
            new = community.new[[one.question for one in community.probes].index(row.question)]
            assert ((new in stated) == (row.role == "supporting")) and len(stated) == 1
    again = plant(seed=0)
    assert again.sentences.equals(community.sentences) and again.examples == community.examples


def test_training_again_gives_the_same_model(communities: list[Planted]) -> None:
    community, kept = communities[0], np.arange(240) % 3 == 0
    first, second = (contrasts(finetuned(community, kept, 5), community.tokenizer, community.queries) for _ in range(2))
    np.testing.assert_array_equal(first, second)
