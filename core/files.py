"""Writing whole files and folders or none: temporary on the same disk, fsynced, renamed; and paths that stay in a folder.

What is being written lies beside its place in a workspace, `.<random>.valueshift.tmp/new/<name>`, whose writer holds a lock on
it. A workspace that nobody holds is what a killed process left, and whoever writes there next removes it.
"""

import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from .errors import ValueshiftError
from .exchange import exchange

OWN_FOLDERS = (
    "cells",
    "checkpoints",
    "features",
    "logs",
    "mlartifacts",
    "pages",
    "reports",
    "running",
    "scores",
    "toys",
)
"""Folders of a runs root, any of which may be a link to another disk."""
_WORKSPACE = ".valueshift.tmp"


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk under `path` into a `ValueshiftError` that names it."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename not in (None, str(path)):
            raise
        reason = error.strerror or str(error)
        raise ValueshiftError(f"cannot write {path}: {reason}; free the disk or choose another folder") from error


def writable(folder: Path) -> None:
    """Make a folder where it is new, before long work whose result goes there.

    Raises:
        ValueshiftError: it cannot be made or written to.
    """
    try:
        with _workspace(folder / "probe"):
            pass
    except OSError as error:
        raise ValueshiftError(f"cannot write {folder}: {error.strerror}; choose another folder") from error


def inside(root: Path, stated: str | Path) -> Path:
    """Where a path is that a file in `root` states, links resolved; it must stay in `root`, which others may write to.

    Args:
        root: a folder; its `OWN_FOLDERS` may be links to elsewhere.
        stated: from `root`, or absolute.

    Raises:
        ValueshiftError: it leads out of `root`.
    """
    try:
        path = root / stated
        found = path.resolve()
        found.exists()  # raises where the name is too long to be asked about
        tops = [root.resolve(), *((root / name).resolve() for name in OWN_FOLDERS if path.is_relative_to(root / name))]
    except (OSError, ValueError, RuntimeError) as error:  # names that no system can have, and links in a circle
        raise ValueshiftError(f"{str(stated)[:200]!r} is no path ({error}); remove what states it") from error
    if not any(found.is_relative_to(top) for top in tops):
        raise ValueshiftError(f"{stated} leads out of {root}; remove what states it, or move there what it names")
    return found


def from_root(root: Path, path: Path) -> str:
    """How a record in `root` states a path: from `root` where it lies there, so that the folder can be moved; else whole."""
    path = path.absolute()
    return str(path.relative_to(root.absolute()) if path.is_relative_to(root.absolute()) else path)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path on the same disk; on success the file is fsynced and renamed to `path`, else removed."""
    with explained(path), _workspace(path) as workspace:
        temporary = workspace / "new" / path.name
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder on the same disk; on success its files are fsynced and it becomes `path`, else it is removed.

    An existing `path` is replaced only after the new folder is whole, in one step where the system can: a reader finds the old
    one or the new one. Of two processes writing the same path the last wins.
    """
    with explained(path), _workspace(path) as workspace:
        temporary = workspace / "new" / path.name
        temporary.mkdir()
        yield temporary
        for part in (temporary, *sorted(temporary.rglob("*"))):
            if part.is_dir() or part.is_file():
                _fsync(part)
        while not _placed(temporary, path, workspace / "old"):
            pass  # another process was faster; it is done now
        _fsync(path.parent)


def _placed(new: Path, path: Path, old: Path) -> bool:
    """Put a whole folder in its place; False where another process placed or moved one meanwhile.

    What was there goes to the workspace: to where `new` was, or, where the system cannot exchange, first to `old`, from which
    `_sweep` brings it back if this process is killed before the second step.
    """
    try:
        if path.exists() or path.is_symlink():
            if exchange(new, path):
                return True
            old.mkdir(exist_ok=True)
            if (old / path.name).exists():
                shutil.rmtree(old / path.name)
            path.rename(old / path.name)
        new.rename(path)
    except FileNotFoundError:
        if not new.exists():
            raise
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


@contextmanager
def _workspace(path: Path) -> Iterator[Path]:
    """A folder of this process beside `path`, locked while it is in use and removed at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent)
    lock = None
    while lock is None:  # another process may sweep the new folder before it is held
        workspace = path.with_name(f".{secrets.token_hex(8)}{_WORKSPACE}")
        workspace.mkdir()
        lock = _held(workspace)
    try:
        (workspace / "new").mkdir()
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        lock.close()


class _Lock(NamedTuple):
    """An open folder. Its lock ends when it is closed, or with this process, however that ends."""

    descriptor: int
    sure: bool
    """False where the file system has no locks: then nothing there is known to be abandoned."""

    def close(self) -> None:
        os.close(self.descriptor)


def _held(folder: Path) -> _Lock | None:
    """A lock on a folder; None where another process holds it or has removed it."""
    try:
        lock = _Lock(os.open(folder, os.O_RDONLY), sure=True)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.is_dir():
            return lock
    except BlockingIOError:
        pass
    except OSError:
        return lock._replace(sure=False)
    lock.close()
    return None


def _sweep(folder: Path) -> None:
    """Remove what killed processes left in a folder, after what they had moved away is back in its place."""
    for workspace in folder.glob(f".*{_WORKSPACE}"):
        with suppress(OSError):  # it is another user's
            if (lock := _held(workspace)) is None:
                continue
            with closing(lock):
                if not lock.sure:
                    continue
                for moved in (workspace / "old").glob("*"):
                    if not (folder / moved.name).exists():
                        moved.rename(folder / moved.name)
                shutil.rmtree(workspace, ignore_errors=True)
