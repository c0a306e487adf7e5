"""Training computes what the stock Trainer computes: loss, gradients, and the weights after some steps."""

import copy

import pytest
import torch
from tolerances import GRADIENT, LOGPROB
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Trainer, TrainingArguments
from valueshift.core.probes import probe_set
from valueshift.finetune import chunked_loss as module
from valueshift.finetune.chunked_loss import chunked_loss, cross_entropy
from valueshift.finetune.span_corruption import SpanCorruptionCollator, sentence_tokens, span_corruption
from valueshift.finetune.training import Training, train, with_adapter
from valueshift.harness_ext.models import load_model, load_tokenizer

THREE = 3 * 2_100
"""Logits of three targets, over the 2,032 or so rows of the tiny models."""


@pytest.fixture(params=["untied", "tied", "lora"])
def model(request, tiny_mt5):
    found = load_model(str(tiny_mt5(untied=request.param != "tied")))
    return with_adapter(found, 0) if request.param == "lora" else found


@pytest.fixture
def examples(tiny_mt5):
    """40 sentences as the collator takes them, and the collator."""
    folder = str(tiny_mt5())
    tokenizer = load_tokenizer(folder)
    texts = [probe.filled("first") for probe in probe_set("wvs").probes("de")[:40]]
    tokens, _ = sentence_tokens(texts, tokenizer, 100)
    rows = load_model(folder).get_input_embeddings().weight.shape[0]
    collator = SpanCorruptionCollator(span_corruption(tokenizer, rows, roll=True))
    names = [{"example": f"a:de:{number}", "tokens": ids, "split": "train"} for number, ids in enumerate(tokens)]
    return names, collator, tokenizer


def step(model, batch, scale=1.0):
    """Loss and gradients of one step, with dropout."""
    model.train()
    model.zero_grad()
    torch.manual_seed(0)
    loss = model(**batch).loss * scale
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_same(one, other):
    assert one[0] == pytest.approx(other[0], **LOGPROB)
    assert one[1].keys() == other[1].keys() and one[1]
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).abs().max() <= GRADIENT * max(1, gradient.abs().max()), name


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_loss_and_gradients_are_the_stock_ones(model, examples, monkeypatch, scale):
    sentences, collator, _ = examples
    batch = collator(sentences[:8])
    stock = step(model, batch, scale)
    monkeypatch.setitem(module._LOGITS, "cpu", THREE)
    with chunked_loss(model):
        assert_same(step(model, batch, scale), stock)
        model.eval()
        with torch.no_grad():
            quiet = model(**batch).loss
    with torch.no_grad():
        assert quiet == pytest.approx(model(**batch).loss.item(), **LOGPROB)
    assert_same(step(model, batch, scale), stock)  # afterwards the model is as it was


def test_bfloat16_is_as_near_to_float32_as_the_stock_one(model, examples, monkeypatch):
    sentences, collator, _ = examples
    batch = collator(sentences[:8])
    exact = step(model, batch)
    monkeypatch.setitem(module._LOGITS, "cpu", THREE)
    with torch.autocast("cpu", torch.bfloat16):
        stock = step(model, batch)
    with chunked_loss(model), torch.autocast("cpu", torch.bfloat16):
        ours = step(model, batch)
    assert ours[0] == pytest.approx(stock[0], rel=2**-8)  # a unit in the last place of bfloat16
    for name, gradient in exact[1].items():
        assert ours[1][name].dtype == gradient.dtype
        assert (ours[1][name] - gradient).norm() <= 1.2 * (stock[1][name] - gradient).norm() + 1e-6


class Largest(TorchDispatchMode):
    """The most elements of any tensor that is computed."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self.elements = max([self.elements, *(one.numel() for one in tree_leaves(found) if torch.is_tensor(one))])
        return found


def test_the_logits_of_all_targets_are_never_held(monkeypatch):
    monkeypatch.setitem(module._LOGITS, "cpu", 10 * 500)
    weight, hidden = torch.randn(500, 4, requires_grad=True), torch.randn(90, 4, requires_grad=True)
    labels = torch.randint(500, (90,))
    with Largest() as stock:
        torch.nn.functional.cross_entropy(hidden @ weight.T, labels).backward()
    with Largest() as ours:
        cross_entropy(hidden, weight, labels).backward()
    assert stock.elements == 90 * 500
    assert ours.elements == 10 * 500


@pytest.mark.parametrize("kind", ["untied", "tied", "lora"])
def test_a_run_equals_the_stock_trainer(tiny_mt5, examples, tmp_path, kind):
    sentences, collator, tokenizer = examples
    ours = load_model(str(tiny_mt5(untied=kind != "tied")))
    if kind == "lora":
        ours = with_adapter(ours, 0)
    stock, before = copy.deepcopy(ours), copy.deepcopy(ours.state_dict())
    dev = [{**sentences[0], "split": "dev"}]
    trainer = Trainer(
        stock,
        TrainingArguments(
            str(tmp_path / "stock"),
            num_train_epochs=2,
            learning_rate=5e-5,
            per_device_train_batch_size=8,
            use_cpu=True,
            seed=0,
            logging_steps=1,
            remove_unused_columns=False,
            save_strategy="no",
            eval_strategy="epoch",
            eval_on_start=True,
            report_to="none",
            disable_tqdm=True,
        ),
        data_collator=Epochs(collator),
        train_dataset=sentences,
        eval_dataset=dev,
    )
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    how = Training(epochs=2, learning_rate=5e-5)
    losses = train(ours, tokenizer, {"train": sentences, "dev": dev}, collator.corruption, how, tmp_path / "ours")
    found = losses[losses["split"] == "train"]["loss"]
    assert found.tolist() == pytest.approx(expected, **LOGPROB)
    after = stock.state_dict()
    assert ours.state_dict().keys() == after.keys()
    for name, tensor in ours.state_dict().items():
        moved = (after[name] - before[name]).norm()
        assert (tensor - after[name]).norm() <= 0.01 * moved, (
            name
        )  # AdamW makes steps of one size from gradients that cancel
    assert max((after[name] - tensor).abs().max() for name, tensor in before.items()) > 2e-4
    if kind == "untied":
        rule = collator.corruption
        unused = torch.ones(len(before["shared.weight"]), dtype=torch.bool)
        unused[[*rule.sentinels, rule.eos, rule.pad, *(token for one in sentences for token in one["tokens"])]] = False
        moved = (ours.state_dict()["shared.weight"] != before["shared.weight"]).any(1)
        assert unused.sum() > 1000 and not moved[unused].any() and moved.sum() > 100


class Epochs:
    """The collator for the stock Trainer: 5 batches of 8 make an epoch."""

    def __init__(self, collator):
        self.collator, self.batches = copy.copy(collator), 0

    def __call__(self, features):
        self.collator.epoch = self.batches // 5
        self.batches += features[0]["split"] == "train"
        return self.collator(features)
