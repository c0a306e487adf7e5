"""`valueshift finetune`: select sentences, corrupt spans, train, and write the checkpoint with its run record.

Under torchrun or accelerate every process calls `finetune`; the first writes.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.digests import digest, text_digest
from ..core.errors import ValueshiftError
from ..core.files import inside, writable
from ..core.limits import WORK_SECONDS
from ..core.locks import locked
from ..core.records import read_record, record_folder, write_record
from ..harness_ext.families import family, pretrained_digest
from ..harness_ext.hub import checkpoint_folder
from ..harness_ext.inspection import inspect_weights
from ..harness_ext.models import float32_products, load_config, load_model, load_tokenizer
from .checkpoints import model_card, write_checkpoint
from .corpora.placebo import permuted_tokens
from .corpora.selection import select
from .corpora.store import read_corpus
from .launching import precision, processes, refuse_other_engines
from .span_corruption import MEAN_SPAN, NOISE_DENSITY, SpanCorruption, sentence_tokens, span_corruption
from .training import LORA, Training, train, with_adapter

if TYPE_CHECKING:
    import pandas as pd

LONGEST_INPUT = 512
"""Tokens of an input at most, as in mT5's pretraining; longer sentences are truncated."""


def finetune(
    model: str,
    corpus: str,
    languages: Sequence[str],
    size: int,
    how: Training | None = None,
    *,
    placebo: bool = False,
    merge: bool = False,
    root: Path,
) -> Path:
    """Fine-tune a model and return the folder of the run's record; a run that is done is not done again.

    Checkpoints lie in `<root>/checkpoints/`: `<digest>` (the model, or the adapter), `<digest>-merged` and, for intermediate
    models, `<digest>-step<n>`. A run that is stopped leaves `<digest>.training`, from which the same call goes on.

    The record's tables: `examples` (example, language, split, order: the place in the selection; the Trainer shuffles by
    seed) and `losses` (step, epoch, split, loss). Its settings name the checkpoint by path from `root` and by digest, and the
    intermediate models (step -> path from `root`).

    Args:
        model: path or hub name of an encoder-decoder model.
        corpus: name of an imported corpus, or a Parquet file.
        languages: to train on.
        size: sentences before the split into 80% train and 20% dev.
        how: settings; the paper's where None.
        placebo: permute the tokens across all sentences.
        merge: also write the model with its adapter merged into it.
        root: folder of run records.

    Raises:
        ValueshiftError: the model or the corpus cannot be used, the loss is no number, or the disk is full.
    """
    how = how or Training()
    if merge and not how.lora:
        raise ValueshiftError("only an adapter can be merged; add --lora or leave --merge out")
    how.share(processes().num_processes)
    refuse_other_engines()
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    _refuse_untrainable(name, how)
    writable(root)
    rows = select(read_corpus(corpus), languages, size, seed=how.seed)
    if corpus.endswith(".parquet"):
        corpus = str(Path(corpus).resolve())
    if checkpoint_folder(name) is None:
        load_model(name)  # its digest needs the weights on this machine
    inputs = _inputs(name, rows, tuple(dict.fromkeys(languages)), how, placebo)
    final = root / "checkpoints" / digest(inputs)
    record = record_folder(root, "finetune", inputs)
    with _first_process_locks(final):
        if not _is_done(record, final, how, merge):
            _run(name, rows, inputs, how, final, merge, settings={"model": model, "corpus": corpus}, root=root)
        processes().wait_for_everyone()
    return record


def _refuse_untrainable(model: str, how: Training) -> None:
    """Refuse what cannot be trained, by its configuration and tokenizer alone.

    Raises:
        ValueshiftError: it is of another family, cannot be read, or its tokenizer has no sentinels.
    """
    config = load_config(model)
    if (found := family(config)) != "encoder-decoder":
        raise ValueshiftError(f"{model} is a {found} model; span corruption trains encoder-decoder models such as mT5")
    span_corruption(load_tokenizer(model), config.vocab_size, seed=how.seed, roll=True)
    if folder := checkpoint_folder(model):
        inspect_weights(folder)


