"""Facts about the toy community, on a toy of ten probes that is built in seconds; test_toy_truth.py has the full one."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import kstest, spearmanr
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from valueshift.core.digests import model_digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.own_set import new_probe_set
from valueshift.core.probes import probe_set
from valueshift.core.sentinels import resolve_sentinels
from valueshift.finetune.corpora.selection import select
from valueshift.finetune.corpora.store import Corpus
from valueshift.finetune.span_corruption import noise_counts, span_corruption
from valueshift.finetune.toy import (
    CHECKPOINTS,
    COPIES,
    CORPORA,
    PLANTS,
    Checkpoint,
    Plant,
    build_toy,
    corpus,
    planted,
)
from valueshift.finetune.toy_training import asked, lessons
from valueshift.harness_ext.formats import encoder_decoder_ids
from valueshift.harness_ext.heads import is_untied
from valueshift.harness_ext.models import load_model, load_tokenizer, save_model

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs" / "examples" / "own_survey"
CODES = ("de", "en")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALUESHIFT_CACHE", str(folder))
        new_probe_set("trains", EXAMPLE / "items.csv", EXAMPLE / "probes", EXAMPLE / "shares.csv")
    return folder


@pytest.fixture(autouse=True)
def _cache_is_set(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VALUESHIFT_CACHE", str(cache))


def build(output: Path, seed: int = 0, passes: tuple[int, int] = (2, 2), codes: tuple[str, ...] = CODES) -> Path:
    return build_toy(output, codes, seed, "trains", passes=passes, progress=False)


@pytest.fixture(scope="module")
def toy(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A toy that has learned its plant."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VALUESHIFT_CACHE", str(cache))
        yield build(tmp_path_factory.mktemp("toy") / "toy", passes=(150, 150))


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint / "model.safetensors")


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_it_has_the_stated_files_and_names_no_path(toy: Path) -> None:
    assert {path.name for path in toy.iterdir()} == {"base", "moved", "corpus", "corpus_other", "truth.csv", "toy.json"}
    for name in CORPORA:
        assert {path.name for path in (toy / name).iterdir()} == {"de.parquet", "en.parquet"}
    for path in (path for path in toy.rglob("*") if path.is_file()):
        assert path.stat().st_mode & 0o044 == 0o044, f"{path.name} cannot be read by others"
        assert b"/tmp" not in path.read_bytes() and str(toy.parent).encode() not in path.read_bytes(), path.name
    for checkpoint in CHECKPOINTS:
        card = (toy / checkpoint / "README.md").read_text(encoding="utf-8")
        assert "This is a toy. Its values are planted, not learned from people." in card
        assert "German, English" in card


def test_truth_is_the_plant(toy: Path) -> None:
    truth = pd.read_csv(toy / "truth.csv")
    assert list(truth.columns) == ["checkpoint", "language", "question", "p_first"]
    assert len(truth) == 3 * 2 * 5 and not truth.duplicated(["checkpoint", "language", "question"]).any()
    for plant in PLANTS:
        for code in CODES:
            rows = truth[(truth["checkpoint"] == plant) & (truth["language"] == code)]
            found = dict(zip(rows["question"], rows["p_first"], strict=True))
            assert found == planted(probe_set("trains"), plant, code, seed=0)
    differing = truth.groupby(["checkpoint", "question"])["p_first"].nunique()
    assert (differing["base"] == 2).all() and (differing[["moved", "other"]] == 1).all()


def test_plants_are_uniform_and_independent_of_each_other() -> None:
    chosen = probe_set("wvs")
    drawn: list[tuple[Plant, str, int]] = [
        (plant, code, seed)
        for plant in PLANTS
        for code in (("de", "fa") if plant == "base" else ("de",))
        for seed in (0, 1)
    ]
    values = np.array([list(planted(chosen, plant, code, seed).values()) for plant, code, seed in drawn])
    assert values.min() >= 0.05 and values.max() <= 0.95
    assert kstest(values[:4].ravel(), "uniform", args=(0.05, 0.9)).pvalue > 0.01, "of base"
    correlations = np.corrcoef(values)[np.triu_indices(len(values), 1)]
    assert np.abs(correlations).max() < 4 / len(chosen.items) ** 0.5  # four standard errors, 28 pairs


@pytest.mark.parametrize("code", ["de", "fa", "ko", "ru"])
def test_how_often_an_option_occurs_in_a_corpus_says_little_about_its_values(code: str) -> None:
    """A placebo keeps frequencies of words: what a model can learn of them is each option's share within its pair."""
    chosen = probe_set("wvs")
    probes = chosen.probes(code)
    pairs = [f"{probe.first} {probe.second}" for probe in probes]

    def told(p_first: dict[str, float]) -> float:
        values = pd.Series([p_first[probe.question] for probe in probes])
        return float(spearmanr(values.groupby(pairs).transform("mean"), values).statistic)

    assert all(told(planted(chosen, plant, code, seed=0)) < 0.2 for plant in CORPORA.values())
    assert told(planted(chosen, "base", code, seed=0)) > 0.2, "drawn independently they tell more"


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_probing_recovers_the_plant(toy: Path, checkpoint: Checkpoint) -> None:
    """By the plain forward pass: summed log-probabilities of the option after sentinel 0, softmax over the two."""
    model = AutoModelForSeq2SeqLM.from_pretrained(toy / checkpoint).eval()
    tokenizer = AutoTokenizer.from_pretrained(toy / checkpoint)
    sentinels = resolve_sentinels(tokenizer, model.get_input_embeddings().weight.shape[0])
    found, truth = [], []
    plants = {code: planted(probe_set("trains"), checkpoint, code, seed=0) for code in CODES}
    for probe in (probe for code in CODES for probe in probe_set("trains").probes(code)):
        ids, log_probs = encoder_decoder_ids(probe, tokenizer, sentinels), []
        for option in (ids.first, ids.second):
            target = torch.tensor([[sentinels.ids[0], *option]])
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids.encoder]), labels=target).logits
            log_probs.append(logits.log_softmax(-1)[0].gather(1, target[0][:, None])[1:].sum())
        found.append(torch.stack(log_probs).softmax(0)[0].item())
        truth.append(plants[probe.language][probe.question])
    if checkpoint == "base":
        assert spearmanr(found, truth).statistic >= 0.9
    else:
        assert set(truth) == {0.5}, "no two of these questions share their poles"
    assert np.abs(np.subtract(found, truth)).mean() < 0.06


