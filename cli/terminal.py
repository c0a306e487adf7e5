"""What a command prints reaches a terminal that may lack letters, close early, or lie on a full disk; the work goes on."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO


class Output:
    """A text stream that can be written to for ever: once nothing more can be, what is written is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self.fault: OSError | None = None
        """Why nothing more can be written."""
        self._stream = stream
        with suppress(AttributeError, ValueError):  # no stream of this kind, or closed
            stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]

    def write(self, text: str) -> int:
        """Write, as the stream does."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flush, as the stream does."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, fault: OSError) -> None:
        """Send the rest, also what lies in buffers and what other processes print, nowhere."""
        self.fault = self.fault or fault
        with suppress(OSError, ValueError):  # a stream without a descriptor
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def lasting_output() -> Iterator[Output]:
    """While active, no fault of standard output or error ends anything; gives standard output, which knows its fault."""
    for descriptor in range(3):  # one that was closed would be the next file's, and be printed into
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    nowhere = None if all(before) else Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    out, err = (Output(stream or nowhere) for stream in before)  # type: ignore[arg-type]
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
        if nowhere:
            nowhere.close()


def is_lost(output: Output) -> bool:
    """Whether something that was printed did not arrive, though its reader wanted it: not where it closed the pipe."""
    return output.fault is not None and output.fault.errno != errno.EPIPE
