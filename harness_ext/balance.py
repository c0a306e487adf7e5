"""How evenly a tokenizer splits the two options of a probe set: the longer option pays for its length under `sum`."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..core.probes import Probe
from .formats import piece_ids


def token_balance(probes: Sequence[Probe], tokenizer: Any) -> dict[str, float]:
    """Mean tokens of first and second options, and the share of probes whose options have equally many."""
    counts = pd.DataFrame(
        [[len(piece_ids(tokenizer, option, False)) for option in (probe.first, probe.second)] for probe in probes],
        columns=["first", "second"],
    )
    return {
        "first": float(counts["first"].mean()),
        "second": float(counts["second"].mean()),
        "equal": float((counts["first"] == counts["second"]).mean()),
    }
