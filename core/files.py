"""Writing whole files and folders or none: temporary on the same disk, fsynced, renamed."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ValueshiftError


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
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.{secrets.token_hex(4)}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueshiftError(f"cannot write {folder}: {error.strerror}; choose another folder") from error


def _beside(path: Path, suffix: str) -> Path:
    """A path of its own in the same folder, so that a rename stays on one disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{suffix}")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed to `path`, else removed."""
    with explained(path):
        temporary = _beside(path, ".tmp")
        try:
            yield temporary
            _fsync(temporary)
            temporary.replace(path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success its files are fsynced and it becomes `path`, else it is removed.

    An existing `path` is replaced only after the new folder is whole. Of two processes writing the same path the last wins.
    """
    with explained(path):
        temporary = _beside(path, ".tmp")
        temporary.mkdir()
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _fsync(file)
            if path.exists():
                replaced = path.replace(_beside(path, ".old"))
                temporary.replace(path)
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                temporary.replace(path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
