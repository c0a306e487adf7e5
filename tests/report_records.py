"""Records of made-up answers, from which tests make reports, and where to look in what is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from valueshift.core.probes import Item, read_items, registry_folder
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.tracking.report.arms import Arm, Study
from valueshift.tracking.report.exhibit import Exhibit

LANGUAGES = ("de", "fa", "ko", "ro")


def registry(name: str = "wvs") -> dict[str, Item]:
    return read_items(registry_folder(name) / "items.csv")


def odds(seed: int, languages: Sequence[str] = LANGUAGES) -> dict[tuple[str, str], float]:
    """Log-odds of the first option by language and question, as a model might answer."""
    generator = np.random.default_rng(seed)
    return {(code, question): float(generator.normal(0, 1.5)) for code in languages for question in registry()}


def moved(start: Mapping[tuple[str, str], float], seed: int, far: float) -> dict[tuple[str, str], float]:
    """The same after some noise."""
    generator = np.random.default_rng(seed)
    return {key: value + float(generator.normal(0, far)) for key, value in start.items()}


def scores(answers: Mapping[tuple[str, str], float], name: str = "wvs") -> pd.DataFrame:
    items = registry(name)
    rows = []
    for (code, question), value in answers.items():
        first, second = value / 2 - 3, -value / 2 - 3
        rows.append(
            {"probe_set": name, "language": code, "question": question, "category": items[question].category}
            | {"logprob_first": first, "logprob_second": second, "tokens_first": 1, "tokens_second": 1}
            | {"p_first": p_first(first, second), "answer": answer(first, second)}
        )
    return scores_frame(rows)


def probed(
    root: Path, model: str, answers: Mapping[tuple[str, str], float], named: str | None = None, **inputs: Any
) -> Path:
    """A probe record; `model` stands for the digest."""
    name = inputs.pop("probe_set", "wvs")
    reading = inputs.pop("reading", "sum")
    codes = list(dict.fromkeys(code for code, _ in answers))
    asked = {"format": "encoder-decoder", "dtype": "float32", "probes": dict.fromkeys(codes, "0")} | inputs
    settings = {"model": named or f"models/{model}", "reading": reading}
    return write_record(
        root,
        "probe",
        {"model": model, "probe_set": name, **asked},
        {"scores": scores(answers, name)},
        settings=settings,
    )


def tuned(
    root: Path,
    base: str,
    made: str,
    languages: Sequence[str] = ("fa",),
    *,
    source: str = "pbc",
    corpus: str = "",
    **inputs: Any,
) -> Path:
    """A finetune record: `base` trained to `made`."""
    stated = {
        "size": 2000,
        "seed": 0,
        "placebo": False,
        "lora": None,
        "epochs": 5,
        "learning_rate": 5e-5,
        "batch_size": 8,
    } | inputs
    examples = pd.DataFrame(
        {
            "example": [f"{source}:{code}:{n}" for code in languages for n in range(40)],
            "language": [code for code in languages for _ in range(40)],
            "split": ["train", "train", "train", "dev"] * (10 * len(languages)),
        }
    )
    return write_record(
        root,
        "finetune",
        {"model": base, "corpus": {"name": source, "digest": "0"}, "languages": list(languages), **stated},
        {"examples": examples},
        settings={
            "model": f"models/{base}",
            "corpus": corpus or source,
            "checkpoint": f"checkpoints/{made}",
            "checkpoint_digest": made,
        },
    )


def write_study(root: Path) -> None:
    """Two pretrained models; of the first, 2 languages x 2 sources x 2 seeds, one of 10,000, a multilingual and 5 placebos."""
    start, other = odds(0), odds(1)
    probed(root, "small", start)
    probed(root, "large", other)
    seeds = iter(range(10, 100))
    for source in ("pbc", "tanzil"):
        for code in ("fa", "ko"):
            for seed in (0, 1):
                name = f"{source}-{code}-{seed}"
                tuned(root, "small", name, [code], source=source, seed=seed)
                probed(root, name, moved(start, next(seeds), 1.0))
    for name, languages, inputs in (
        ("many", ["fa"], {"size": 10_000}),
        ("multi", ["fa", "ko"], {}),
        *((f"placebo-{seed}", ["fa"], {"placebo": True, "seed": seed}) for seed in range(5)),
    ):
        tuned(root, "small", name, languages, **inputs)
        probed(root, name, moved(start, next(seeds), 0.3))
    tuned(root, "large", "large-fa", ["fa"])
    probed(root, "large-fa", moved(other, next(seeds), 1.0))


def arm_of(study: Study, name: str) -> Arm:
    (arm,) = (arm for arm in study.arms if arm.tuned.name == name)
    return arm


def rows_of(exhibit: Exhibit, arm: Arm) -> pd.DataFrame:
    return exhibit.table[exhibit.table["run"] == arm.tuned.run].reset_index(drop=True)


def same(left: pd.DataFrame, right: pd.DataFrame, columns: Sequence[str]) -> None:
    """Equal values in these columns, row by row."""
    pd.testing.assert_frame_equal(
        left[list(columns)].reset_index(drop=True), right[list(columns)].reset_index(drop=True), check_dtype=False
    )
