"""Fine-tuning: what it writes, that it resumes exactly, and how it fails."""

import os
import resource
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM
from valueshift.core.digests import model_digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table
from valueshift.finetune import finetuning
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training, _Trainer
from valueshift.harness_ext.models import load_model
from valueshift.harness_ext.probing import Asking, ask

QUICK = Training(epochs=2, learning_rate=1e-3, save_every=3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """Runs are compared to the bit: all of them, also those of this module's fixtures, have one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> str:
    """40 parallel sentences in German and Farsi."""
    rows = [
        (str(number), language, probe.filled("first"))
        for language in ("de", "fa")
        for number, probe in enumerate(probe_set("wvs").probes(language)[:40])
    ]
    path = tmp_path_factory.mktemp("corpus") / "small.parquet"
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(path)
    return str(path)


@pytest.fixture(scope="module")
def base(tiny_mt5) -> str:
    return str(tiny_mt5())


@pytest.fixture(scope="module")
def done(base, corpus, tmp_path_factory) -> Path:
    return finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path_factory.mktemp("runs"))


def checkpoint(record: Path) -> Path:
    return record.parent / read_record(record).settings["checkpoint"]


def test_defaults_are_the_papers():
    assert (Training().epochs, Training().learning_rate, Training().batch_size) == (5, 5e-5, 8)


def test_record(done):
    record = read_record(done)
    losses, examples = read_table(done, "losses"), read_table(done, "examples")
    train, dev = losses[losses["split"] == "train"], losses[losses["split"] == "dev"]
    assert train["step"].tolist() == list(range(1, 9))  # 32 sentences in batches of 8, twice
    assert dev["step"].tolist() == [0, 4, 8]
    assert record.metrics["loss/dev"] == dev["loss"].iloc[-1]
    assert record.metrics["loss/dev"] < record.metrics["loss/dev_before"]
    assert record.metrics["loss/train"] == pytest.approx(train["loss"].iloc[4:].mean())
    assert examples["split"].value_counts().to_dict() == {"train": 32, "dev": 8}
    assert examples["order"].tolist() == list(range(40))
    assert record.inputs["span_corruption"]["roll"] is True
    assert record.settings["checkpoint_digest"] == model_digest(checkpoint(done))
    assert "fine-tuned on small (fa)" in (checkpoint(done) / "README.md").read_text(encoding="utf-8")
    assert not list(done.parent.glob("checkpoints/*.training"))


def test_done_is_not_done_again(done, base, corpus):
    before = (done / "record.json").stat().st_mtime_ns
    assert finetune(base, corpus, ["fa"], 40, QUICK, root=done.parent) == done
    assert (done / "record.json").stat().st_mtime_ns == before


def test_the_head_stays_untied_and_loads_bit_for_bit(done):
    saved = load_file(checkpoint(done) / "model.safetensors")
    model = load_model(str(checkpoint(done)))
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert torch.equal(head, saved["lm_head.weight"])
    assert torch.equal(embedding, saved["shared.weight"])
    assert not torch.equal(head, embedding)


def test_a_step_of_no_size_changes_no_bit(base, corpus, tmp_path):
    """At a learning rate far below float32's resolution every tensor survives load, train, save, load."""
    record = finetune(base, corpus, ["fa"], 40, Training(epochs=1, learning_rate=1e-30), root=tmp_path)
    before, after = load_model(base).state_dict(), load_model(str(checkpoint(record))).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("save_every", "stop", "made_again"),
    [(3, 7, [6, 7]), (4, 5, [4, 5, 6, 7])],
    ids=["within an epoch", "at its end"],
)
def test_resumed_run_has_the_same_losses(done, base, corpus, tmp_path, monkeypatch, save_every, stop, made_again):
    step, how = _Trainer.training_step, Training(epochs=2, learning_rate=1e-3, save_every=save_every)

    def stopped(self, *args, **kwargs):
        if self.state.global_step == stop:  # in the second epoch
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(_Trainer, "training_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        finetune(base, corpus, ["fa"], 40, how, root=tmp_path)
    assert find_records(tmp_path) == []
    steps = []
    monkeypatch.setattr(
        _Trainer, "training_step", lambda self, *a, **k: (steps.append(self.state.global_step), step(self, *a, **k))[1]
    )
    resumed = finetune(base, corpus, ["fa"], 40, how, root=tmp_path)
    assert steps == made_again
    whole, again = read_table(done, "losses"), read_table(resumed, "losses")
    assert again[["step", "split"]].equals(whole[["step", "split"]])
    assert again["loss"].tolist() == pytest.approx(whole["loss"].tolist())
    one, other = load_file(checkpoint(done) / "model.safetensors"), load_file(checkpoint(resumed) / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_stopped_after_its_last_step_is_only_written(done, base, corpus, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetuning, "write_checkpoint", stopped)
        with pytest.raises(KeyboardInterrupt):
            finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path)
    monkeypatch.setattr(_Trainer, "training_step", stopped)
    again = finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path)
    assert model_digest(checkpoint(again)) == model_digest(checkpoint(done))
    assert read_table(again, "losses").equals(read_table(done, "losses"))


