"""The table of scores: one row per probe set, language and question."""

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

KEYS = ["probe_set", "language", "question"]

COLUMNS: dict[str, str] = {
    "probe_set": "str",
    "language": "str",
    "question": "str",
    "category": "Int64",
    "logprob_first": "float64",  # natural log, summed over the option's tokens, given the sentinel or prefix
    "logprob_second": "float64",
    "closing_first": "float64",  # log-probability of the sentinel that follows the option; null where not asked for
    "closing_second": "float64",
    "neutral_first": "float64",  # as logprob_*, under the neutral stem; null where not asked for
    "neutral_second": "float64",
    "tokens_first": "Int64",
    "tokens_second": "Int64",
    "bytes_first": "Int64",  # UTF-8
    "bytes_second": "Int64",
    "p_first": "float64",
    "answer": "str",  # first, second, or null on an exact tie and where a log-probability is NaN
}


def p_first(logprob_first: float, logprob_second: float) -> float:
    """Softmax over the two options [paper 3.5]: the probability of the first, numerically stable at any difference."""
    difference = logprob_second - logprob_first
    if difference > 0:
        odds = math.exp(-difference)
        return odds / (1.0 + odds)
    return 1.0 / (1.0 + math.exp(difference))


def answer(logprob_first: float, logprob_second: float) -> Literal["first", "second"] | None:
    """The option of higher log-probability [paper 3.4]; None on an exact tie, and where one is NaN."""
    if logprob_first == logprob_second or math.isnan(logprob_first - logprob_second):
        return None
    return "first" if logprob_first > logprob_second else "second"


def scores_frame(rows: "list[dict[str, object]]") -> "pd.DataFrame":
    """The scores table of `rows`: all columns of `COLUMNS` in order, absent values null."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({name: kind for name, kind in COLUMNS.items() if kind != "str"}).astype(
        {name: "string" for name, kind in COLUMNS.items() if kind == "str"}
    )
