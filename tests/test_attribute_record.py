"""`attribute`: from two checkpoints to a record, against autograd by hand; and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from valueshift.analysis.shifts import flipped
from valueshift.attribution.attributing import Attributing, attribute
from valueshift.attribution.baselines import same_language_random, token_overlap
from valueshift.attribution.exact import ExactFeatures
from valueshift.attribution.measurement import masked_examples, query, query_items, training_items
from valueshift.attribution.results import ranked
from valueshift.attribution.scoring import Method
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table
from valueshift.finetune.finetuning import examples_of, finetune
from valueshift.finetune.training import Training
from valueshift.harness_ext.models import load_model, load_tokenizer
from valueshift.harness_ext.probing import run_of

EXACT = Method(backend="exact")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """40 parallel sentences in German and Farsi."""
    rows = [
        (str(number), language, probe.filled("first"))
        for language in ("de", "fa")
        for number, probe in enumerate(probe_set("wvs").probes(language)[:40])
    ]
    path = tmp_path_factory.mktemp("corpus") / "small.parquet"
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def tuned(tiny_mt5, corpus, tmp_path_factory) -> tuple[str, Path, Path]:
    """Base checkpoint, tuned checkpoint, root: 64 training sentences, so hot that answers change."""
    root = tmp_path_factory.mktemp("runs")
    base = str(tiny_mt5())
    how = Training(epochs=2, learning_rate=3e-3, seed=1)
    record = finetune(base, str(corpus), ["de", "fa"], 80, how, root=root)
    return base, root / read_record(record).settings["checkpoint"], root


@pytest.fixture(scope="module")
def attributed(tuned) -> Path:
    base, checkpoint, root = tuned
    found = attribute(base, str(checkpoint), root, Attributing(languages="de,tr"))
    assert found is not None
    return found


def test_every_shifted_probe_is_attributed(tuned, attributed):
    base, checkpoint, root = tuned
    runs = [run_of(str(source), "wvs", "de,tr", root) for source in (base, checkpoint)]
    shifts = flipped(runs[0].scores, runs[1].scores, probe_set("wvs").items)
    queries = read_table(attributed, "queries")
    assert len(shifts) > 10
    keys = ["language", "question", "answer_base", "answer_tuned"]
    pd.testing.assert_frame_equal(queries[keys], shifts[keys], check_dtype=False)
    assert list(queries.columns) == [
        *("language", "question", "category", "answer_base", "answer_tuned"),
        *("stability", "token_overlap", "random_overlap"),
    ]
    assert queries[["stability", "token_overlap", "random_overlap"]].apply(lambda c: c.between(0, 1)).all(axis=None)


def test_tables_hold_both_ends_of_every_ranking(tuned, attributed):
    influence, shares = read_table(attributed, "influence"), read_table(attributed, "shares")
    queries = read_table(attributed, "queries")
    assert list(influence.columns) == ["language", "question", "side", "rank", "example", "train_language", "score"]
    lists = influence.groupby(["language", "question", "side"], sort=False)
    assert (lists.size() == 6).all() and len(lists) == 2 * len(queries), "a tenth of 64 sentences at either end"
    for (_, _, side), found in lists:
        assert found["rank"].tolist() == list(range(1, 7))
        assert (found["score"].diff().dropna() * (1 if side == "top" else -1) <= 0).all()
    whole = influence.groupby(["language", "question"])["example"].nunique()
    assert (whole == 12).all(), "no sentence is at both ends"
    assert (influence["example"].str.split(":").str[1] == influence["train_language"]).all()
    assert list(shares.columns)[:4] == ["language", "side", "train_language", "share"]
    assert shares.groupby(["language", "side"])["share"].sum().to_numpy() == pytest.approx(1)
    assert shares["base_rate"].to_numpy() == pytest.approx(0.5)


def test_the_record_names_its_inputs_and_what_to_believe(tuned, attributed):
    root = tuned[2]
    record = read_record(attributed)
    queries, shares = read_table(attributed, "queries"), read_table(attributed, "shares")
    finetune_record = read_record(find_records(root, "finetune")[0])
    assert record.settings["finetune"] == finetune_record.name
    assert record.inputs["base"] == finetune_record.inputs["model"]
    assert record.inputs["tuned"] == [finetune_record.settings["checkpoint_digest"]]
    assert record.metrics["shifted"] == len(queries)
    assert record.metrics["stability"] == pytest.approx(queries["stability"].mean())
    row = shares[(shares["side"] == "top") & (shares["language"] == "tr") & (shares["train_language"] == "fa")]
    assert record.metrics["share/tr.fa"] == pytest.approx(row["share"].item())
    assert any(note.startswith("UNSTABLE") for note in record.notes) == (queries["stability"].mean() < 0.7)
    assert "Kept are 6 of 64 sentences at either end; two random lists overlap by 0.094." in record.notes


def test_scores_are_those_of_the_formula(tuned):
    base, checkpoint, root = tuned
    found = attribute(base, str(checkpoint), root, Attributing(EXACT, languages="de"))
    influence = read_table(found, "influence")
    queries = read_table(found, "queries")
    model, tokenizer = load_model(str(checkpoint)), load_tokenizer(str(checkpoint))
    rows, corruption = examples_of(find_records(root, "finetune")[0])
    embedded = model.get_input_embeddings().weight.shape[0]
    examples = masked_examples(rows[["example", "tokens"]].to_dict("records"), corruption, 2)
    probes = {probe.question: probe for probe in probe_set("wvs").probes("de")}
    row = queries.iloc[0]
    asked = query(probes[row["question"]], row["answer_tuned"], tokenizer, embedded)
    backend = ExactFeatures(model, "log_prob")
    train, _ = backend.features(training_items(examples, EXACT, tokenizer, embedded))
    moved, _ = backend.features(query_items([asked], EXACT, tokenizer, embedded))
    kernel = train.astype(np.float64) @ train.T
    damped = kernel + EXACT.damping * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    expected = dict(zip(rows["example"], np.linalg.solve(damped, train @ moved[0]), strict=True))
    mine = influence[influence["question"] == row["question"]]
    assert len(mine) == 12
    order = sorted(expected, key=lambda example: -expected[example])
    assert mine["example"].tolist() == [*order[:6], *reversed(order[-6:])]
    np.testing.assert_allclose(
        mine["score"], mine["example"].map(expected), rtol=1e-3, atol=1e-4 * mine["score"].abs().max()
    )


def test_again_reads_the_features_and_gives_the_same_record(tuned, attributed, monkeypatch):
    base, checkpoint, root = tuned
    before = {name: read_table(attributed, name) for name in ("queries", "influence", "shares")}

    def computed_again(self, items):
        raise AssertionError("features were there")

    monkeypatch.setattr("valueshift.attribution.factorised.FactorisedFeatures.features", computed_again)
    assert attribute(base, str(checkpoint), root, Attributing(languages="de,tr")) == attributed
    for name, table in before.items():
        pd.testing.assert_frame_equal(read_table(attributed, name), table)


def test_questions_narrow_the_shifts(tuned):
    base, checkpoint, root = tuned
    runs = [run_of(str(source), "wvs", "de", root) for source in (base, checkpoint)]
    shifted = flipped(runs[0].scores, runs[1].scores, probe_set("wvs").items)["question"].tolist()
    stayed = next(name for name in runs[0].scores["question"] if name not in shifted)
    one = attribute(base, str(checkpoint), root, Attributing(languages="de", questions=f"{shifted[0]},{stayed}"))
    assert read_table(one, "queries")["question"].tolist() == [shifted[0]]
    assert attribute(base, str(checkpoint), root, Attributing(languages="de", questions=stayed)) is None
    with pytest.raises(ValueshiftError, match=r"question Q9999 was not asked"):
        attribute(base, str(checkpoint), root, Attributing(languages="de", questions="Q9999"))


def test_seeds_of_the_same_sentences_are_averaged(tuned, corpus):
    base, checkpoint, root = tuned
    how = Training(epochs=2, learning_rate=3e-3, seed=2)
    other = finetune(base, str(corpus), ["de", "fa"], 80, how, root=root)
    also = str(root / read_record(other).settings["checkpoint"])
    both = attribute(base, str(checkpoint), root, Attributing(EXACT, languages="de", also=(also,)))
    record = read_record(both)
    assert len(record.inputs["tuned"]) == 2 and record.settings["also"] == [read_record(other).name]
    assert "Scores are averaged over 2 checkpoints." in record.notes
    fewer = finetune(base, str(corpus), ["de", "fa"], 40, how, root=root)
    wrong = str(root / read_record(fewer).settings["checkpoint"])
    with pytest.raises(ValueshiftError, match="was tuned on other sentences"):
        attribute(base, str(checkpoint), root, Attributing(EXACT, languages="de", also=(wrong,)))


def test_an_adapter_is_attributed_by_its_own_weights(tuned, corpus):
    base, _, root = tuned
    how = Training(epochs=2, learning_rate=0.1, seed=1, lora=True)
    record = read_record(finetune(base, str(corpus), ["de", "fa"], 80, how, root=root))
    checkpoint = root / record.settings["checkpoint"]
    found = attribute(base, str(checkpoint), root, Attributing(EXACT, languages="de"))
    folder = next(path for path in (root / "features").glob("*/*/manifest.json") if _adapter_sized(path, checkpoint))
    assert found is not None and folder


def _adapter_sized(manifest: Path, checkpoint: Path) -> bool:
    from safetensors.torch import load_file

    numbers = sum(tensor.numel() for tensor in load_file(checkpoint / "adapter_model.safetensors").values())
    return json.loads(manifest.read_text())["dimension"] == numbers


def test_what_does_not_belong_together_is_refused(tuned, tiny_mt5, tmp_path):
    base, checkpoint, root = tuned
    with pytest.raises(ValueshiftError, match="no finetune record in .* made"):
        attribute(base, base, root, Attributing(languages="de"))
    with pytest.raises(ValueshiftError, match="was not tuned from .* but from"):
        attribute(str(tiny_mt5(untied=False)), str(checkpoint), root, Attributing(languages="de"))
    with pytest.raises(ValueshiftError, match="unknown language 'xx'"):
        attribute(base, str(checkpoint), root, Attributing(languages="xx"))


def test_bm25_finds_the_sentence_that_says_the_same():
    sentences = [[1, 2, 3], [4, 5, 6], [1, 2, 9], [7, 8, 9]]
    scores = token_overlap(sentences, [[1, 2, 3], [9]])
    assert ranked(scores, 2, "top")[0].tolist() == [0, 2]
    assert set(ranked(scores, 2, "top")[1]) == {2, 3}
    orders = {tuple(ranked(token_overlap(sentences, [[99]], seed), 4, "top")[0]) for seed in range(20)}
    assert len(orders) > 5, "sentences without a common token are in random order"


def test_same_language_comes_first_and_is_otherwise_random():
    languages = ["de", "fa"] * 50
    scores = same_language_random(languages, ["fa", "tr"])
    top = ranked(scores, 50, "top")
    assert {languages[place] for place in top[0]} == {"fa"}
    assert 15 < sum(languages[place] == "fa" for place in top[1]) < 35


def test_the_probe_records_it_names_are_there(tuned, attributed):
    settings = read_record(attributed).settings
    assert [read_record(tuned[2] / settings[name]).kind for name in ("base", "tuned")] == ["probe", "probe"]


def test_other_queries_take_the_features_of_the_sentences_again(tuned, attributed):
    base, checkpoint, root = tuned
    before = {path: path.stat().st_mtime_ns for path in (root / "features").rglob("sentences-*/*")}
    assert len(before) > 1
    attribute(base, str(checkpoint), root, Attributing(languages="tr"))
    found = {path: path.stat().st_mtime_ns for path in (root / "features").rglob("sentences-*/*")}
    assert found == before, "nothing was computed again, here or elsewhere"
