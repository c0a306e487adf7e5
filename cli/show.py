"""How commands print: tables, counts, and where records went."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table with its title above; the first column to the left, figures to the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 120
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)  # what is in brackets is no style


def counts(found: Mapping[str, int]) -> str:
    """What was found and how often, in one line; what was never found is left out."""
    return "; ".join(f"{count} {what}" for what, count in found.items() if count)


def publish_records(root: Path, *records: Path) -> None:
    """Send records to MLflow; where it does not answer, say how to send them later.

    Raises:
        ValueshiftError: MLflow refuses a record; the others were sent.
    """
    from ..core.outcomes import Outcomes
    from ..tracking.client import ServerAwayError
    from ..tracking.sending import send

    outcomes = Outcomes()
    for where in send(records, root, outcomes).values():
        print(f"MLflow: {where}")
    if outcomes.errors and all(isinstance(error, ServerAwayError) for error in outcomes.errors):
        sys.stderr.write(f"warning: {outcomes.errors[0]}\n")
    else:
        outcomes.finish()
