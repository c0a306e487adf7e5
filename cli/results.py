"""`valueshift publish`, `ui` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Output, app
from .show import say, say_next


@app.command()
def publish(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Records or lm-eval results folders; else all records of the runs root.")
    ] = None,
    output: Output = None,
) -> None:
    """Send to MLflow what it does not have yet; again changes nothing."""
    from ..core.errors import ValueshiftError
    from ..core.paths import existing_runs_root, mlflow_run_id, runs_root
    from ..tracking.publish import publish_all, record_folders

    root = runs_root(output) if paths else existing_runs_root(output)
    refused: list[str] = []
    records = _records_of(paths, root, refused) if paths else record_folders(root)
    if not records and not refused:
        raise ValueshiftError(f"{root} holds no run record; give the folder of your run records with --output")
    account = publish_all(records, root, into=mlflow_run_id() if paths else None)
    if account.sent:
        say(f"Sent {len(account.sent)} records that MLflow did not have.")
    elif not account.failed:
        say("MLflow has all records.")
    for found in account.sent:
        say(f"  {found.record}: {found.where}")
    refused += [str(complaint)] if (complaint := account.complaint()) else []
    if refused:
        raise ValueshiftError("\n".join(refused))
    say_next("valueshift", "ui", "--output", root)


def _records_of(paths: list[Path], root: Path, refused: list[str]) -> list[Path]:
    """The records that are given and those of the results that are given; why others cannot be read goes to `refused`."""
    from ..core.errors import ValueshiftError
    from ..harness_ext.probe_record import write_probe_record
    from ..harness_ext.results import read_probe_runs

    records = []
    for path in paths:
        try:
            if (path / "record.json").is_file():
                records.append(path)
                continue
            for run in read_probe_runs(path):
                records.append(write_probe_record(root, run))
                say(f"Record: {records[-1]}")
        except ValueshiftError as error:
            refused.append(str(error))
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