def test_intermediate_models_and_several_languages(base, corpus, tmp_path):
    how = Training(epochs=1, accumulate=2, keep_every=2)
    record = finetune(base, corpus, ["de", "fa"], 80, how, root=tmp_path)
    examples = read_table(record, "examples")
    ids = examples.assign(id=examples["example"].str.split(":").str[2])
    assert (ids.groupby("id")["split"].nunique() == 1).all()
    assert read_record(record).metrics["steps"] == 8  # 64 sentences in batches of 8, each in two parts
    losses = read_table(record, "losses")["loss"]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)  # parts are averaged, not added
    kept = sorted(path.name.rpartition("-")[2] for path in (tmp_path / "checkpoints").glob("*-step*"))
    assert kept == ["step2", "step4", "step6", "step8"]
    final = checkpoint(record)
    assert model_digest(final.with_name(f"{final.name}-step8")) == model_digest(final)
    assert model_digest(final.with_name(f"{final.name}-step6")) != model_digest(final)


def test_adapter_and_merged_copy_answer_alike(base, corpus, tmp_path):
    how = Training(epochs=1, learning_rate=1e-2, lora=True)
    record = finetune(base, corpus, ["fa"], 40, how, merge=True, root=tmp_path)
    adapter = checkpoint(record)
    merged = adapter.with_name(f"{adapter.name}-merged")
    assert (adapter / "adapter_model.safetensors").is_file()
    assert not (adapter / "model.safetensors").exists()
    inputs = {"input_ids": torch.tensor([[5, 6, 7, 1]]), "decoder_input_ids": torch.tensor([[0, 8, 9]])}
    with torch.no_grad():
        models = [AutoModelForSeq2SeqLM.from_pretrained(adapter), load_model(str(merged)), load_model(base)]
        logits = [model.eval()(**inputs).logits for model in models]
    assert (logits[0] - logits[1]).abs().max() < 1e-4 * logits[0].abs().max()
    assert (logits[0] - logits[2]).abs().max() > 1e-2
    assert ask(str(merged), probe_set("wvs"), ["fa"], tmp_path, Asking(limit=5)).scores["p_first"].notna().all()
    assert torch.equal(
        load_file(merged / "model.safetensors")["lm_head.weight"],
        load_file(Path(base) / "model.safetensors")["lm_head.weight"],
    )


def test_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(base, corpus, tmp_path, monkeypatch):
    compute = _Trainer.compute_loss

    def poisoned(self, model, inputs, *args, **kwargs):
        loss = compute(self, model, inputs, *args, **kwargs)
        return loss * float("nan") if model.training and self.state.global_step == 4 else loss

    monkeypatch.setattr(_Trainer, "compute_loss", poisoned)
    with pytest.raises(ValueshiftError, match=r"loss is nan at step 5.*last good checkpoint is .*checkpoint-3"):
        finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path)
    (good,) = (tmp_path / "checkpoints").glob("*.training/checkpoint-3")
    assert all(tensor.isfinite().all() for tensor in load_model(str(good)).state_dict().values())
    assert find_records(tmp_path) == []


