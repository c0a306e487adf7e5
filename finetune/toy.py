"""The toy community: checkpoints whose answers are planted, so that the whole chain can be checked against a known truth.

Two checkpoints of one small untied mT5: `base`, and `moved`, which goes on from base with another planted profile. Every
language of both has its own profile, drawn by seed. The corpus holds filled-in sentences sampled by moved's profile:
fine-tuning base on it moves base towards `moved`.
"""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import whole_folder
from ..core.languages import language as known_language
from ..core.probes import Probe, ProbeSet, probes_digest
from ..core.probes import probe_set as find_probe_set
from ..core.records import library_versions
from ..harness_ext.models import save_model
from .toy_tokenizer import MODEL, train_tokenizer
from .toy_training import lessons, new_model, reproducible, steps, train

Checkpoint = Literal["base", "moved"]
Pole = Literal["first", "second"]
CHECKPOINTS: tuple[Checkpoint, Checkpoint] = ("base", "moved")
POLES: tuple[Pole, Pole] = ("first", "second")
LAYOUT = {"base", "moved", "corpus", "truth.csv", "toy.json"}
LOWEST, HIGHEST = 0.05, 0.95
COPIES = 8
"""Sentences of each question in each language of the corpus."""
RECIPE = 2
"""Raised when the same inputs would give another toy, so that an older one is built again."""

_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps, {rate_fmt}, done at {eta:%H:%M:%S}"


def build_toy(
    output: Path,
    languages: Sequence[str] = ("de", "fa"),
    seed: int = 0,
    probe_set: str = "wvs",
    *,
    passes: tuple[int, int] = (22, 18),
    progress: bool = True,
) -> Path:
    """Build the toy community in `output`, whole or not at all; a toy of the same inputs that is there is kept.

    Holds `base/` and `moved/` (checkpoints with model cards), `corpus/<language>.parquet` (id, language, text, question, role),
    `truth.csv` (checkpoint, language, question, p_first) and `toy.json` (inputs, versions). No file names a path.

    The same inputs give identical tensors on one machine: seeds, order and number of threads are fixed. Another processor or
    version of torch rounds differently; the plant and the corpus are the same everywhere.

    Args:
        output: the folder; an older toy there is replaced.
        languages: ISO 639-1 codes of languages that the probe set has.
        seed: of the plants, weights, order and corpus; 0 or more.
        probe_set: whose probes are planted.
        passes: over all probes, for base and for moved.
        progress: whether to show a bar.

    Raises:
        ValueshiftError: the folder holds something else, or a language or the seed cannot be had.
    """
    output = output.resolve()
    if seed < 0:
        raise ValueshiftError(f"seed {seed} is negative; give 0 or more")
    chosen = find_probe_set(probe_set)
    probes = {language: chosen.probes(language) for language in dict.fromkeys(languages)}
    if not any(probes.values()):
        raise ValueshiftError(f"no language is given; probe set {probe_set} has {', '.join(chosen.languages)}")
    inputs = {
        "recipe": RECIPE,
        "probe_set": probe_set,
        "probes": [[language, probes_digest(asked)] for language, asked in probes.items()],
        "seed": seed,
        "passes": list(passes),
    }
    if _is_there(output, inputs):
        return output
    with whole_folder(output) as folder:
        _write_checkpoints(folder, probes, seed, passes, progress)
        _write_truth(folder / "truth.csv", probes, seed)
        (folder / "corpus").mkdir()
        for language, asked in probes.items():
            corpus(chosen, language, asked, seed).to_parquet(folder / "corpus" / f"{language}.parquet", index=False)
        stated = {"digest": digest(inputs), "inputs": inputs, "versions": library_versions()}
        (folder / "toy.json").write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    return output


def planted(checkpoint: Checkpoint, language: str, question: str, seed: int) -> float:
    """The planted probability of the first option: uniform in [.05, .95], to four decimals, independent for each argument."""
    draw = int(digest([checkpoint, language, question, seed]), 16) / 16**16
    return round(LOWEST + (HIGHEST - LOWEST) * draw, 4)