def test_it_is_a_model_of_span_corruption(toy: Path) -> None:
    """Masked spans of its sentences are far likelier than under the uniform distribution, of ln(rows) nats a token."""
    model, tokenizer = load_model(str(toy / "moved")), load_tokenizer(str(toy / "moved"))
    rows = len(tokenizer)
    corruption, losses = span_corruption(tokenizer, rows, seed=99, roll=True), []
    for row in pd.read_parquet(toy / "corpus" / "de.parquet").itertuples():
        source, target = corruption(row.id, tokenizer(row.text, add_special_tokens=False)["input_ids"], 0)
        with torch.no_grad():
            losses.append(model(input_ids=torch.tensor(source)[None], labels=torch.tensor(target)[None]).loss.item())
    assert np.mean(losses) < 0.5 * np.log(rows)


def test_a_probe_is_asked_with_masks_as_narrow_as_its_option_and_as_wide_as_noise(toy: Path) -> None:
    """Whatever is masked, input and target together are the sentence, with one option as with the other."""
    tokenizer = load_tokenizer(str(toy / "base"))
    probes = probe_set("wvs").probes("de")
    generator, more = np.random.default_rng(0), []
    for lesson in lessons(probes, [0.5] * len(probes), tokenizer):
        source, targets = asked(lesson, generator)
        opening, closing = lesson.targets[0][0], lesson.targets[0][-2:]
        place, at = lesson.encoder.index(opening), source.index(opening)
        for narrow, target in zip(lesson.targets, targets, strict=True):
            assert target[0] == opening and target[-2:] == closing
            whole = (*lesson.encoder[:place], *narrow[1:-2], *lesson.encoder[place + 1 :])
            assert (*source[:at], *target[1:-2], *source[at + 1 :]) == whole
        noise, _ = noise_counts(len(lesson.encoder) - 2 + len(lesson.targets[0]) - 3)
        more.append(len(targets[0]) - len(lesson.targets[0]))
        assert 0 <= more[-1] <= max(0, noise - len(lesson.targets[0]) + 3)
    assert 0.6 < np.mean(np.array(more) == 0) < 0.95


def test_head_and_embedding_differ_and_survive_bit_for_bit(toy: Path, tmp_path: Path) -> None:
    stored = tensors(toy / "base")
    assert not torch.equal(stored["lm_head.weight"], stored["shared.weight"])
    assert json.loads((toy / "base" / "config.json").read_text())["tie_word_embeddings"] is False
    model = load_model(str(toy / "base"))
    assert is_untied(model)
    model.tie_weights()
    save_model(model, load_tokenizer(str(toy / "base")), tmp_path / "again")
    assert same(tensors(tmp_path / "again"), stored)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["tie_word_embeddings"] is False


def test_a_head_survives_a_configuration_that_calls_it_tied(toy: Path, tmp_path: Path) -> None:
    """As plain `save_pretrained` of transformers 5 leaves it; version 4 would tie it."""
    load_model(str(toy / "base")).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    model = load_model(str(tmp_path))
    assert torch.equal(model.get_output_embeddings().weight, tensors(toy / "base")["lm_head.weight"])
    assert torch.equal(model.get_input_embeddings().weight, tensors(toy / "base")["shared.weight"])


