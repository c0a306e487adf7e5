"""What publishing costs: made-up probe records are sent to a new SQLite store, sent again, and one more is sent alone.

    python benchmarks/publish.py [RECORDS]

Each line is a whole `valueshift publish`, with the start of Python and the import of MLflow (ONE is of a record that is there);
on a machine that does other work too, look at the processor's seconds.
"""

import resource
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


def publish(*arguments: str) -> str:
    """What `valueshift publish ARGUMENTS` takes."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", "from valueshift.cli import main; main()", "publish", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return f"{time.monotonic() - start:.1f} s, {processor:.1f} s of the processor"


def main() -> None:
    """Print what everything, nothing and one take."""
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    with tempfile.TemporaryDirectory() as folder:
        records = [write_probe_record(Path(folder), one) for one in range(number)]
        print(f"{number} records to a new store: {publish('--output', folder)}")
        print(f"nothing to send: {publish('--output', folder)}")
        print(f"ONE: {publish(str(records[0]), '--output', folder)}")


if __name__ == "__main__":
    main()