def _is_done(record: Path, final: Path, how: Training, merge: bool) -> bool:
    """Whether all that is asked for is there."""
    wanted = [record / "record.json", final] + ([_beside(final, "-merged")] if merge else [])
    if not all(path.exists() for path in wanted):
        return False
    try:
        made = read_record(record, "finetune")
    except ValueshiftError:  # damaged, and so made again
        return False
    return how.keep_every in (None, made.settings.get("keep_every"))


def _run(
    model: str,
    rows: "pd.DataFrame",
    inputs: Mapping[str, Any],
    how: Training,
    final: Path,
    merge: bool,
    settings: Mapping[str, Any],
    root: Path,
) -> None:
    """Train, and write checkpoints and record."""
    began = time.monotonic()
    tokenizer = load_tokenizer(model)
    trained = load_model(model)
    corruption = span_corruption(tokenizer, trained.get_input_embeddings().weight.shape[0], seed=how.seed, roll=True)
    examples, truncated = training_examples(rows, tokenizer, corruption, placebo=inputs["placebo"])
    if how.lora:
        trained = with_adapter(trained, how.seed)
    first = processes().is_main_process
    base = settings["model"]

    def keep(step: int) -> None:
        if first:
            card = model_card(base, inputs, {}, f"An intermediate model, after {step:,} steps.")
            write_checkpoint(trained, tokenizer, _beside(final, f"-step{step}"), card)

    work = _beside(final, ".training")
    losses = train(trained, tokenizer, examples, corruption, how, work, keep=keep)
    if not first:
        return
    metrics = _metrics(losses, rows)
    kept = range(how.keep_every, int(metrics["steps"]) + 1, how.keep_every) if how.keep_every else ()
    measured = {name: metrics[f"loss/{name}"] for name in ("train", "dev_before", "dev")}
    write_checkpoint(trained, tokenizer, final, model_card(base, inputs, measured, "The model after the last step."))
    if merge:
        card = model_card(
            base, {**inputs, "lora": False}, measured, "After the last step; its adapter is merged into it."
        )
        write_checkpoint(trained.merge_and_unload(), tokenizer, _beside(final, "-merged"), card)
    notes = ["Tokens are permuted across all sentences: a placebo."] if inputs["placebo"] else []
    if truncated:
        notes.append(f"{truncated} of {len(rows)} sentences are truncated to {LONGEST_INPUT} tokens of input.")
    write_record(
        root,
        "finetune",
        inputs,
        {"examples": _example_table(rows), "losses": losses},
        settings={
            **settings,
            "checkpoint": str(final.relative_to(root)),
            "checkpoint_digest": pretrained_digest(str(final)),
            "processes": processes().num_processes,
            "device": str(trained.device),
            "save_every": how.save_every,
            "keep_every": how.keep_every,
            "intermediate": {str(step): str(_beside(final, f"-step{step}").relative_to(root)) for step in kept},
        },
        metrics=metrics,
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )
    shutil.rmtree(work)


def training_examples(
    rows: "pd.DataFrame", tokenizer: Any, corruption: SpanCorruption, *, placebo: bool
) -> tuple[dict[str, list[dict[str, Any]]], int]:
    """Examples of both splits as the collator takes them, in the order of the selection.

    Returns:
        For `train` and `dev`, examples with `example`, `tokens` and `split`; and how many sentences were truncated.
    """
    tokens, truncated = sentence_tokens(rows["text"].tolist(), tokenizer, corruption.longest(LONGEST_INPUT))
    if placebo:
        tokens = permuted_tokens(tokens, corruption.seed)
    examples: dict[str, list[dict[str, Any]]] = {"train": [], "dev": []}
    for example, split, ids in zip(rows["example"], rows["split"], tokens, strict=True):
        examples[split].append({"example": example, "tokens": ids, "split": split})
    return examples, truncated


