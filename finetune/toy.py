"""The toy community: checkpoints whose answers are planted, so that the whole chain can be checked against a known truth.

Two checkpoints of one small untied mT5: `base`, where every language has a profile of its own, and `moved`, which goes on
from base with another profile. Two corpora of filled-in sentences to fine-tune base on: `corpus` holds moved's profile,
`corpus_other` a third one, so that there are two sources with different values. Text is parallel, and translations say the
same: the profile of a corpus, and so moved's, is the same in every language. All are drawn by seed.
"""

import csv
import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import whole_folder
from ..core.languages import language as known_language
from ..core.limits import SEEDS
from ..core.outside import read_json
from ..core.probes import Probe, ProbeSet, probes_digest
from ..core.probes import probe_set as find_probe_set
from ..core.records import library_versions
from ..harness_ext.models import save_model
from .toy_tokenizer import MODEL, train_tokenizer
from .toy_training import lessons, new_model, reproducible, steps, train
from .training import Training

Checkpoint = Literal["base", "moved"]
Plant = Literal["base", "moved", "other"]
Pole = Literal["first", "second"]
CHECKPOINTS: tuple[Checkpoint, Checkpoint] = ("base", "moved")
PLANTS: tuple[Plant, ...] = (*CHECKPOINTS, "other")
POLES: tuple[Pole, Pole] = ("first", "second")
CORPORA: dict[str, Plant] = {"corpus": "moved", "corpus_other": "other"}
"""Folder of a corpus -> the profile that its sentences are sampled by."""
LAYOUT = {*CHECKPOINTS, *CORPORA, "truth.csv", "toy.json"}
LOWEST, HIGHEST = 0.05, 0.95
COPIES = 8
"""Sentences of each question in each language of a corpus: 2,184 of the packaged probe set."""
FINETUNING = Training(epochs=8, learning_rate=2e-3, batch_size=16)
"""What moves a toy's answers to the profile of a corpus; the paper's rate, for a model that was trained for long, is too low."""
PIECES = 12_000
"""As many as the words of all languages of the packaged probe set."""
PART_COPIES = 5
"""How often the tokenizer sees each word and option alone, so that most are one piece: short sentences are learned sooner, and
a span of noise can cover an option whole."""
GOLDEN = (5**0.5 - 1) / 2
RECIPE = 3
"""Raised when the same inputs would give another toy, so that an older one is built again."""

_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps, {rate_fmt}, done at {eta:%H:%M:%S}"


