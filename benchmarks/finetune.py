"""How fast and how large fine-tuning is at mT5-small's real shape: `python benchmarks/finetune.py [--threads N]`.

Random untied weights of 300M parameters, batches of 8, the same masks and dropout: the stock Hugging Face Trainer with its
defaults and a plain Python collator, and ours, each in a process of its own. For both: tokens (inputs and targets, without
padding) a second, peak memory, losses, and the share of the step that the collator takes. Time is processor time a thread, so
that other work on the machine does not count; on a GPU it is wall time, and memory is the GPU's.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.table import Table
from transformers import MT5Config, MT5ForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments
from valueshift.finetune.span_corruption import IGNORED, SpanCorruption, SpanCorruptionCollator
from valueshift.finetune.training import Training, precision, train

ROWS, SENTINELS = 250_112, 100
SHAPE = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8, "num_heads": 6}
LENGTHS = {"verse": (30, 66), "long": (568, 569)}
"""Tokens of a sentence, from and below: inputs and targets of about 42 and 11 tokens, up to 59 and 15; and of 512 and 115."""
SENTENCES, BATCH = 2_000, 8
GPU = torch.cuda.is_available()


class EnoughError(Exception):
    """The steps are made; nothing is saved."""


class Clock(TrainerCallback):  # type: ignore[misc]
    """Measures whole steps, from the end of one to the end of the next; the first warms up."""

    steps, ends, losses = 0, [], []  # type: ignore[var-annotated]
    collating = 0.0
    peak = 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        Clock.ends.append((now(), Clock.collating))
        Clock.peak = peak_megabytes()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            Clock.losses.append(logs["loss"])
            if len(Clock.losses) > Clock.steps:
                raise EnoughError


def now() -> float:
    """Seconds of processor time a thread, or of wall time when the GPU is done."""
    if GPU:
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def peak_megabytes() -> float:
    """The most memory of this process, or of its GPU, so far."""
    if GPU:
        return torch.cuda.max_memory_allocated() / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def real_shape() -> Any:
    """A random mT5-small whose head is its own, as in the real one."""
    torch.manual_seed(0)
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=ROWS, decoder_start_token_id=0, **SHAPE))
    model.lm_head = torch.nn.Linear(SHAPE["d_model"], ROWS, bias=False)
    model.config.tie_word_embeddings = False
    return model


def corpus(shortest: int, longest: int, split: str, number: int) -> list[dict[str, Any]]:
    """Sentences of random tokens, of which few are frequent, as in text."""
    random = np.random.default_rng(0)
    lengths = random.integers(shortest, longest, number)
    draws = (random.zipf(1.2, size=10 * length) for length in lengths)
    tokens = [found[found < ROWS - 1000][:length] + 500 for found, length in zip(draws, lengths, strict=True)]
    return [{"example": f"{split}:{i}", "tokens": ids, "split": split} for i, ids in enumerate(tokens)]


def plain_collator(rule: SpanCorruption) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Span corruption as a first script would write it: token by token, in lists."""

    def collate(features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        inputs, targets = [], []
        for one in features:
            tokens = [int(token) for token in one["tokens"]]
            mask = rule.noise_mask(len(tokens), rule._generator(one["example"], 0))
            source: list[int] = []
            target: list[int] = []
            spans = 0
            for place, token in enumerate(tokens):
                if mask[place]:
                    if place == 0 or not mask[place - 1]:
                        source.append(rule.sentinels[spans])
                        target.append(rule.sentinels[spans])
                        spans += 1
                    target.append(token)
                else:
                    source.append(token)
            inputs.append([*source, rule.eos])
            targets.append([*target, rule.sentinels[spans], rule.eos])
        wide, long = max(map(len, inputs)), max(map(len, targets))
        return {
            "input_ids": torch.tensor([ids + [rule.pad] * (wide - len(ids)) for ids in inputs]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (wide - len(ids)) for ids in inputs]),
            "labels": torch.tensor([ids + [IGNORED] * (long - len(ids)) for ids in targets]),
        }

    return collate


