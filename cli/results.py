"""`valueshift publish`, `ui` and `demo`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .app import Output, app
from .show import publish_records


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
    from ..core.paths import existing_runs_root, runs_root
    from ..core.records import find_records
    from ..harness_ext.probe_record import write_probe_record
    from ..harness_ext.results import read_probe_runs
    from ..tracking.publish import publish_missing

    root = runs_root(output) if paths else existing_runs_root(output)
    if not paths and not find_records(root):
        raise ValueshiftError(f"{root} holds no run record; give the folder of your run records with --output")
    outcomes = Outcomes()
    given = [path for path in paths or [] if (path / "record.json").is_file()]
    made: list[Path] = []
    for path in (path for path in paths or [] if path not in given):
        with outcomes.attempt(f"{path} is not taken"):
            for run in read_probe_runs(path):
                with outcomes.attempt(f"there is no record of {run.inputs['probe_set']} in {path}"):
                    made.append(outcomes.insist(partial(write_probe_record, root, run)))
                    print(f"Record: {made[-1]}")
    if (paths and not given and not made) or outcomes.stopped:
        outcomes.finish()
    with outcomes.attempt("MLflow"):
        publish_records(root, *given)
        sent = publish_missing(root)
        print(f"Sent {len(sent)} records that MLflow did not have." if sent else "MLflow has all records.")
        for found in sent:
            print(f"  {found.record}: {found.where}")
    outcomes.finish()
    print(f"Next: valueshift ui --output {root}")


@app.command()
def ui(
    output: Output = None,
    port: Annotated[int, typer.Option(help="On this machine only.")] = 5000,
) -> None:
    """Open the MLflow store of the runs root in a browser."""
    from ..core.paths import existing_runs_root
    from ..tracking.ui import serve

    serve(existing_runs_root(output), port)


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
) -> None:
    """The main job in a few minutes: toy community, lm_eval on two checkpoints, comparison, MLflow."""
    from ..experiments.demo import run_demo

    run_demo(output)
