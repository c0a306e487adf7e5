"""`valueshift publish`, `ui` and `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from .app import Output, app


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
        print(f"Sent {len(account.sent)} records that MLflow did not have.")
    elif not account.failed:
        print("MLflow has all records.")
    for found in account.sent:
        print(f"  {found.record}: {found.where}")
    refused += [str(complaint)] if (complaint := account.complaint()) else []
    if refused:
        raise ValueshiftError("\n".join(refused))
    print(f"Next: valueshift ui --output {root}")


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
                print(f"Record: {records[-1]}")
        except ValueshiftError as error:
            refused.append(str(error))
    return records


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