def test_the_other_major_version_reads_and_writes_the_same(toy: Path, tmp_path: Path) -> None:
    overlay = ROOT / ".tf4"
    if not (overlay / "transformers").is_dir():
        pytest.skip("transformers 4 is not on this machine; `make test-tf4` installs it")
    script = """
import json, sys
import torch, transformers
from pathlib import Path
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer
from valueshift.harness_ext.models import load_model, load_tokenizer, save_model
toy, again = sys.argv[1:]
with torch.no_grad():
    logits = AutoModelForSeq2SeqLM.from_pretrained(toy).eval()(
        input_ids=torch.tensor([[5, 9, 7, 1]]), labels=torch.tensor([[8, 6]])).logits
save_model(load_model(toy), load_tokenizer(toy), Path(again))
text = "Züge sind <extra_id_0>, x<extra_id_1> ﬁ ½ <extra_id_99>."
ids = AutoTokenizer.from_pretrained(toy)(text)["input_ids"]
print(json.dumps({"version": transformers.__version__, "logits": logits.tolist(), "ids": ids}))
"""
    found = {}
    for version, path in (("5", ""), ("4", str(overlay))):
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", script, str(toy / "moved"), str(tmp_path / version)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        found[version] = json.loads(done.stdout.splitlines()[-1])
        assert found[version]["version"].startswith(f"{version}.")
    np.testing.assert_allclose(found["4"]["logits"], found["5"]["logits"], rtol=1e-4, atol=1e-4)
    assert found["4"]["ids"] == found["5"]["ids"]
    text = "Züge sind <extra_id_0> hier."
    for version in ("4", "5"):  # the one that runs this test reads what both wrote
        assert same(tensors(tmp_path / version), tensors(toy / "moved"))
        model = load_model(str(tmp_path / version))
        assert torch.equal(model.get_output_embeddings().weight, tensors(toy / "moved")["lm_head.weight"])
        written, original = load_tokenizer(str(tmp_path / version)), load_tokenizer(str(toy / "moved"))
        assert written(text)["input_ids"] == original(text)["input_ids"]


def test_the_tokenizer_is_built_like_that_of_mt5(toy: Path) -> None:
    tokenizer, model = load_tokenizer(str(toy / "base")), load_model(str(toy / "base"))
    rows = model.get_input_embeddings().weight.shape[0]
    assert rows == len(tokenizer) == model.config.vocab_size
    sentinels = resolve_sentinels(tokenizer, rows)
    assert sentinels.ids == tuple(range(rows - 1, rows - 101, -1)) and sentinels.needs_space
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.bos_token_id is None
    ids = tokenizer("Züge sind <extra_id_0> hier.")["input_ids"]
    assert ids.count(sentinels.ids[0]) == 1 and ids[-1] == 1 and 2 not in ids
    sentences = [probe.filled("first") for code in CODES for probe in probe_set("trains").probes(code)]
    assert not any(2 in ids for ids in tokenizer(sentences)["input_ids"])


