"""A second home for results: an object store or another disk, by an fsspec address. It is written, never read from."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import ValueshiftError
from ..core.files import inside
from .cells import Cell
from .results import read_result


def check_target(target: str) -> None:
    """Write an empty file `.valueshift` there, so that what is wrong with a target shows before the work.

    Args:
        target: `s3://bucket/prefix`, `gs://...`, `file:///...`.

    Raises:
        ValueshiftError: the target's filesystem is unknown or refuses.
    """
    with _opened(target) as (there, prefix):
        there.makedirs(prefix, exist_ok=True)
        there.pipe_file(f"{prefix}/.valueshift", b"")


def copy_results(cells: Sequence[Cell], root: Path, target: str) -> int:
    """Copy what the cells made and is not there yet; of each folder `record.json` (or `config.json`) comes last.

    Args:
        cells: of a plan.
        root: the runs root.
        target: as of `check_target`.

    Returns:
        number of files and folders copied.

    Raises:
        ValueshiftError: the target's filesystem is unknown or refuses.
    """
    made = {path for cell in cells if (found := read_result(root, cell.digest)) for path in found.made.values()}
    with _opened(target) as (there, prefix):
        return sum(_copy(inside(root, path), there, f"{prefix}/{path}") for path in sorted(made))


@contextmanager
def _opened(target: str) -> Iterator[tuple[Any, str]]:
    """The filesystem of a target and the path in it; what either raises within is put in a sentence."""
    import fsspec

    try:
        there, prefix = fsspec.core.url_to_fs(target)
        yield there, prefix.rstrip("/")
    except ImportError as error:
        raise ValueshiftError(f"{target} needs a package: {error}") from error
    except Exception as error:  # backends raise what their clients do: botocore's, google's and azure's own classes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueshiftError(
            f"cannot copy to {target} ({reason}); mend its address or your rights there: the same command then copies "
            "what is done"
        ) from error


_LAST = ("record.json", "config.json", "index.html")
"""Whose presence says that a folder is whole."""


def _copy(source: Path, there: Any, target: str) -> bool:
    """Copy a file or folder, without links that lead out of it, unless its last file is there."""
    if source.is_file():
        files = [source]
    else:
        files = sorted(path for path in source.rglob("*") if path.is_file() and path.resolve().is_relative_to(source))
        files.sort(key=lambda file: file.name in _LAST and file.parent == source)
    if not files:
        return False
    places = {file: f"{target}/{file.relative_to(source)}" if source.is_dir() else target for file in files}
    if there.exists(places[files[-1]]):
        return False
    for file, place in places.items():
        there.makedirs(place.rpartition("/")[0], exist_ok=True)
        there.put_file(str(file), place)
    return True