def examples_of(record: Path) -> "tuple[pd.DataFrame, SpanCorruption]":
    """What a finished run was trained on, read from its corpus again, and the rule of its masks.

    The rule applied to a row's `example` and `tokens` in epoch 0, 1, ... gives the very inputs and targets of that epoch.

    Args:
        record: folder of a finetune record.

    Returns:
        One row per training example, in the order of the selection: `example`, `id`, `language`, `text`, `split` (train) and
        `tokens`, ids of shape (length,) without special tokens, permuted where the run is a placebo.

    Raises:
        ValueshiftError: this is no finetune record, or its corpus or checkpoint is gone or has changed.
    """
    run = read_record(record, "finetune")
    given, corpus, masks = run.inputs, run.settings.get("corpus"), run.inputs.get("span_corruption")
    if corpus is None or masks is None:
        raise ValueshiftError(
            f"{record} does not say how its sentences were chosen and masked; fine-tune the model again"
        )
    rows = select(read_corpus(corpus), given["languages"], given["size"], seed=given["seed"])
    if _corpus_digest(rows) != given["corpus"]["digest"]:
        raise ValueshiftError(
            f"corpus {corpus} no longer has the sentences that {record} was trained on; import the same release again"
        )
    checkpoint = str(inside(record.parent, run.settings["checkpoint"]))
    tokenizer = load_tokenizer(checkpoint)
    corruption = span_corruption(tokenizer, load_config(checkpoint).vocab_size, seed=given["seed"], roll=masks["roll"])
    examples, _ = training_examples(rows, tokenizer, corruption, placebo=given["placebo"])
    trained = rows[rows["split"] == "train"].reset_index(drop=True)
    return trained.assign(tokens=[one["tokens"] for one in examples["train"]]), corruption


def _corpus_digest(rows: "pd.DataFrame") -> str:
    """Digest of selected sentences with their ids and splits, in order."""
    columns = (rows["example"], rows["split"], rows["text"])
    return text_digest(f"{example}\t{split}\t{text}" for example, split, text in zip(*columns, strict=True))


def _inputs(
    model: str, rows: "pd.DataFrame", languages: tuple[str, ...], how: Training, placebo: bool
) -> dict[str, Any]:
    """What determines the result."""
    trained = asdict(how)
    del trained["save_every"], trained["keep_every"]
    return {
        **trained,
        "model": pretrained_digest(model),
        "corpus": {"name": str(rows["example"].iloc[0]).partition(":")[0], "digest": _corpus_digest(rows)},
        "languages": sorted(languages),  # the same rows in any order
        "size": len(rows),
        "placebo": placebo,
        "lora": LORA if how.lora else None,
        "span_corruption": {"density": NOISE_DENSITY, "mean_span": MEAN_SPAN, "roll": True, "longest": LONGEST_INPUT},
        "precision": precision(),
        **float32_products(),
    }


def _metrics(losses: "pd.DataFrame", rows: "pd.DataFrame") -> dict[str, float]:
    """Losses: of training the mean over the last epoch, of dev before the first step and after the last."""
    curves = {str(split): curve for split, curve in losses.groupby("split")}
    curve, dev = curves["train"], curves["dev"]
    last = curve["epoch"] > curve["epoch"].max() - 1
    return {
        "loss/train": float(curve["loss"][last].mean()),
        "loss/dev": float(dev["loss"].iloc[-1]),
        "loss/dev_before": float(dev["loss"].iloc[0]),
        "steps": float(curve["step"].max()),
        **{f"examples/{split}": float(number) for split, number in rows["split"].value_counts().items()},
    }


def _example_table(rows: "pd.DataFrame") -> "pd.DataFrame":
    return rows[["example", "language", "split"]].assign(order=range(len(rows)))


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(folder.name + suffix)


@contextmanager
def _first_process_locks(path: Path) -> Iterator[None]:
    """Two calls for the same work wait for each other; of one call's processes the first holds the lock."""
    if processes().is_main_process:
        with locked(path, WORK_SECONDS):
            yield
    else:
        yield
