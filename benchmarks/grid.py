"""What a grid costs besides its work: `python benchmarks/grid.py [--cells 10000] [--workers 1]`.

A plan of about so many cells is read and expanded, all of them are done as no-ops by the local executor, and the plan is
looked at again when all is done. Nothing is published: MLflow's share is measured in docs/scale.md.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from valueshift.experiments.cells import Cell, expand
from valueshift.experiments.local import LocalExecutor
from valueshift.experiments.overview import overview
from valueshift.experiments.plan import Plan
from valueshift.experiments.results import Result
from valueshift.experiments.scheduling import run_cells

PLAN = """\
toy: {{languages: [fa, ko, ru]}}
models: {{toy: {{toy: base}}}}
sources: {{values: {{toy: corpus}}, other: {{toy: corpus_other}}}}
probe: {{languages: [fa]}}
finetune:
  runs: {{models: [toy], sources: [values, other], languages: [fa, ko, ru], size: 30, seeds: [{seeds}]}}
attribute: {{all: {{blocks: [runs]}}}}
"""


def nothing(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    return {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))  # so that workers find `nothing`
    with tempfile.TemporaryDirectory() as scratch:
        root, file = Path(scratch) / "runs", Path(scratch) / "plan.yaml"
        file.write_text(PLAN.format(seeds=", ".join(map(str, range(given.cells // 24)))))  # 6 runs of 4 cells a seed
        began = time.perf_counter()
        cells = expand(Plan.read(file))
        overview(cells, root)
        planned = time.perf_counter() - began
        cells = [replace(cell, action="grid:nothing") for cell in cells]
        began = time.perf_counter()
        account = run_cells(cells, root, LocalExecutor(root, given.workers), lambda line: None)
        done = time.perf_counter() - began
        began = time.perf_counter()
        overview(cells, root)
        again = time.perf_counter() - began
    assert account.complete
    print(f"{len(cells)} cells; plan {planned:.2f} s; plan when all is done {again:.2f} s")
    print(f"{given.workers} workers: {done:.1f} s, {1000 * done / len(cells):.2f} ms a cell")


if __name__ == "__main__":
    main()
