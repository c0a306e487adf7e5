"""Several records to MLflow, each with its own outcome."""

from collections.abc import Sequence
from pathlib import Path

from ..core.outcomes import Outcomes
from .client import ServerAwayError
from .publish import publish


def send(records: Sequence[Path], root: Path, outcomes: Outcomes) -> dict[Path, str]:
    """Send records; where each that arrived is. What fails is in `outcomes`.

    A server that is away is not asked again: it is away for the rest, too, which `valueshift publish` sends later.
    """
    sent = {}
    for record in records:
        with outcomes.attempt(f"{record} is not in MLflow"):
            sent[record] = publish(record, root).where
        if outcomes.stopped or isinstance(next(reversed(outcomes.errors), None), ServerAwayError):
            break
    return sent
