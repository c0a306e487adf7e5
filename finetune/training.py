"""Fine-tuning by span corruption with Hugging Face's Trainer (paper, section 4.1 and appendix C).

AdamW with a linear schedule, learning rate 5e-5, batches of 8, 5 epochs, and the Trainer's defaults otherwise: gradients
clipped at norm 1, no weight decay, no warm-up, training sentences shuffled anew each epoch by seed. What is computed is what
the stock Trainer computes, to rounding; the loss in chunks (`chunked_loss`) and rows of the embedding that no text uses left
alone (`used_rows`) save time and memory.

A run that was stopped goes on from its last whole checkpoint with the same losses: weights, optimiser, schedule, random
states and the losses so far are kept there, and masks depend on seed, epoch and example only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from ..core.errors import ValueshiftError
from ..core.files import explained
from ..core.limits import EPOCHS, SEEDS
from ..core.outside import read_json
from ..harness_ext.heads import keep_untied_head
from .chunked_loss import chunked_loss
from .launching import own_settings, precision, processes, refuse_other_engines
from .span_corruption import SpanCorruption, SpanCorruptionCollator
from .used_rows import only_used_rows

LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q", "v"]}
"""Of Hu et al. (2022): queries and values of every attention of mT5 and T5."""

_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps, {rate_fmt}, done at {eta:%H:%M:%S}"


@dataclass(frozen=True)
class Training:
    """How a model is trained; the defaults are the paper's.

    Raises:
        ValueshiftError: a value is out of range, or a batch cannot be accumulated in so many parts.
    """

    epochs: int = 5
    learning_rate: float = 5e-5
    batch_size: int = 8
    """Sentences in an optimiser step, over all devices and accumulated parts."""
    accumulate: int = 1
    """Parts that a batch is computed in, where it does not fit into memory."""
    seed: int = 0
    lora: bool = False
    """Train an adapter (`LORA`) instead of all weights."""
    save_every: int = 500
    """Steps between the checkpoints that a stopped run goes on from; the last two are kept until it is done."""
    keep_every: int | None = None
    """Steps between intermediate models that are kept beside the final one."""

    def __post_init__(self) -> None:
        counts = {
            "epochs": self.epochs,
            "batch size": self.batch_size,
            "accumulated parts": self.accumulate,
            "steps between checkpoints": self.save_every,
            "steps between intermediate models": 1 if self.keep_every is None else self.keep_every,
        }
        for name, number in counts.items():
            if number < 1:
                raise ValueshiftError(f"{name}: {number} is too few; give 1 or more")
        if self.epochs > EPOCHS:
            raise ValueshiftError(f"epochs: {self.epochs:,} is too many; give {EPOCHS:,} or fewer")
        if not 0 <= self.seed < SEEDS:
            raise ValueshiftError(f"seed {self.seed} is out of range; give 0 to {SEEDS - 1:,}")
        if not 0 < self.learning_rate <= 1:
            raise ValueshiftError(
                f"learning rate {self.learning_rate} is not above 0 and at most 1; the paper's is 5e-5"
            )

    def share(self, devices: int) -> int:
        """Sentences of a batch that one device computes at a time.

        Raises:
            ValueshiftError: a batch cannot be divided so.
        """
        share, rest = divmod(self.batch_size, self.accumulate * devices)
        if rest or not share:
            raise ValueshiftError(
                f"a batch of {self.batch_size} cannot be shared by {devices} devices x {self.accumulate} accumulated "
                f"parts; choose a multiple of {devices * self.accumulate}"
            )
        return share


def with_adapter(model: Any, seed: int) -> Any:
    """The model with a new LoRA adapter, whose weights alone are trained."""
    from peft import LoraConfig, get_peft_model

    set_seed(seed)
    return get_peft_model(model, LoraConfig(task_type="SEQ_2_SEQ_LM", **LORA))


def train(
    model: Any,
    tokenizer: Any,
    examples: Mapping[str, Sequence[Mapping[str, Any]]],
    corruption: SpanCorruption,
    how: Training,
    work: Path,
    *,
    keep: Callable[[int], None] = lambda step: None,
) -> pd.DataFrame:
    """Train a model in place, going on from the last whole checkpoint in `work` where there is one.

    Args:
        model: encoder-decoder, in float32.
        tokenizer: saved with each checkpoint.
        examples: for `train` and `dev`, examples with `example`, `tokens` and `split`.
        corruption: the masks.
        how: settings.
        work: folder of the checkpoints of this run and no other.
        keep: called every `how.keep_every` steps with the number of steps made.

    Returns:
        One row per optimiser step and per pass over dev: `step`, `epoch`, `split`, `loss` (nats a target token, mean over
        batches). Dev is measured before the first step and after each epoch.

    Raises:
        ValueshiftError: a split is empty, a loss or gradient is no number, or a checkpoint cannot be written. Checkpoints
            written before are kept.
    """
    for split in ("train", "dev"):
        if not examples[split]:
            raise ValueshiftError(f"the {split} split has no example; ask for more sentences")
    refuse_other_engines()
    keep_untied_head(model)
    resumed = last_checkpoint(work)
    collator = SpanCorruptionCollator(corruption)
    with (
        explained(work),
        own_settings(),
        chunked_loss(model),
        only_used_rows(model, _looked_up(model, examples, corruption)) as whole,
        tqdm(desc="finetune", bar_format=_BAR, disable=not processes().is_main_process) as bar,
    ):
        trainer = _Trainer(
            whole,
            model=model,
            args=_arguments(how, work, len(examples["train"]), first=resumed is None),
            data_collator=collator,
            train_dataset=examples["train"],
            eval_dataset=examples["dev"],
            processing_class=tokenizer,
            callbacks=[_Watch(collator, how, work, whole, keep, bar)],
        )
        # mT5 takes the batch's token count and leaves it unused: the Trainer would not divide by parts and processes
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        _refuse_other_precision(trainer)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    model.eval()
    return _losses(trainer.state.log_history)


def _looked_up(
    model: Any, examples: Mapping[str, Sequence[Mapping[str, Any]]], corruption: SpanCorruption
) -> torch.Tensor:
    """Ids of all tokens that inputs of the encoder or the decoder may have."""
    special = [*corruption.sentinels, corruption.eos, corruption.pad, model.config.decoder_start_token_id]
    tokens = [one["tokens"] for split in examples.values() for one in split]
    return torch.from_numpy(np.unique(np.concatenate([*tokens, special]).astype(np.int64)))


def last_checkpoint(work: Path) -> Path | None:
    """The last whole checkpoint in a working folder; the Trainer writes `trainer_state.json` last."""
    found = []
    for path in work.glob("checkpoint-*/trainer_state.json"):
        try:
            found.append((int(read_json(path, "it is passed over")["global_step"]), path.parent))
        except (ValueshiftError, KeyError, TypeError, ValueError):
            continue
    return max(found)[1] if found else None


def _arguments(how: Training, work: Path, sentences: int, *, first: bool) -> TrainingArguments:
    devices = processes().num_processes
    arguments = TrainingArguments(
        output_dir=str(work),
        num_train_epochs=how.epochs,
        learning_rate=how.learning_rate,
        optim="adamw_torch_fused",
        per_device_train_batch_size=how.share(devices),
        per_device_eval_batch_size=how.share(devices),
        gradient_accumulation_steps=how.accumulate,
        use_cpu=processes().device.type == "cpu",
        seed=how.seed,
        bf16=precision() == "bfloat16",
        eval_strategy="steps",  # by epoch it would come after the checkpoint of the same step, which then lacks it
        eval_steps=math.ceil(sentences / how.batch_size),
        eval_on_start=first,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,  # it would report the mean of earlier losses in place of NaN
        save_steps=how.save_every,
        save_total_limit=2,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        label_names=["labels"],
        disable_tqdm=True,
        report_to="none",  # records are published whole, and the Trainer's MLflow callback loses values
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several GPUs without torchrun would multiply the batch size
    return arguments


def _refuse_other_precision(trainer: Trainer) -> None:
    """What is recorded is what runs: an `Accelerator` that this process made before may have settled another precision."""
    runs = {"no": "float32", "bf16": "bfloat16"}.get(found := str(trainer.accelerator.mixed_precision), found)
    if runs != precision():
        raise ValueshiftError(
            f"accelerate computes in {runs}, not in {precision()}: this process has settled that before; train in a new process"
        )


class _Trainer(Trainer):  # type: ignore[misc]
    """The Trainer, saving and loading models with all their rows, and saying in one sentence when it cannot."""

    def __init__(self, whole: Callable[[], AbstractContextManager[None]], **settings: Any) -> None:
        super().__init__(**settings)
        self.whole = whole

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with self.whole():
            super()._save(*args, **kwargs)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with self.whole():
            super()._load_from_checkpoint(*args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._save_checkpoint(*args, **kwargs)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # torch and safetensors have words of their own for it
            raise ValueshiftError(
                f"cannot write the checkpoint of step {self.state.global_step} in {self.args.output_dir} ({error}); free "
                f"the disk and run the same again: it goes on from the last whole checkpoint"
            ) from error


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Sets the masks' epoch, stops at a loss that is no number before anything of it is saved, keeps models, shows progress."""

    def __init__(
        self,
        collator: SpanCorruptionCollator,
        how: Training,
        work: Path,
        whole: Callable[[], AbstractContextManager[None]],
        keep: Callable[[int], None],
        bar: Any,
    ) -> None:
        self.collator, self.how, self.work, self.whole, self.keep, self.bar = collator, how, work, whole, keep, bar

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.reset(total=state.max_steps)
        self.bar.update(state.global_step)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.collator.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """Comes after every step, before its checkpoint is written."""
        for name, what in (("loss", "training loss"), ("grad_norm", "gradient's norm"), ("eval_loss", "dev loss")):
            if name in logs and not math.isfinite(logs[name]):
                good = last_checkpoint(self.work)
                kept = f"the last good checkpoint is {good}" if good else "no checkpoint had been written before"
                raise ValueshiftError(
                    f"the {what} is {logs[name]} at step {state.global_step}: training was stopped and {kept}; "
                    f"lower the learning rate"
                )
        if "loss" in logs and self.how.keep_every and state.global_step % self.how.keep_every == 0:
            with self.whole():
                self.keep(state.global_step)


def _losses(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = [
        (int(entry["step"]), float(entry["epoch"]), split, float(entry[name]))
        for entry in history
        for name, split in (("loss", "train"), ("eval_loss", "dev"))
        if name in entry
    ]
    return pd.DataFrame(rows, columns=["step", "epoch", "split", "loss"])
