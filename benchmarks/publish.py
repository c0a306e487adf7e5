"""What publishing costs: made-up probe records are sent to a new SQLite store, sent again, and one more is sent alone.

    python benchmarks/publish.py [RECORDS]

Each line is a whole `valueshift publish`, with the start of Python and the import of MLflow (`ONE` of a record that is there).
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from valueshift.analysis.profiles import summary_metrics
from valueshift.core.digests import digest
from valueshift.core.languages import TEST_LANGUAGES
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame

QUESTIONS = 60


def write_probe_record(root: Path, number: int) -> Path:
    """A probe record of random answers in the paper's test languages."""
    draw = np.random.default_rng(number)
    rows: list[dict[str, object]] = []
    for language in TEST_LANGUAGES:
        for question in range(1, QUESTIONS + 1):
            first, second = draw.normal(-9, 1, 2)
            asked = {"probe_set": "wvs", "language": language, "question": f"Q{question}", "category": 1}
            found = {"p_first": p_first(first, second), "answer": answer(first, second)}
            rows.append({**asked, "logprob_first": first, "logprob_second": second, **found})
    scores = scores_frame(rows)
    inputs = {"model": digest(number), "probe_set": "wvs", "probes": {code: digest(code) for code in TEST_LANGUAGES}}
    settings = {"model": f"model-{number}", "engine": "made up"}
    return write_record(root, "probe", inputs, {"scores": scores}, settings=settings, metrics=summary_metrics(scores))


def seconds(*arguments: str) -> float:
    """How long `valueshift publish ARGUMENTS` takes."""
    start = time.monotonic()
    command = [sys.executable, "-c", "from valueshift.cli import main; main()", "publish", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def main() -> None:
    """Print seconds for everything, nothing and one."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        records = [write_probe_record(root, one) for one in range(number)]
        everything = seconds("--output", folder)
        print(f"{number} records to a new store: {everything:.1f} s, {1000 * everything / number:.0f} ms a record")
        print(f"nothing to send: {seconds('--output', folder):.1f} s")
        print(f"ONE: {seconds(str(records[0]), '--output', folder):.1f} s")


if __name__ == "__main__":
    main()
