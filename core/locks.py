"""One process at a time: a lock that ends with its holder, whose waiting has a word and an end."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ValueshiftError
from .files import explained
from .limits import LOCK_NOTICE_SECONDS, LOCK_SECONDS

log = logging.getLogger("valueshift")


class BusyError(ValueshiftError):
    """Another process has held what is wanted for longer than it is waited for."""


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold an exclusive lock on `path` (a lock file beside it, and one that names its holder), waiting for other processes.

    Args:
        path: what is locked; its folder is made where it is new.
        seconds: to wait at most.

    Raises:
        BusyError: another process still holds it.
        ValueshiftError: the lock file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    holder = path.with_name(f".{path.name}.holder")
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=min(seconds, LOCK_NOTICE_SECONDS))
        except Timeout:
            log.warning("waiting for %s, which %s uses", path, _named(holder))
            try:
                lock.acquire(timeout=max(0, seconds - LOCK_NOTICE_SECONDS))
            except Timeout:
                raise BusyError(
                    f"{path} is used by {_named(holder)}, and was not free within {seconds:,.0f} seconds; wait for that process, "
                    "or end it if it does nothing, and run this again"
                ) from None
    try:
        with explained(path):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _named(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8")[:200]
    except (OSError, UnicodeDecodeError):  # it begins or ends just now
        return "another process"
