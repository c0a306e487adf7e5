"""How commands print: sentences, tables, counts, commands to go on with, and where records went."""

import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.shown import NO_INTERVAL, shown, written_out


def say(text: object, *, flush: bool = False) -> None:
    """Print a line; what a terminal would obey in names and notes is written out."""
    print(shown(text), flush=flush)


def say_next(*words: object, before: str = "", after: str = "") -> None:
    """Print a command that goes on from here, as a shell reads it."""
    print(f"Next: {before}{' '.join(map(_quoted, words))}{after}")


def _quoted(word: object) -> str:
    text = f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
    if written_out(text) == text:
        return shlex.quote(text)
    return "$'" + written_out(text.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def figure(value: float, form: str) -> str:
    """A number as printed; `none` where it is not defined."""
    return "none" if math.isnan(value) else f"{value:{form}}"


def interval(low: float, high: float, form: str = "+.2f", brackets: str = "[]", between: str = ", ") -> str:
    """An interval as printed, or why there is none."""
    ends = NO_INTERVAL if math.isnan(low) or math.isnan(high) else f"{low:{form}}{between}{high:{form}}"
    return f"{brackets[:1]}{ends}{brackets[1:]}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with its title above; the first column to the left, figures to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=shown(title), title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(shown(column), justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*map(shown, row))
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)  # what is in brackets is no style


def counts(found: Mapping[str, int]) -> str:
    """What was found and how often, in one line; what was never found is left out."""
    return "; ".join(f"{count} {what}" for what, count in found.items() if count)


def publish_records(root: Path, *records: Path) -> None:
    """Send records to MLflow; what is not sent is said, with how to send it later: the work is done and must not fail for it."""
    from ..core.paths import mlflow_run_id
    from ..tracking.publish import publish_all

    account = publish_all(records, root, into=mlflow_run_id())
    for where in dict.fromkeys(published.where for published in account.done):
        print(f"MLflow: {where}")
    if complaint := account.complaint():
        sys.stderr.write(f"warning: {complaint}\n")
