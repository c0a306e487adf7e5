"""What a report shows: one table, and the figure drawn of it, with what a reader must know."""

from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class Exhibit:
    """One table or figure of the paper, or one of ours.

    Every estimate in `table` has its interval (`low`, `high`) and its `n` beside it in the same row.
    """

    name: str
    """Names the files and the drawing: `unchanged`, `alignment_change`, ..."""
    title: str
    paper: str
    """What it is in the paper, such as `Table 3` or `Fig. 2, 8`; `ours` where the paper has no such thing."""
    table: pd.DataFrame
    """Tidy: one row an estimate. Empty where it cannot be made."""
    caption: str = ""
    """What is shown, of how many questions, what the interval is, and what chance alone would give."""
    runs: tuple[str, ...] = ()
    """Names of the run records that it was made of."""
    missing: str = ""
    """Why it cannot be made of these runs, or which part cannot, and what to run for it."""
