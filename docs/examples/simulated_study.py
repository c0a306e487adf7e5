"""Write the run records of a simulated study, to see a report of the paper's shape without training any model.

    python docs/examples/simulated_study.py simulated/
    valueshift report simulated/ --output report/

The answers are drawn, not any model's: fine-tuning on a language pulls a model towards that language's country and adds
noise of its seed; a placebo adds noise only. Of the sentences that attributions name, some are drawn more often than others,
and Persian ones twice as often.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from valueshift.analysis.bootstrap import batteries
from valueshift.analysis.profiles import summary_metrics
from valueshift.analysis.shifts import flipped
from valueshift.core.languages import FINETUNING_LANGUAGES, LANGUAGES, TEST_LANGUAGES
from valueshift.core.probes import Item, probe_set
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.core.surveys import survey_truth

Array = npt.NDArray[np.float64]

PULL = {"pbc": 0.45, "tanzil": 0.25}
"""How far a corpus pulls at 2,000 sentences, in units of log-odds."""
FEW, MANY = 2000, 10000
TOP = 100


@dataclass(frozen=True)
class Arm:
    """One run of fine-tuning."""

    source: str
    codes: tuple[str, ...]
    size: int
    seed: int
    placebo: bool = False


def simulate(
    root: Path,
    *,
    languages: Sequence[str] = TEST_LANGUAGES,
    tunings: Sequence[str] = FINETUNING_LANGUAGES,
    sources: Sequence[str] = tuple(PULL),
    seeds: Sequence[int] = (0, 1),
    placebos: int = 6,
    models: Sequence[str] = ("simulated-small", "simulated-base"),
) -> Path:
    """Write the records of `models`, the first of them fine-tuned and its largest runs attributed; return `root`."""
    rng = np.random.default_rng(20)
    items = probe_set("wvs").items
    pretrained = {name: _pretrained(rng, items, len(languages)) for name in models}
    scores = {name: _probe(root, name, name, odds, languages) for name, odds in pretrained.items()}
    small = models[0]
    arms = [Arm(source, (code,), FEW, seed) for source, code, seed in product(sources, tunings, seeds)]
    arms += [Arm(source, (code,), MANY, seeds[0]) for source, code in product(sources, tunings)]
    arms += [Arm(source, tuple(tunings), MANY, seeds[0]) for source in sources if len(tunings) > 1]
    arms += [Arm(sources[0], (tunings[0],), FEW, 100 + number, placebo=True) for number in range(placebos)]
    for arm in arms:
        pull = np.mean([_country(items, LANGUAGES[code].country) for code in arm.codes], axis=0)
        strength = 0.0 if arm.placebo else PULL.get(arm.source, 0.3) * (1.6 if arm.size == MANY else 1.0)
        odds = pretrained[small] * (1 - strength / 3) + strength * pull[:, None]
        odds += rng.normal(0, 0.35, odds.shape)
        name, examples = _finetuned(root, small, arm)
        tuned = _probe(root, name, f"checkpoints/{name}", odds, languages)
        if arm.size == MANY and arm.source == sources[0]:
            _attributed(root, name, flipped(scores[small], tuned, items), examples)
    return root


def _pretrained(rng: np.random.Generator, items: dict[str, Item], languages: int) -> Array:
    """Log-odds of the first option, (questions, languages): what a pair of options, a question and a language add."""
    groups = batteries(list(items), items)
    battery = rng.normal(0, 0.8, groups.max() + 1)[groups]
    question = rng.normal(0, 0.7, len(items))
    odds: Array = (battery + question)[:, None] + rng.normal(0, 0.6, (len(items), languages))
    return odds


def _country(items: dict[str, Item], country: str) -> Array:
    """Log-odds of a country's people; 0 where they were not asked."""
    shares = survey_truth("wvs").profile.reindex(list(items))[country].to_numpy(dtype=np.float64)
    shares = np.nan_to_num(shares, nan=0.5).clip(0.03, 0.97)
    odds: Array = np.log(shares / (1 - shares))
    return odds