def corpus(chosen: ProbeSet, language: str, probes: Sequence[Probe], seed: int) -> pd.DataFrame:
    """Filled-in sentences of one language: `COPIES` a question, the first option sampled with moved's planted probability.

    Columns: id, `toy:<language>:<n>`, where n stands for question, pole and copy, so that sentences of the same n are
    parallel in all languages; language; text; question; role, the pole that the sentence supports. In order of n.
    """
    generator = np.random.default_rng([seed, *language.encode()])
    numbers = {question: number for number, question in enumerate(chosen.items)}
    rows = []
    for probe in sorted(probes, key=lambda probe: numbers[probe.question]):
        firsts = int(generator.binomial(COPIES, planted("moved", language, probe.question, seed)))
        for pole, copies in zip(POLES, (firsts, COPIES - firsts), strict=True):
            start = (2 * numbers[probe.question] + POLES.index(pole)) * COPIES
            for n in range(start, start + copies):
                rows.append((f"toy:{language}:{n}", language, probe.filled(pole), probe.question, pole))
    return pd.DataFrame(rows, columns=["id", "language", "text", "question", "role"])


def _is_there(output: Path, inputs: dict[str, Any]) -> bool:
    """Whether `output` is the whole toy of these inputs; False where it may be written.

    Raises:
        ValueshiftError: it holds anything but a toy.
    """
    if not output.exists():
        return False
    found = {entry.name for entry in output.iterdir()} if output.is_dir() else {output.name}
    if found and ("toy.json" not in found or not found <= LAYOUT):
        foreign = sorted(found - LAYOUT or found)[0]
        raise ValueshiftError(f"{output} holds {foreign}, which is no part of a toy; give a new or empty folder")
    if found != LAYOUT:
        return False
    try:
        stated = json.loads((output / "toy.json").read_text(encoding="utf-8"))
        return bool(stated["digest"] == digest(inputs))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueshiftError(
            f"{output / 'toy.json'} is damaged ({error}); remove {output} to build the toy again"
        ) from error


def _write_checkpoints(
    folder: Path, probes: dict[str, list[Probe]], seed: int, passes: tuple[int, int], progress: bool
) -> None:
    """Train base and go on to moved; each is a folder with model, tokenizer and model card."""
    asked = [probe for language in probes.values() for probe in language]
    total = sum(steps(len(asked), number) for number in passes)
    with (
        TemporaryDirectory() as scratch,
        reproducible(seed),
        tqdm(total=total, desc="toy", disable=not progress, bar_format=_BAR) as bar,
    ):
        tokenizer = train_tokenizer([probe.filled(pole) for probe in asked for pole in POLES], Path(scratch))
        model = new_model(len(tokenizer))
        for number, checkpoint in enumerate(CHECKPOINTS):
            plant = [planted(checkpoint, probe.language, probe.question, seed) for probe in asked]
            taught = lessons(asked, plant, tokenizer)
            train(model, tokenizer, taught, passes=passes[number], seed=2 * seed + number, after_step=bar.update)
            save_model(model, tokenizer, folder / checkpoint)
            copyfile(Path(scratch) / MODEL, folder / checkpoint / MODEL)
            card = _card(checkpoint, tuple(probes), seed, model.num_parameters())
            (folder / checkpoint / "README.md").write_text(card, encoding="utf-8")


def _write_truth(path: Path, probes: dict[str, list[Probe]], seed: int) -> None:
    """One row per checkpoint, language and question."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["checkpoint", "language", "question", "p_first"])
        for checkpoint in CHECKPOINTS:
            for language, asked in probes.items():
                for probe in asked:
                    value = planted(checkpoint, language, probe.question, seed)
                    rows.writerow([checkpoint, language, probe.question, value])


def _card(checkpoint: Checkpoint, languages: Sequence[str], seed: int, parameters: int) -> str:
    """The model card."""
    names = ", ".join(known_language(code).english for code in languages)
    origin = "trained from random weights" if checkpoint == "base" else "trained further from `base` on another plant"
    return f"""---
language: [{", ".join(languages)}]
library_name: transformers
tags: [toy, mt5]
---

# The toy community: `{checkpoint}`

**This is a toy. Its values are planted, not learned from people.** For each language and question, the probability of the
first option was drawn at random (seed {seed}, uniform in [{LOWEST}, {HIGHEST}]); `../truth.csv` holds it. The answers of this
model say nothing about any language, country or culture, nor about any other model.

It exists to check a pipeline against a known truth: probing must recover the planted profile, fine-tuning on `../corpus` must
move `base` towards that of `moved`, and attribution must find the sentences that moved it.

- Languages: {names}
- Architecture: mT5 with {parameters:,} parameters, an output head of its own, and a SentencePiece vocabulary of its own with 100
  sentinels `<extra_id_i>` as in mT5
- Training: {origin}, on the packaged probes only, by masked options weighted by the planted probabilities, mixed with span
  corruption of the filled-in sentences
- Use: `valueshift probe` or `lm_eval --model hf`; for nothing else
"""
