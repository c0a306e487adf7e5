"""Writing whole files and folders or none: temporary on the same disk, fsynced, renamed."""

import os
import shutil
import tempfile
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


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed to `path`, else removed."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            _fsync(temporary)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
            _fsync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success its files are fsynced and it becomes `path`, else it is removed.

    An existing `path` is replaced only after the new folder is whole. Of two processes writing the same path the last wins.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _fsync(file)
            os.chmod(temporary, 0o755)
            if path.exists():
                replaced = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
                os.replace(path, replaced / "old")
                os.replace(temporary, path)
                shutil.rmtree(replaced, ignore_errors=True)
            else:
                os.replace(temporary, path)
            _fsync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