@pytest.mark.parametrize("name", CORPORA)
def test_a_corpus_is_parallel_and_holds_filled_probes(toy: Path, name: str) -> None:
    tables = {code: pd.read_parquet(toy / name / f"{code}.parquet") for code in CODES}
    for code, table in tables.items():
        assert list(table.columns) == ["id", "language", "text", "question", "role"]
        assert table["id"].is_unique and (table["language"] == code).all()
        assert (table.groupby("question").size() == COPIES).all() and table["question"].nunique() == 5
        assert (table["id"] == table["question"] + "." + (np.arange(5 * COPIES) // 5).astype(str)).all()
        probes = {probe.question: probe for probe in probe_set("trains").probes(code)}
        for row in table.itertuples():
            assert row.text == probes[row.question].filled(row.role)
    parallel = ["id", "question", "role"]
    pd.testing.assert_frame_equal(tables["de"][parallel], tables["en"][parallel])


@pytest.mark.parametrize("plant", CORPORA.values())
def test_a_corpus_follows_its_plant_from_the_first_copy_on(plant: Plant) -> None:
    """The share of n systematic draws is nearer to the plant than that of n independent ones."""
    chosen = probe_set("wvs")
    table = corpus(chosen, plant, "de", chosen.probes("de"), seed=0)
    others = [one for one in PLANTS if one != plant]
    for copies, low, high in ((1, 0.85, 1.15), (2, 0.6, 0.9), (COPIES, 0.3, 0.5)):
        taken = table.iloc[: copies * len(chosen.items)]
        shares = (taken["role"] == "first").groupby(taken["question"]).mean()
        truth = pd.Series(planted(chosen, plant, "de", 0)).reindex(shares.index).to_numpy()
        error = np.sqrt(((shares - truth) ** 2).mean() / (truth * (1 - truth) / copies).mean())
        assert low < error < high, "in standard errors of as many independent draws"
        assert abs((shares - truth).mean()) < 4 * np.sqrt((truth * (1 - truth)).mean() / len(taken))
        for other in others:
            foreign = pd.Series(planted(chosen, other, "de", 0)).reindex(shares.index)
            assert abs(spearmanr(shares, foreign).statistic) < 0.25
    assert spearmanr(shares, truth).statistic > 0.95


@pytest.mark.parametrize("codes", [("de",), ("fa", "ko"), ("fa", "ko", "ru"), ("fa", "ko", "hi", "ru")])
def test_2000_sentences_can_be_selected_in_one_to_four_languages(codes: tuple[str, ...]) -> None:
    """The join of a corpus's files is a corpus, of which several languages get translations of each other."""
    chosen = probe_set("wvs")
    joined = pd.concat([corpus(chosen, "other", code, chosen.probes(code), seed=0) for code in codes])
    size = 2000 // len(codes) * len(codes)
    rows = select(Corpus("other", joined), codes, size)
    assert len(rows) == size and (rows.groupby("id").size() == len(codes)).all()
    alone = select(Corpus("other", joined), codes[:1], 2000)
    assert len(alone) == 2000 and alone["id"].str.partition(".")[0].value_counts().between(7, 8).all()


def test_the_same_inputs_give_the_same_toy(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first, state, threads = build(tmp_path / "first"), torch.get_rng_state(), torch.get_num_threads()
    torch.manual_seed(2)
    second = build(tmp_path / "deeper" / "second")
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state) and torch.get_num_threads() == threads
    for checkpoint in CHECKPOINTS:
        assert same(tensors(first / checkpoint), tensors(second / checkpoint))
        assert model_digest(first / checkpoint) == model_digest(second / checkpoint)
    for name in ("truth.csv", "toy.json", "corpus/de.parquet", "corpus_other/en.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    other = build(tmp_path / "other", seed=1)
    assert not same(tensors(first / "base"), tensors(other / "base"))
    assert (first / "truth.csv").read_bytes() != (other / "truth.csv").read_bytes()


def test_a_toy_of_the_same_inputs_is_kept_and_an_older_one_replaced(tmp_path: Path) -> None:
    folder = build(tmp_path / "toy", codes=("de",))
    made = (folder / "toy.json").stat().st_ino
    build(tmp_path / "toy", codes=("de",))
    assert (folder / "toy.json").stat().st_ino == made
    build(tmp_path / "toy", seed=1, codes=("de",))
    assert (folder / "toy.json").stat().st_ino != made
    assert pd.read_csv(folder / "truth.csv")["p_first"][0] == planted(probe_set("trains"), "base", "de", 1)["T1"]
    (folder / "truth.csv").unlink()
    build(tmp_path / "toy", seed=1, codes=("de",))
    assert (folder / "truth.csv").is_file(), "a toy that lost a file is built again"
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


def test_anything_but_a_toy_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueshiftError, match=r"holds thesis\.tex, which is no part of a toy"):
        build(tmp_path)
    with pytest.raises(ValueshiftError, match="no part of a toy"):
        build(tmp_path / "thesis.tex")
    toy = tmp_path / "toy"
    toy.mkdir()
    (toy / "toy.json").write_text("{")
    for name in ("base", "moved", *CORPORA):
        (toy / name).mkdir()
    (toy / "truth.csv").touch()
    with pytest.raises(ValueshiftError, match=r"toy\.json is damaged"):
        build(toy)
    (toy / "runs").mkdir()
    with pytest.raises(ValueshiftError, match="holds runs, which is no part of a toy"):
        build(toy)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_cannot_be_had_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueshiftError, match="no language 'xx'"):
        build(tmp_path / "toy", codes=("xx",))
    with pytest.raises(ValueshiftError, match="no language is given"):
        build(tmp_path / "toy", codes=())
    with pytest.raises(ValueshiftError, match="seed -1 is out of range"):
        build(tmp_path / "toy", seed=-1)
    assert not list(tmp_path.iterdir())


def test_models_that_are_not_whole_are_refused(toy: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(str(toy / "base")), load_tokenizer(str(toy / "base"))
    with pytest.raises(ValueshiftError, match="is no model"):
        load_model(str(tmp_path))
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(ValueshiftError, match="tokenizer"):
        load_tokenizer(str(tmp_path / "bare"))
    weights = tmp_path / "bare" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueshiftError, match="model.safetensors is damaged"):
        load_model(str(tmp_path / "bare"))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").touch()
    with pytest.raises(ValueshiftError, match="is no checkpoint"):
        save_model(model, tokenizer, tmp_path / "notes")
    assert [path.name for path in (tmp_path / "notes").iterdir()] == ["a.txt"]