def timed(collate: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """A collator's method, its time added to the clock."""

    def measured(*args: Any) -> Any:
        start = time.process_time()
        batch = collate(*args)
        Clock.collating += time.process_time() - start
        return batch

    return measured


def run(variant: str, length: str, steps: int) -> dict[str, Any]:
    """Make one warm-up step and some more in this process."""
    rule = SpanCorruption(tuple(range(ROWS - 13, ROWS - 13 - SENTINELS, -1)), eos=1, pad=0, roll=True)
    train_set, dev_set = corpus(*LENGTHS[length], "train", SENTENCES), corpus(*LENGTHS[length], "dev", BATCH)
    Clock.steps = steps
    transformers.trainer.DEFAULT_CALLBACKS.append(Clock)
    model = real_shape()
    with tempfile.TemporaryDirectory() as work:
        try:
            if variant == "ours":
                SpanCorruptionCollator.__call__ = timed(SpanCorruptionCollator.__call__)  # type: ignore[method-assign]
                train(model, None, {"train": train_set, "dev": dev_set}, rule, Training(batch_size=BATCH), Path(work))
            else:
                settings = TrainingArguments(
                    work,
                    num_train_epochs=Training().epochs,
                    per_device_train_batch_size=BATCH,
                    seed=0,
                    bf16=precision() == "bfloat16",
                    use_cpu=not GPU,
                    eval_strategy="epoch",
                    eval_on_start=True,
                    prediction_loss_only=True,
                    logging_steps=1,
                    remove_unused_columns=False,
                    report_to="none",
                    disable_tqdm=True,
                )
                collate = timed(plain_collator(rule))  # type: ignore[arg-type]
                Trainer(model, settings, data_collator=collate, train_dataset=train_set, eval_dataset=dev_set).train()
        except EnoughError:
            pass
    (start, collated), (end, collated_then) = Clock.ends[0], Clock.ends[-1]
    return {
        "seconds": (end - start) / steps,
        "collator": (collated_then - collated) / (end - start) / torch.get_num_threads(),
        "megabytes": Clock.peak,
        "losses": Clock.losses,
        "rows": len(np.unique(np.concatenate([one["tokens"] for one in train_set]))),
        "optimizer": str(TrainingArguments("unused", use_cpu=True).optim),
    }


def tokens_a_step(length: str) -> tuple[float, float]:
    """Mean tokens of a batch's inputs and targets."""
    rule = SpanCorruption(tuple(range(SENTINELS)), eos=1, pad=0, roll=True)
    pairs = [rule(one["example"], one["tokens"], 0) for one in corpus(*LENGTHS[length], "train", SENTENCES)]
    return BATCH * float(np.mean([len(x) for x, _ in pairs])), BATCH * float(np.mean([len(y) for _, y in pairs]))


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=4, help="measured steps at verse length; a quarter when long")
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--variant", choices=("stock", "ours"), help="measure this alone, in this process, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    steps = {"verse": options.steps, "long": max(1, options.steps // 4)}
    if options.variant:
        print(json.dumps(run(options.variant, options.lengths[0], steps[options.lengths[0]])))
        return
    table = Table(title=f"Fine-tuning at mT5-small's shape, batch {BATCH}, {options.threads} threads")
    for column in (
        "tokens",
        "method",
        "s/step",
        "tokens/s",
        "x stock",
        "peak MB",
        "x stock",
        "collator",
        "loss differs",
    ):
        table.add_column(column, justify="left" if column == "method" else "right")
    for length in options.lengths:
        inputs, targets = tokens_a_step(length)
        found = {}
        for variant in ("stock", "ours"):
            command = [sys.executable, __file__, "--variant", variant, "--lengths", length]
            command += ["--threads", str(options.threads), "--steps", str(options.steps)]
            ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[variant] = json.loads(ran.stdout.splitlines()[-1])
        stock = found["stock"]
        for variant, one in found.items():
            apart = max(abs(a - b) for a, b in zip(one["losses"], stock["losses"], strict=True))
            table.add_row(
                f"{inputs / BATCH:.0f}/{targets / BATCH:.0f}",
                variant,
                f"{one['seconds']:.2f}",
                f"{(inputs + targets) / one['seconds']:.0f}",
                f"{stock['seconds'] / one['seconds']:.2f}",
                f"{one['megabytes']:.0f}",
                f"{one['megabytes'] / stock['megabytes']:.2f}",
                f"{100 * one['collator']:.2f} %",
                f"{apart:.1e}",
            )
        print(f"{length}: {stock['rows']:,} rows of the embedding are used; stock optimizer {stock['optimizer']}")
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()
