"""`valueshift publish`, `ui` and `demo`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import Output, app
from .show import say, say_next

if TYPE_CHECKING:
    from ..core.outcomes import Outcomes


@app.command()
def publish(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Records or lm-eval results folders; else all records of the runs root.")
    ] = None,
    output: Output = None,
) -> None:
    """Send to MLflow what it does not have yet; again changes nothing."""
    from ..core.errors import ValueshiftError
    from ..core.outcomes import Outcomes
    from ..core.paths import existing_runs_root, mlflow_run_id, runs_root
    from ..tracking.publish import publish_all, record_folders

    root = runs_root(output) if paths else existing_runs_root(output)
    outcomes = Outcomes()
    records = _records_of(paths, root, outcomes) if paths else record_folders(root)
    if not records and not outcomes.faults:
        raise ValueshiftError(f"{root} holds no run record; give the folder of your run records with --output")
    if records and not outcomes.stopped:
        account = publish_all(records, root, into=mlflow_run_id() if paths else None)
        if account.sent:
            say(f"Sent {len(account.sent)} records that MLflow did not have.")
        elif not account.failed:
            say("MLflow has all records.")
        for found in account.sent:
            say(f"  {found.record}: {found.where}")
        outcomes.faults += [str(complaint)] if (complaint := account.complaint()) else []
    outcomes.finish()
    say_next("valueshift", "ui", "--output", root)


def _records_of(paths: list[Path], root: Path, outcomes: "Outcomes") -> list[Path]:
    """The records that are given, and those of the results that are given."""
    from ..harness_ext.probe_record import write_probe_record
    from ..harness_ext.results import read_probe_runs

    records = [path for path in paths if (path / "record.json").is_file()]
    for path in (path for path in paths if path not in records):
        with outcomes.attempt(f"{path} is not taken"):
            for run in read_probe_runs(path):
                with outcomes.attempt(f"there is no record of {run.inputs['probe_set']} in {path}"):
                    records.append(outcomes.insist(partial(write_probe_record, root, run)))
                    say(f"Record: {records[-1]}")
    return records


@app.command()
def ui(
    output: Output = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only.")] = 5000,
) -> None:
    """Open the MLflow store of the runs root in a browser."""
    from ..core.paths import existing_runs_root

    root = existing_runs_root(output)
    from ..tracking.ui import serve  # imports mlflow

    serve(root, port)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
) -> None:
    """The main job in a few minutes: toy community, lm_eval on two checkpoints, comparison, MLflow."""
    from ..experiments.demo import run_demo

    run_demo(output)