def build_toy(
    output: Path,
    languages: Sequence[str] = ("de", "fa"),
    seed: int = 0,
    probe_set: str = "wvs",
    *,
    passes: tuple[int, int] = (50, 25),
    progress: bool = True,
) -> Path:
    """Build the toy community in `output`, whole or not at all; a toy of the same inputs that is there is kept.

    Holds `base/` and `moved/` (checkpoints with model cards), `corpus/<language>.parquet` and `corpus_other/<language>.parquet`
    (id, language, text, question, role), `truth.csv` (checkpoint, language, question, p_first; `other` is the profile of
    corpus_other and no checkpoint) and `toy.json` (inputs, versions). No file names a path.

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
    if not 0 <= seed < SEEDS:
        raise ValueshiftError(f"seed {seed} is out of range; give 0 to {SEEDS - 1:,}")
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
        _write_checkpoints(folder, chosen, probes, seed, passes, progress)
        _write_truth(folder / "truth.csv", chosen, probes, seed)
        for name, plant in CORPORA.items():
            (folder / name).mkdir()
            for language, asked in probes.items():
                sentences = corpus(chosen, plant, language, asked, seed)
                sentences.to_parquet(folder / name / f"{language}.parquet", index=False)
        stated = {"digest": digest(inputs), "inputs": inputs, "versions": library_versions()}
        (folder / "toy.json").write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    return output


def planted(chosen: ProbeSet, plant: Plant, language: str, seed: int) -> dict[str, float]:
    """The planted probability of the first option by question, in [.05, .95], to four decimals; independent for each seed.

    Base: uniform, independent for each language and question. The others are those of parallel text, the same in every
    language. Their values are evenly spaced among the questions with the same pair of poles, in random order: so the words of
    both poles are as frequent in the text, and little about the values is left where its tokens are permuted. A question that
    shares its poles with no other has .5.
    """
    place = language if plant == "base" else "every language"
    drawn = pd.Series({question: _draw(plant, place, question, seed) for question in chosen.items})
    if plant != "base":
        alike = drawn.groupby([f"{item.first_pole} {item.second_pole}" for item in chosen.items.values()])
        drawn = (alike.rank() - 0.5) / alike.transform("size")
    return {str(question): round(LOWEST + (HIGHEST - LOWEST) * value, 4) for question, value in drawn.items()}


def corpus(chosen: ProbeSet, plant: Plant, language: str, probes: Sequence[Probe], seed: int) -> pd.DataFrame:
    """Filled-in sentences of one language: `COPIES` a question, the option sampled with the planted probability.

    Sampling is systematic: copy n takes the first option where (start + n times the golden ratio) mod 1 is below the
    probability, with a random start for each question. So every copy follows the plant, and the first few of them follow it
    more closely than as many independent draws would.

    Columns: id, `<question>.<copy>`, so that sentences of the same id are translations of each other; language; text;
    question; role, the pole that the sentence supports. All questions in their first copy, then all in the next: as many
    sentences as are taken from the beginning, they are about all questions alike.
    """
    numbers = {question: number for number, question in enumerate(chosen.items)}
    p_first = planted(chosen, plant, language, seed)
    rows = []
    for copy in range(COPIES):
        for probe in sorted(probes, key=lambda probe: numbers[probe.question]):
            drawn = (_draw("sample", plant, probe.question, seed) + copy * GOLDEN) % 1
            role = POLES[int(drawn >= p_first[probe.question])]
            rows.append((f"{probe.question}.{copy}", language, probe.filled(role), probe.question, role))
    return pd.DataFrame(rows, columns=["id", "language", "text", "question", "role"])


def _draw(*of: object) -> float:
    """Uniform in [0, 1), by hash: the same on every machine."""
    return int(digest(list(of)), 16) / 16**16


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
    remedy = f"remove {output} to build the toy again"
    stated = read_json(output / "toy.json", remedy)
    if not isinstance(stated, dict) or "digest" not in stated:
        raise ValueshiftError(f"{output / 'toy.json'} is damaged (it names no digest); {remedy}")
    return bool(stated["digest"] == digest(inputs))


def _write_checkpoints(
    folder: Path, chosen: ProbeSet, probes: dict[str, list[Probe]], seed: int, passes: tuple[int, int], progress: bool
) -> None:
    """Train base and go on to moved; each is a folder with model, tokenizer and model card."""
    asked = [probe for language in probes.values() for probe in language]
    total = sum(steps(len(asked), number) for number in passes)
    with (
        TemporaryDirectory() as scratch,
        reproducible(seed),
        tqdm(total=total, desc="toy", disable=not progress, bar_format=_BAR) as bar,
    ):
        tokenizer = train_tokenizer(_vocabulary(asked), Path(scratch), PIECES)
        model = new_model(len(tokenizer))
        for number, checkpoint in enumerate(CHECKPOINTS):
            plant = {language: planted(chosen, checkpoint, language, seed) for language in probes}
            taught = lessons(asked, [plant[probe.language][probe.question] for probe in asked], tokenizer)
            train(model, tokenizer, taught, passes=passes[number], seed=2 * seed + number, after_step=bar.update)
            save_model(model, tokenizer, folder / checkpoint)
            copyfile(Path(scratch) / MODEL, folder / checkpoint / MODEL)
            card = _card(checkpoint, tuple(probes), seed, model.num_parameters())
            (folder / checkpoint / "README.md").write_text(card, encoding="utf-8")


def _vocabulary(asked: Sequence[Probe]) -> list[str]:
    """What the tokenizer is trained on: the filled-in sentences, and each word and option several times alone."""
    sentences = [probe.filled(pole) for probe in asked for pole in POLES]
    parts = [[*probe.prefix.split(), *probe.suffix.split(), probe.first, probe.second] for probe in asked]
    return sentences + list(dict.fromkeys(chain(*parts))) * PART_COPIES


def _write_truth(path: Path, chosen: ProbeSet, probes: dict[str, list[Probe]], seed: int) -> None:
    """One row per plant, language and question."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["checkpoint", "language", "question", "p_first"])
        for plant in PLANTS:
            for language, asked in probes.items():
                p_first = planted(chosen, plant, language, seed)
                rows.writerows([plant, language, probe.question, p_first[probe.question]] for probe in asked)


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

**This is a toy. Its values are planted, not learned from people.** For each question, the probability of the first option was
drawn at random (seed {seed}, between {LOWEST} and {HIGHEST}; in `base` for each language anew); `../truth.csv` holds it. The
answers of this model say nothing about any language, country or culture, nor about any other model.

It exists to check a pipeline against a known truth: probing must recover the planted profile, fine-tuning on `../corpus` must
move `base` towards that of `moved`, on `../corpus_other` towards that of `other`, and attribution must find the sentences that
moved it.

- Languages: {names}
- Architecture: mT5 with {parameters:,} parameters, an output head of its own, and a SentencePiece vocabulary of its own with 100
  sentinels `<extra_id_i>` as in mT5
- Training: {origin}, on the packaged probes only, by masked options weighted by the planted probabilities, mixed with span
  corruption of the filled-in sentences
- Fine-tuning that shows in the answers: `valueshift finetune --model base --corpus corpus/LANGUAGE.parquet --languages LANGUAGE
  --size 2000 --epochs {FINETUNING.epochs} --learning-rate {FINETUNING.learning_rate:g} --batch-size {FINETUNING.batch_size}`
- Use: `valueshift probe` or `lm_eval --model hf`; for nothing else
"""