def test_a_full_disk_leaves_no_record_and_the_run_goes_on(done, base, corpus, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(ValueshiftError, match="cannot write the checkpoint of step 3"):
            finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert find_records(tmp_path) == []
    record = finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path)
    assert model_digest(checkpoint(record)) == model_digest(checkpoint(done))


@pytest.mark.parametrize(
    ("languages", "size", "message"),
    [
        (["ko"], 40, "has no language 'ko'"),
        (["fa"], 41, "has 40 sentences in fa, 41 are needed"),
        (["fa"], 2, "leave the dev split empty"),
    ],
)
def test_sentences_that_the_corpus_lacks(base, corpus, tmp_path, languages, size, message):
    with pytest.raises(ValueshiftError, match=message):
        finetune(base, corpus, languages, size, root=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: 0"),
        ({"learning_rate": float("nan")}, "learning rate nan"),
        ({"seed": -1}, "seed -1"),
        ({"keep_every": 0}, "intermediate models: 0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueshiftError, match=message):
        Training(**settings)


def test_a_batch_that_cannot_be_shared():
    assert Training(batch_size=8, accumulate=2).share(devices=2) == 2
    with pytest.raises(ValueshiftError, match="multiple of 6"):
        Training(batch_size=8, accumulate=2).share(devices=3)


def test_only_an_adapter_is_merged(base, corpus, tmp_path):
    with pytest.raises(ValueshiftError, match="only an adapter can be merged"):
        finetune(base, corpus, ["fa"], 40, merge=True, root=tmp_path)


def test_two_processes_share_the_batch(done, base, corpus, tmp_path):
    """As under torchrun: as many steps as one process makes, the same dev loss before, one record."""
    import subprocess

    script = tmp_path / "run.py"
    script.write_text(
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from valueshift.finetune.finetuning import finetune\n"
        "from valueshift.finetune.training import Training\n"
        f"finetune({base!r}, {corpus!r}, ['fa'], 40, Training(epochs=2, learning_rate=1e-3), root=Path({str(tmp_path)!r}))\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr[-3000:]
    (record,) = find_records(tmp_path)
    shared, single = read_record(record), read_record(done)
    assert shared.settings["processes"] == 2
    assert shared.metrics["steps"] == single.metrics["steps"] == 8
    assert shared.metrics["loss/dev_before"] == pytest.approx(single.metrics["loss/dev_before"], rel=0.02)


def test_a_launchers_settings_change_nothing_and_are_named(done, base, corpus, tmp_path, monkeypatch, caplog):
    """As `accelerate launch --mixed_precision bf16` sets them; the record says what ran."""
    launched = {"ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"}
    for name, value in {**launched, "ACCELERATE_DYNAMO_BACKEND": "no"}.items():
        monkeypatch.setenv(name, value)
    again = finetune(base, corpus, ["fa"], 40, QUICK, root=tmp_path)
    assert again.name == done.name and model_digest(checkpoint(again)) == model_digest(checkpoint(done))
    assert all(f"{name}={value}" in caplog.text for name, value in launched.items()) and "DYNAMO" not in caplog.text
    assert {name: os.environ[name] for name in launched} == launched


@pytest.mark.parametrize("engine", ["DEEPSPEED", "FSDP", "MEGATRON_LM"])
def test_another_engine_is_refused_before_a_corpus_is_read(base, tmp_path, monkeypatch, engine):
    monkeypatch.setenv(f"ACCELERATE_USE_{engine}", "true")
    with pytest.raises(ValueshiftError, match=f"ACCELERATE_USE_{engine} is set"):
        finetune(base, "no-such-corpus", ["fa"], 40, QUICK, root=tmp_path)
