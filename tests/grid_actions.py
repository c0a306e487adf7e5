"""Stand-ins for the actions of a grid, which workers import by name: each result is a pure function of the spec and of what
the cell is given, and a journal counts how often work was begun and finished."""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.files import whole_folder
from valueshift.core.records import read_record, write_record
from valueshift.experiments.cells import Cell, expand
from valueshift.experiments.plan import Plan
from valueshift.experiments.results import Result
from valueshift.experiments.running import executor_named, interruptible
from valueshift.experiments.scheduling import run_cells

KINDS = {"probe": "probe", "finetune": "finetune", "compare": "comparison", "attribute": "attribution"}


def seconds() -> float:
    return float(os.environ.get("GRID_SECONDS", "0"))


def _journal(root: Path, cell: Cell, what: str) -> None:
    (root / "journal").mkdir(exist_ok=True)
    with (root / "journal" / cell.digest).open("a") as stream:
        stream.write(f"{what}\n")


def work(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    """A record whose numbers depend on all that came before; the report is a plain folder with all of them."""
    _journal(root, cell, "begun")
    print(f"working on {cell.label}")
    time.sleep(seconds())
    before = {need: _record(given[need]) for need in cell.needs if need in given}
    inputs = {"spec": dict(cell.spec), "stage": cell.stage, "before": before}
    value = int(digest(inputs), 16) / 16**16
    if cell.stage in KINDS:
        folder = write_record(
            root, KINDS[cell.stage], inputs, {"values": pd.DataFrame({"value": [value]})}, metrics={"value": value}
        )
        made = {"folder" if os.environ.get("GRID_UNPUBLISHED") else "record": folder.name}
    else:
        folder = root / f"{cell.stage}s" / cell.digest
        with whole_folder(folder) as temporary:
            numbers = {name: read_record(root / name).metrics["value"] for name in before.values() if name}
            (temporary / "numbers.json").write_text(json.dumps(numbers, sort_keys=True))
        made = {cell.stage: str(folder.relative_to(root))}
    _journal(root, cell, "finished")
    return made


def _record(result: Result) -> str:
    return result.made.get("record") or result.made.get("folder") or ""


def makes_checkpoints(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    made = work(cell, root, given)
    made = {"record" if name == "folder" else name: path for name, path in made.items()}
    if cell.stage == "finetune":
        (root / "checkpoints").mkdir(exist_ok=True)
        (root / "checkpoints" / cell.digest).write_text("weights")
        made["model"] = f"checkpoints/{cell.digest}"
    return made


def nothing(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    return {}


def tells_its_environment(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    (root / "environment.json").write_text(json.dumps(dict(os.environ)))
    return {"environment": "environment.json"}


def dies_twice(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    _journal(root, cell, "begun")
    if len((root / "journal" / cell.digest).read_text().splitlines()) <= 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return work(cell, root, given)


def dies_always(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    _journal(root, cell, "begun")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def refuses(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    _journal(root, cell, "begun")
    raise ValueshiftError("the corpus has no such language; import it")


def breaks(cell: Cell, root: Path, given: Mapping[str, Result]) -> dict[str, str]:
    _journal(root, cell, "begun")
    raise ZeroDivisionError("a fault in the code")


def simulated(plan: Path, action: str = "work") -> list[Cell]:
    """The cells of a plan, with a stand-in for every action."""
    return [replace(cell, action=f"grid_actions:{action}") for cell in expand(Plan.read(plan))]


def drive(plan: str, root: str, executor: str = "local", workers: str = "2", address: str = "local") -> None:
    """What `valueshift grid run` does, on stand-ins."""
    try:
        with interruptible():
            chosen = executor_named(executor, Path(root), int(workers), address)
            account = run_cells(simulated(Path(plan)), Path(root), chosen, lambda line: print(line, flush=True))
    except ValueshiftError as error:
        print(f"error: {error}", flush=True)
        sys.exit(2)
    sys.exit(0 if account.complete else 1)


if __name__ == "__main__":
    drive(*sys.argv[1:])
