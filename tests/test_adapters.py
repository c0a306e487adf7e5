"""An adapter's folder is probed as the model that it makes of the one under it, wherever that lies."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from tolerances import LOGPROB
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.records import read_record
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training
from valueshift.harness_ext import families
from valueshift.harness_ext.families import pretrained_digest
from valueshift.harness_ext.models import load_config, load_model, load_tokenizer
from valueshift.harness_ext.probing import Asking, ask, run_of

LOGPROBS = ["logprob_first", "logprob_second"]
HOW = Training(epochs=1, learning_rate=1e-2, lora=True, keep_every=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """40 sentences in Farsi."""
    probes = probe_set("wvs").probes("fa")[:40]
    rows = [(str(number), "fa", probe.filled("first")) for number, probe in enumerate(probes)]
    path = tmp_path_factory.mktemp("corpus") / "small.parquet"
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def base(tiny_mt5, tmp_path_factory) -> Path:
    return Path(shutil.copytree(tiny_mt5(), tmp_path_factory.mktemp("under") / "base"))


@pytest.fixture(scope="module")
def trained(base, corpus, tmp_path_factory) -> Path:
    return finetune(str(base), corpus, ["fa"], 40, HOW, merge=True, root=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def adapter(trained) -> Path:
    return trained.parent / read_record(trained).settings["checkpoint"]


def scores(model: Path, root: Path) -> pd.DataFrame:
    return ask(str(model), probe_set("wvs"), ["fa"], root, Asking(limit=10)).scores


def assert_alike(one: Path, other: Path, root: Path) -> None:
    assert scores(one, root)[LOGPROBS].to_numpy() == pytest.approx(scores(other, root)[LOGPROBS].to_numpy(), **LOGPROB)


def over(adapter: Path, folder: Path, base: str | None) -> Path:
    """A copy of an adapter that names another base."""
    shutil.copytree(adapter, folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}))
    return folder


def test_probing_an_adapter_equals_probing_the_merged_copy(adapter, base, tmp_path):
    assert_alike(adapter, adapter.with_name(f"{adapter.name}-merged"), tmp_path)
    moved = scores(adapter, tmp_path)[LOGPROBS] - scores(base, tmp_path)[LOGPROBS]
    assert moved.abs().max().max() > 0.1
    model = load_model(str(adapter))
    assert not torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)
    assert load_model(str(adapter), dtype=torch.bfloat16).dtype == torch.bfloat16


def test_intermediate_adapters_are_probed(trained, adapter, tmp_path):
    kept = read_record(trained).settings["intermediate"]
    assert kept == {step: f"checkpoints/{adapter.name}-step{step}" for step in ("2", "4")}
    assert_alike(trained.parent / kept["4"], adapter, tmp_path)
    run = run_of(str(trained.parent / kept["2"]), "wvs", "fa", tmp_path)
    early = run.scores[LOGPROBS].head(10) - scores(adapter, tmp_path)[LOGPROBS]
    assert early.abs().max().max() > 1e-3


def test_asking_for_other_intermediate_models_trains_again(trained, base, corpus, tmp_path):
    root = shutil.copytree(trained.parent, tmp_path / "runs")
    again = finetune(str(base), corpus, ["fa"], 40, Training(1, 1e-2, lora=True, keep_every=3), root=root)
    assert again.name == trained.name
    assert (root / read_record(again).settings["intermediate"]["3"] / "adapter_config.json").is_file()
    written = (again / "record.json").stat().st_mtime_ns
    assert finetune(str(base), corpus, ["fa"], 40, Training(1, 1e-2, lora=True), root=root) == again
    assert (again / "record.json").stat().st_mtime_ns == written


def test_the_digest_covers_the_base_and_not_its_place(adapter, base, tiny_mt5, tmp_path):
    found = pretrained_digest(str(adapter))
    shutil.copytree(base, tmp_path / "elsewhere")
    assert pretrained_digest(str(over(adapter, tmp_path / "one", str(tmp_path / "elsewhere")))) == found
    assert pretrained_digest(str(over(adapter, tmp_path / "two", "../elsewhere"))) == found
    assert pretrained_digest(str(over(adapter, tmp_path / "three", str(tiny_mt5(untied=False))))) != found
    import lm_eval.models.huggingface  # noqa: F401  (patched by the hook, which keeps the head of `base`)

    assert families.current({"pretrained": str(base), "peft": str(adapter)}).digest == found
    assert_alike(adapter, tmp_path / "two", tmp_path)


def test_a_relative_path_may_start_from_the_working_directory(adapter, base, tmp_path, monkeypatch):
    relative = over(adapter, tmp_path / "relative", base.name)
    with pytest.raises(ValueshiftError, match="of 'base'"):
        load_config(str(relative))
    monkeypatch.chdir(base.parent)
    assert load_config(str(relative)).vocab_size == load_config(str(base)).vocab_size


def test_an_adapter_without_tokenizer_has_that_of_its_base(adapter, base, tmp_path):
    bare = over(adapter, tmp_path / "bare", str(base))
    for file in bare.glob("*token*"):
        file.unlink()
    text = probe_set("wvs").probes("fa")[0].text
    assert load_tokenizer(str(bare))(text).input_ids == load_tokenizer(str(base))(text).input_ids


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("/gone/base", "was trained over /gone/base, which is not there"),
        ("../gone", "was trained over ../gone, which is not there"),
        ("someone/gone", "cannot load the configuration of 'someone/gone'"),
        (None, "names no base model"),
    ],
)
def test_a_missing_base_is_named(adapter, tmp_path, named, message):
    with pytest.raises(ValueshiftError, match=message):
        run_of(str(over(adapter, tmp_path / "orphan", named)), "wvs", "fa", tmp_path)


def test_an_adapter_that_does_not_fit_is_refused(adapter, base, tmp_path):
    other = over(adapter, tmp_path / "other", str(base))
    (other / "adapter_model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueshiftError, match="other.adapter_model.safetensors is damaged"):
        load_model(str(other))


def test_an_adapter_over_an_adapter(adapter, corpus, tmp_path):
    record = finetune(str(adapter), corpus, ["fa"], 40, HOW, merge=True, root=tmp_path)
    second = tmp_path / read_record(record).settings["checkpoint"]
    assert json.loads((second / "adapter_config.json").read_text())["base_model_name_or_path"] == str(adapter)
    assert_alike(second, second.with_name(f"{second.name}-merged"), tmp_path)
