"""Whether fine-tuning moves a toy's answers to what the text says: `python benchmarks/toy_finetune.py [--languages de,fa]`.

Builds the toy community, fine-tunes base on one language's text of each corpus at a time, and on the same text with its tokens
permuted (placebo), and asks every language again. The rise is Spearman with the profile of the text, tuned minus base.
"""

import argparse
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr
from valueshift.analysis.profiles import profile
from valueshift.core.probes import probe_set
from valueshift.core.records import read_record
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.toy import CORPORA, FINETUNING, PLANTS, build_toy
from valueshift.harness_ext.probing import Asking, ask


def agreement(model: Path, truth: pd.DataFrame, root: Path) -> pd.Series:
    """Spearman of a model's answers with every planted profile, by language and plant."""
    languages = tuple(map(str, truth["language"].unique()))
    answers = profile(ask(str(model), probe_set("wvs"), languages, root, Asking(device="cpu")).scores)
    plants = truth.pivot(index="question", columns=["language", "checkpoint"], values="p_first").reindex(answers.index)
    compared = (
        (code, plant, spearmanr(answers[code], plants[code, plant]).statistic) for code in languages for plant in PLANTS
    )
    return pd.Series({(code, plant): found for code, plant, found in compared})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", default="de,fa")
    parser.add_argument("--toy", type=Path, help="a toy that is there, or where to build it; else a temporary folder")
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=FINETUNING.epochs)
    parser.add_argument("--learning-rate", type=float, default=FINETUNING.learning_rate)
    parser.add_argument("--batch-size", type=int, default=FINETUNING.batch_size)
    parser.add_argument("--seed", type=int, default=FINETUNING.seed)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    how = replace(
        FINETUNING,
        epochs=given.epochs,
        learning_rate=given.learning_rate,
        batch_size=given.batch_size,
        seed=given.seed,
    )
    languages = tuple(given.languages.split(","))
    with tempfile.TemporaryDirectory() as temporary:
        root, started = Path(temporary), time.process_time()
        toy = build_toy(given.toy or root / "toy", languages)
        built = time.process_time() - started
        truth = pd.read_csv(toy / "truth.csv")
        before = agreement(toy / "base", truth, root)
        table = Table(
            *("text", "in", "Spearman with its profile", "rise", "old profile", "other languages' rise", "seconds"),
            title=f"{given.size:,} sentences, {how.epochs} epochs, learning rate {how.learning_rate:g}, batches of "
            f"{how.batch_size}; building the toy took {built:.0f} s of one core",
        )
        for corpus, plant in CORPORA.items():
            for code in languages:
                for placebo in (False, True):
                    started = time.process_time()
                    text = str(toy / corpus / f"{code}.parquet")
                    record = finetune(str(toy / "base"), text, [code], given.size, how, placebo=placebo, root=root)
                    seconds = time.process_time() - started
                    after = agreement(root / str(read_record(record).settings["checkpoint"]), truth, root)
                    rise = after - before
                    table.add_row(
                        f"{corpus}{', placebo' if placebo else ''}",
                        code,
                        f"{before[code, plant]:.2f} -> {after[code, plant]:.2f}",
                        f"{rise[code, plant]:+.2f}",
                        f"{before[code, 'base']:.2f} -> {after[code, 'base']:.2f}",
                        ", ".join(f"{other} {rise[other, plant]:+.2f}" for other in languages if other != code),
                        f"{seconds:.0f}",
                    )
        Console().print(table)


if __name__ == "__main__":
    main()
