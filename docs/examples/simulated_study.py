"""Write the run records of a simulated study, to see a report of the paper's shape without training any model.

    python docs/examples/simulated_study.py simulated/
    valueshift report simulated/ --output report/

The answers are drawn, not any model's: fine-tuning on a language pulls a model towards that language's country and adds
noise of its seed; a placebo adds noise only.
"""

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from valueshift.analysis.bootstrap import batteries
from valueshift.analysis.profiles import summary_metrics
from valueshift.core.languages import FINETUNING_LANGUAGES, LANGUAGES, TEST_LANGUAGES
from valueshift.core.probes import Item, probe_set
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.core.surveys import survey_truth

Array = npt.NDArray[np.float64]

PULL = {"pbc": 0.45, "tanzil": 0.25}
"""How far a corpus pulls at 2,000 sentences, in units of log-odds."""


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
    """Write the records of `models`, the first of them fine-tuned, and return `root`."""
    rng = np.random.default_rng(20)
    items = probe_set("wvs").items
    pretrained = {name: _pretrained(rng, items, len(languages)) for name in models}
    for name, odds in pretrained.items():
        _probe(root, name, name, odds, languages)
    small = models[0]
    arms = [(source, [code], 2000, seed, False) for source, code, seed in product(sources, tunings, seeds)]
    arms += [(source, [code], 10000, seeds[0], False) for source, code in product(sources, tunings)]
    arms += [(source, list(tunings), 10000, seeds[0], False) for source in sources if len(tunings) > 1]
    arms += [(sources[0], [tunings[0]], 2000, 100 + number, True) for number in range(placebos)]
    for source, codes, size, seed, placebo in arms:
        noise = rng.normal(0, 0.35, pretrained[small].shape)
        pull = np.mean([_country(items, LANGUAGES[code].country) for code in codes], axis=0)
        strength = 0.0 if placebo else PULL.get(source, 0.3) * (1.0 if size < 10000 else 1.6)
        odds = pretrained[small] * (1 - strength / 3) + strength * pull[:, None] + noise
        _finetuned(root, small, source, codes, size, seed, placebo, odds, languages)
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


def _probe(root: Path, digest: str, name: str, odds: Array, languages: Sequence[str]) -> None:
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
    scores: pd.DataFrame = scores_frame(rows)
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


def _finetuned(
    root: Path,
    base: str,
    source: str,
    codes: list[str],
    size: int,
    seed: int,
    placebo: bool,
    odds: Array,
    languages: Sequence[str],
) -> None:
    name = f"{base}-{source}-{'+'.join(codes)}-{size}-{seed}" + ("-placebo" if placebo else "")
    write_record(
        root,
        "finetune",
        {
            "model": base,
            "corpus": {"name": source, "digest": f"simulated-{source}"},
            "languages": codes,
            "size": size,
            "epochs": 5,
            "learning_rate": 5e-5,
            "batch_size": 8,
            "accumulate": 1,
            "seed": seed,
            "placebo": placebo,
            "lora": None,
        },
        {},
        settings={"model": base, "corpus": source, "checkpoint": f"checkpoints/{name}", "checkpoint_digest": name},
        notes=("Simulated: nothing was trained.",),
    )
    _probe(root, name, f"checkpoints/{name}", odds, languages)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/examples/simulated_study.py FOLDER")
    print(f"Simulated run records: {simulate(Path(sys.argv[1]))}")
