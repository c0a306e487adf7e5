"""`valueshift report`: every table and figure of the paper, from run records."""

import gc
import sys
from pathlib import Path
from typing import Annotated

import typer

from .app import app
from .show import publish_records, say, say_next


@app.command()
def report(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RUNS", help="Run records, or folders of them; else all records of the runs root."),
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder to write; an older report there is replaced.")] = Path("report"),
    runs: Annotated[Path | None, typer.Option(help="Folder of run records; else VALUESHIFT_RUNS, else ./runs.")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Planted values of a toy: its truth.csv, where it is not beside the records.")
    ] = None,
) -> None:
    """Write tables and figures with their intervals, and one page that shows them all."""
    import pyarrow as pa

    from ..core.paths import runs_root
    from ..core.records import read_record, read_table
    from ..tracking.report.write import write_report

    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what is freed (benchmarks/report.py)
    gc.freeze()  # what is imported need not be looked through again and again
    root = runs_root(runs)
    record = write_report(paths or [root], output, root=root, truth=truth)
    for note in read_record(record).notes:
        if note.startswith("Left out: "):
            sys.stderr.write(f"warning: {note}\n")
    exhibits = read_table(record, "exhibits")
    made = (exhibits["rows"] > 0).sum()
    say(f"{made} of {len(exhibits)} exhibits; what is missing, and what to run for it, is in the report.")
    say(f"Record: {record}")
    publish_records(root, record)
    say(f"Report: {output / 'index.html'} (figures/, tables/)")
    say_next("valueshift", "ui", "--output", root, before="open it in a browser, or see the runs: ")
