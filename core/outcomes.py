"""Pieces of work that do not depend on each other: a fault in one stops no other, and is said at the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .errors import ValueshiftError

Made = TypeVar("Made")


class Outcomes:
    """What went wrong in pieces of work that were each tried."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.faults: list[str] = []
        """What `errors` say, in sentences."""
        self.stopped = False
        """Whether the user stopped it (Ctrl-C): what can be done later is then left for later."""

    @contextmanager
    def attempt(self, missing: str) -> Iterator[None]:
        """Try the body; whatever it raises is kept here.

        Args:
            missing: what there is not if it fails, for the sentence.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.stopped = True
            self.faults.append(f"{missing}: stopped")
        except Exception as error:  # noqa: BLE001  (a full disk or another library's fault must not stop the others)
            self.errors.append(error)
            kind = "" if isinstance(error, ValueshiftError) else f"{type(error).__name__}: "
            self.faults.append(f"{missing}: {kind}{error}")

    def insist(self, work: Callable[[], Made]) -> Made:
        """Do short work that keeps what was computed, once more where the user stops it."""
        try:
            return work()
        except KeyboardInterrupt:
            self.stopped = True
            return work()

    def finish(self) -> None:
        """End as what was tried deserves.

        Raises:
            KeyboardInterrupt: the user stopped it.
            ValueshiftError: something failed; says all that did.
        """
        if self.stopped:
            raise KeyboardInterrupt
        if self.faults:
            raise ValueshiftError("; ".join(self.faults))
