"""The checks themselves: scores by hand, a subject whose truth is known, and the planted community."""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tolerances import CONTRAST
from valueshift.attribution.checks import (
    Subject,
    Trial,
    contrasts,
    lds,
    lds_table,
    outcomes,
    randomisation,
    recall,
    removal,
    shuffled,
)
from valueshift.attribution.measurement import Query, query
from valueshift.core.probes import probe_set
from valueshift.harness_ext.encoder_decoder import EncoderDecoderScorer
from valueshift.harness_ext.models import load_model, load_tokenizer
from valueshift.harness_ext.scoring import score_probes


class Linear:
    """A subject whose contrasts are sums of known effects of the sentences that are kept."""

    def __init__(self, effects: np.ndarray) -> None:
        self.effects, self.trained = effects, 0

    def subject(self, monkeypatch: pytest.MonkeyPatch, identity: str = "linear") -> Subject:
        def retrain(kept: np.ndarray) -> np.ndarray:
            self.trained += 1
            return (kept @ self.effects).astype(np.float32)

        monkeypatch.setattr("valueshift.attribution.checks.contrasts", lambda model, tokenizer, queries: model)
        n, queries = self.effects.shape
        asked = [Query("de", f"Q{number}", (), (), ()) for number in range(queries)]
        return Subject(None, None, [None] * n, asked, np.zeros((n, queries), np.float32), retrain, identity)  # type: ignore


def halves(n: int, models: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(n) < n // 2 for _ in range(models)])


@given(st.integers(3, 12), st.integers(2, 15), st.integers(1, 4), st.integers(0, 10_000))
def test_lds_is_spearman_of_sums_and_outcomes(models, sentences, queries, seed):
    rng = np.random.default_rng(seed)
    kept = rng.random((models, sentences)) < 0.5
    scores = rng.integers(-1000, 1000, (sentences, queries)).astype(np.float32)  # equal sums are so in any order
    found = rng.normal(size=(models, queries)).astype(np.float32)
    with warnings.catch_warnings(action="ignore", category=stats.ConstantInputWarning):
        expected = [stats.spearmanr(kept @ scores[:, query], found[:, query]).statistic for query in range(queries)]
    np.testing.assert_allclose(lds(kept, found, scores), np.nan_to_num(expected), atol=1e-12)


def test_true_effects_predict_perfectly_and_random_ones_do_not(monkeypatch):
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(80, 6))
    kept = halves(80, 40)
    found = outcomes(Linear(effects).subject(monkeypatch), kept, None, "")
    noisy = effects + rng.normal(size=effects.shape)
    scores = {"true": effects, "noisy": noisy, "against": -effects, "random": rng.normal(size=effects.shape)}
    table = lds_table([Trial(kept, found, scores)]).set_index("method")
    assert table.loc["true", "lds"] == pytest.approx(1) and table.loc["against", "lds"] == pytest.approx(-1)
    assert table.loc["noisy", "lds"] == pytest.approx(np.sqrt(1 / 2), abs=0.1), "as much noise as effect"
    assert table.loc["random", "low"] < 0 < table.loc["random", "high"]
    assert table.loc["noisy", "difference_low"] > 0
    assert table["queries"].eq(6).all() and table["models"].eq(40).all()


def test_the_paired_interval_covers_no_difference_between_equally_good_methods():
    """Two methods with the same truth and as much noise: 95% of intervals hold the zero, give or take what 60 trials say."""
    held = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        effects = rng.normal(size=(60, 6))
        kept = halves(60, 16, seed)
        found = kept @ effects + rng.normal(size=(16, 6))
        scores = {name: effects + rng.normal(size=effects.shape) for name in ("one", "other")}
        row = lds_table([Trial(kept, found, scores)], seed, resamples=200).iloc[1]
        held.append(row["difference_low"] <= 0 <= row["difference_high"])
    assert np.mean(held) >= 0.9


def test_leaving_out_the_top_lowers_the_contrast_by_its_effect(monkeypatch):
    rng = np.random.default_rng(1)
    linear = Linear(rng.normal(size=(60, 5)))
    row = removal(linear.subject(monkeypatch), linear.effects.astype(np.float32), 6, 5).iloc[0]
    expected = -np.sort(linear.effects, axis=0)[-6:].sum(axis=0).mean()
    assert row["top"] == pytest.approx(expected, rel=1e-5) and row["queries"] == 5
    assert row["high"] < 0 and abs(row["random"]) < abs(expected) / 2
    assert linear.trained == 1 + 5 + 5


def test_what_was_trained_is_read_and_not_trained_again(monkeypatch, tmp_path):
    linear, kept = Linear(np.random.default_rng(2).normal(size=(20, 3))), halves(20, 4)
    first = outcomes(linear.subject(monkeypatch), kept, tmp_path, "")
    again = outcomes(linear.subject(monkeypatch), kept, tmp_path, "")
    assert linear.trained == 4
    np.testing.assert_array_equal(first, again)
    outcomes(linear.subject(monkeypatch, "another run"), kept[:1], tmp_path, "")
    assert linear.trained == 5


def test_recall_counts_planted_sentences_at_their_end():
    scores = np.array([[3.0, 0.0], [2.0, 1.0], [0.0, 2.0], [-1.0, -3.0], [-2.0, 5.0], [-3.0, 4.0]], dtype=np.float32)
    supporting = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [0, 0], [0, 1]], dtype=bool)
    contradicting = np.array([[0, 1], [0, 0], [0, 0], [1, 1], [0, 0], [1, 0]], dtype=bool)
    assert recall(scores, supporting, contradicting) == {"supporting": 0.75, "contradicting": 0.75}


def test_randomisation_compares_with_the_same_weights_in_another_order(tiny_mt5):
    model = load_model(str(tiny_mt5()))
    other = shuffled(model, seed=1)
    for (name, mine), its in zip(model.named_parameters(), other.parameters(), strict=True):
        assert mine.shape == its.shape and torch.equal(mine.flatten().sort().values, its.flatten().sort().values), name
        assert mine.dim() == 1 or not torch.equal(mine, its), name
    scores = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    same = randomisation(scores, 2 * scores, 10).iloc[0]
    assert (same["spearman"], same["overlap"], same["chance"]) == (pytest.approx(1), 1, 0.2)
    against = randomisation(scores, -scores, 10).iloc[0]
    assert against["spearman"] == pytest.approx(-1) and against["overlap"] == 0


def test_contrasts_are_differences_of_the_log_probabilities_that_probing_gives(tiny_mt5):
    path = str(tiny_mt5())
    model, tokenizer = load_model(path), load_tokenizer(path)
    probes = probe_set("wvs").probes("de")[:20]
    rows = model.get_input_embeddings().weight.shape[0]
    poles = ["first" if number % 3 else "second" for number in range(20)]
    found = contrasts(model, tokenizer, [query(*pair, tokenizer, rows) for pair in zip(probes, poles, strict=True)])
    scores = score_probes(EncoderDecoderScorer(model, tokenizer), probes, None, label="de")
    expected = [
        (first.logprob - second.logprob) * (1 if pole == "first" else -1)
        for (first, second), pole in zip(scores, poles, strict=True)
    ]
    assert found == pytest.approx(np.array(expected), **CONTRAST)
