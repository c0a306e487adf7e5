"""`valueshift grid`: many runs from one file, planned, run anywhere, resumed."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..core.limits import WORKERS
from ..core.shown import shown
from .app import Output, app
from .show import print_table, say, say_next

if TYPE_CHECKING:
    from ..experiments.cells import Cell
    from ..experiments.scheduling import Account

grid_app = typer.Typer(help="A whole study from one file: planned, run anywhere, resumed.", no_args_is_help=True)
app.add_typer(grid_app, name="grid")

PlanFile = Annotated[str, typer.Argument(help="YAML file, or a packaged plan: toy, control, paper.")]


@grid_app.command("plan")
def grid_plan(
    file: PlanFile,
    output: Output = None,
    show_list: Annotated[bool, typer.Option("--list", help="Every cell: digest, state, what it is.")] = False,
) -> None:
    """Show the cells of a plan, what is done, what is missing, and what the rest will take."""
    from ..core.paths import runs_root
    from ..experiments.cells import expand
    from ..experiments.inputs import missing
    from ..experiments.overview import listing, overview
    from ..experiments.plan import Plan, find_plan

    root, plan = runs_root(output), Plan.read(find_plan(file))
    cells = expand(plan)
    if show_list:
        for line in listing(cells, root):
            print(line)
        return
    view = overview(cells, root)
    print_table(f"{file}: {len(cells)} cells in {root}", view.columns, view.rows)
    for note in [*view.notes, *missing(plan)]:
        say(f"- {note}")
    say_next("valueshift", *(("grid", "run", file) if view.left else ("ui",)), "--output", root)


@grid_app.command("run")
def grid_run(
    file: PlanFile,
    output: Output = None,
    executor: Annotated[str, typer.Option(help="local, or ray (pip install 'valueshift[ray]').")] = "local",
    workers: Annotated[int | None, typer.Option(min=1, max=WORKERS, help="Of local: processes; else 1.")] = None,
    address: Annotated[
        str | None, typer.Option(help="Of ray: local, or host:port; else auto (this machine's cluster).")
    ] = None,
    cell: Annotated[str | None, typer.Option(help="Only the cell of this digest, and what it needs.")] = None,
    copy_to: Annotated[
        str | None, typer.Option(help="Copy results there at the end, such as s3://bucket/runs.")
    ] = None,
) -> None:
    """Do all cells of a plan that are not done; stopped or killed, the same command goes on."""
    from ..core.errors import ValueshiftError
    from ..core.files import writable
    from ..core.paths import runs_root
    from ..experiments.cells import expand, with_ancestors
    from ..experiments.copying import check_target, copy_results
    from ..experiments.plan import Plan, find_plan
    from ..experiments.running import executor_named, interruptible
    from ..experiments.scheduling import run_cells

    if executor not in ("local", "ray"):
        raise ValueshiftError(f"--executor is local or ray, not '{executor}'")
    if address is not None and not _is_address(address):
        raise ValueshiftError(f"--address is local, auto or HOST:PORT, not '{address}'")
    if address is not None and executor == "local":
        raise ValueshiftError("--address is of the executor ray; leave it out, or add --executor ray")
    if workers is not None and executor == "ray":
        raise ValueshiftError("--workers is of the executor local; leave it out: Ray shares out what its nodes have")
    root, cells = runs_root(output), expand(Plan.read(find_plan(file)))
    if cell is not None:
        cells = with_ancestors(cells, cell)
    if copy_to is not None:
        check_target(copy_to)
    writable(root)
    try:
        with interruptible():
            account = run_cells(
                cells,
                root,
                executor_named(executor, root, workers or 1, address or "auto"),
                partial(say, flush=True),
            )
    except KeyboardInterrupt:
        say_next("valueshift", "grid", "run", file, "--output", root)
        raise
    _print_account(account, cells, root)
    if copy_to is not None:
        say(f"Copied {copy_results(cells, root, copy_to)} results to {copy_to}")
    if not account.complete:
        sys.exit(1)


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    ported = host and not set(host) & set(" /@") and port.isascii() and port.isdecimal() and 0 < int(port[:6]) < 65536
    return text in ("local", "auto") or bool(ported)


def _print_account(account: "Account", cells: "Sequence[Cell]", root: Path) -> None:
    from ..experiments.results import log_path, read_result

    by_digest = {cell.digest: cell for cell in cells}
    whole = len(account.there) + len(account.done)
    say(f"{whole} of {len(cells)} cells are done: {len(account.done)} now, {len(account.there)} before")
    if account.failed or account.skipped:
        rows = [
            [by_digest[digest].stage, by_digest[digest].label, "failed", f"{reason}; see {log_path(root, digest)}"]
            for digest, reason in account.failed.items()
        ]
        rows += [
            [by_digest[digest].stage, by_digest[digest].label, "skipped", f"needs {by_digest[need].label}"]
            for digest, need in account.skipped.items()
        ]
        print_table("Not done", ["stage", "cell", "state", "why"], rows)
    if account.unpublished:
        reason = next(iter(account.unpublished.values()))
        sys.stderr.write(f"warning: {len(account.unpublished)} records are not in MLflow: {shown(reason)}\n")
        say_next("valueshift", "publish", "--output", root)
    for cell in cells:
        if cell.stage == "report" and (result := read_result(root, cell.digest)):
            say(f"Report: {result.path(root, 'report')}")
        elif cell.digest in account.partial:
            say(f"Report, without the cells above: {root / 'reports' / cell.digest}")
    say_next("valueshift", "ui", "--output", root)
