"""How long `valueshift report` takes, and what memory: `python benchmarks/report.py [--records 400] [--bases 2]`.

Made-up probe records of so many models are written, of which `bases` are pretrained and each other one is tuned from one of
them; the report of all is made in a fresh process. With `--profile FILE` that process is profiled.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from valueshift.core.languages import TEST_LANGUAGES
from valueshift.core.probes import read_items, registry_folder
from valueshift.core.records import write_record
from valueshift.core.scores import COLUMNS

TUNINGS = ("fa", "ko", "hi", "ru")
SOURCES = ("pbc", "tanzil", "flores", "news")
SIZES = (2000, 10_000)
MEASURED = """
import resource, sys
from valueshift.cli import main
sys.argv[0] = "valueshift"
try:
    main()
finally:
    unit, used = 1e9 if sys.platform == "darwin" else 1e6, resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime
    print(f"{seconds:.1f} s of processor time, peak memory {used.ru_maxrss / unit:.2f} GB", file=sys.stderr)
"""


def answers(generator: np.random.Generator, languages: list[str], start: np.ndarray | None = None) -> np.ndarray:
    """Log-odds of the first option, shape (languages, questions)."""
    count = len(read_items(registry_folder("wvs") / "items.csv"))
    return (0 if start is None else start) + generator.normal(0, 1.5 if start is None else 0.8, (len(languages), count))


def scores(odds: np.ndarray, languages: list[str]) -> pd.DataFrame:
    items = read_items(registry_folder("wvs") / "items.csv")
    flat = odds.ravel()
    table = pd.DataFrame(
        {
            "probe_set": "wvs",
            "language": np.repeat(languages, len(items)),
            "question": list(items) * len(languages),
            "category": [item.category for item in items.values()] * len(languages),
            "logprob_first": flat / 2 - 3,
            "logprob_second": -flat / 2 - 3,
            "p_first": 1 / (1 + np.exp(-flat)),
            "answer": np.where(flat > 0, "first", "second"),
        }
    ).reindex(columns=list(COLUMNS))
    return table.astype({name: "string" if kind == "str" else kind for name, kind in COLUMNS.items()})


def write_records(root: Path, records: int, bases: int, languages: list[str]) -> None:
    generator = np.random.default_rng(0)
    asked = {
        "probe_set": "wvs",
        "probes": dict.fromkeys(languages, "0"),
        "format": "encoder-decoder",
        "dtype": "float32",
    }
    starts = [answers(generator, languages) for _ in range(bases)]
    for number in range(records):
        base, trained = number % bases, number // bases - 1
        name = f"base-{base}" if trained < 0 else f"tuned-{number}"
        odds = starts[base] if trained < 0 else answers(generator, languages, starts[base])
        write_record(
            root, "probe", {"model": name, **asked}, {"scores": scores(odds, languages)}, settings={"model": name}
        )
        if trained >= 0:
            place, seed = trained % 32, trained // 32
            inputs = {
                **{"model": f"base-{base}", "corpus": {"name": SOURCES[place // 8], "digest": "0"}},
                **{
                    "languages": [TUNINGS[place % 4]],
                    "size": SIZES[place // 4 % 2],
                    "seed": seed,
                    "placebo": seed % 5 == 4,
                },
                **{"epochs": 5, "learning_rate": 5e-5, "batch_size": 8, "lora": None},
            }
            made = {"model": f"base-{base}", "checkpoint": f"checkpoints/{name}", "checkpoint_digest": name}
            write_record(root, "finetune", inputs, {}, settings=made)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=400, help="probe records")
    parser.add_argument("--bases", type=int, default=2, help="pretrained models among them")
    parser.add_argument("--languages", type=int, default=13)
    parser.add_argument("--profile", help="file for the profile of the report's process")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        write_records(root, given.records, given.bases, list(TEST_LANGUAGES)[: given.languages])
        profiled = ["-m", "cProfile", "-o", given.profile] if given.profile else []
        script = Path(scratch) / "measured.py"
        script.write_text(MEASURED)
        command = [*profiled, str(script), "report", str(root), "--runs", str(root), "--output", f"{scratch}/report"]
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - began
        page = (Path(scratch) / "report" / "index.html").stat().st_size
    print(done.stdout.partition("\n")[0])
    print(f"{given.records} records, {given.bases} bases, {given.languages} languages: {seconds:.1f} s, ", end="")
    print(f"{done.stderr.strip().splitlines()[-1]}, page {page / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