def _probe(root: Path, digest: str, name: str, odds: Array, languages: Sequence[str]) -> pd.DataFrame:
    items = probe_set("wvs").items
    rows = [
        {
            "probe_set": "wvs",
            "language": language,
            "question": question,
            "category": item.category,
            "logprob_first": -5 + odds[place, column],
            "logprob_second": -5.0,
            "p_first": p_first(-5 + odds[place, column], -5.0),
            "answer": answer(-5 + odds[place, column], -5.0),
        }
        for column, language in enumerate(languages)
        for place, (question, item) in enumerate(items.items())
    ]
    scores = scores_frame(rows)
    inputs = {"model": digest, "probe_set": "wvs", "probes": dict.fromkeys(languages, "simulated")}
    write_record(
        root,
        "probe",
        {**inputs, "format": "encoder-decoder", "dtype": "float32"},
        {"scores": scores},
        settings={"model": name, "reading": "sum"},
        metrics=summary_metrics(scores),
        notes=("These answers are simulated, not any model's.",),
    )
    return scores


def _finetuned(root: Path, base: str, arm: Arm) -> tuple[str, pd.DataFrame]:
    """Name of the model, and its training sentences: the same ones in every language."""
    each = range(arm.size // len(arm.codes))
    name = f"{base}-{arm.source}-{'+'.join(arm.codes)}-{arm.size}-{arm.seed}" + ("-placebo" if arm.placebo else "")
    examples = pd.DataFrame(
        {
            "example": [f"{arm.source}:{code}:{sentence}" for code in arm.codes for sentence in each],
            "language": [code for code in arm.codes for _ in each],
            "split": ["dev" if sentence % 5 == 0 else "train" for _ in arm.codes for sentence in each],
        }
    ).assign(order=lambda table: range(len(table)))
    write_record(
        root,
        "finetune",
        {
            "model": base,
            "corpus": {"name": arm.source, "digest": f"simulated-{arm.source}"},
            "languages": list(arm.codes),
            "size": arm.size,
            "epochs": 5,
            "learning_rate": 5e-5,
            "batch_size": 8,
            "accumulate": 1,
            "seed": arm.seed,
            "placebo": arm.placebo,
            "lora": None,
        },
        {"examples": examples},
        settings={"model": base, "corpus": arm.source, "checkpoint": f"checkpoints/{name}", "checkpoint_digest": name},
        notes=("Simulated: nothing was trained.",),
    )
    return name, examples[examples["split"] == "train"]


def _attributed(root: Path, name: str, shifts: pd.DataFrame, examples: pd.DataFrame) -> None:
    """The sentences that pushed ten shifts of each language most, and held them back most."""
    rng = np.random.default_rng(5)
    queries = shifts.groupby("language", sort=False).head(10)[["language", "question", "answer_base", "answer_tuned"]]
    sentence = examples["example"].str.rpartition(":")[2].astype(int)
    tables = []
    for query in queries.itertuples():
        likely = np.where((sentence * 7 + int(str(query.question).strip("Qabcdefgh"))) % 40 == 0, 30.0, 1.0)
        likely *= np.where(examples["language"] == "fa", 2.0, 1.0)
        chosen = rng.choice(len(examples), 2 * TOP, replace=False, p=likely / likely.sum())
        for side, places in (("top", chosen[:TOP]), ("bottom", chosen[TOP:])):
            found = examples.iloc[places]
            table = pd.DataFrame({"example": found["example"], "train_language": found["language"]})
            tables.append(
                table.assign(
                    language=str(query.language), question=str(query.question), side=side, rank=range(1, TOP + 1)
                )
            )
    write_record(
        root,
        "attribution",
        {"tuned": [name], "probe_set": "wvs", "method": "simulated"},
        {"queries": queries, "influence": pd.concat(tables, ignore_index=True)},
        settings={"tuned": [name]},
        notes=("These sentences are drawn at random; nothing was attributed.",),
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/examples/simulated_study.py FOLDER")
    print(f"Simulated run records: {simulate(Path(sys.argv[1]))}")
