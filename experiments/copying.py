"""A second home for results: an object store or another disk, by an fsspec address. It is written, never read from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import ValueshiftError
from .cells import Cell
from .results import read_result


def copy_results(cells: Sequence[Cell], root: Path, target: str) -> int:
    """Copy what the cells made and is not there yet; of each folder `record.json` (or `config.json`) comes last.

    Args:
        cells: of a plan.
        root: the runs root.
        target: `s3://bucket/prefix`, `gs://...`, `file:///...`.

    Returns:
        number of files and folders copied.

    Raises:
        ValueshiftError: the target's filesystem is unknown or refuses.
    """
    import fsspec

    copied = 0
    try:
        there, prefix = fsspec.core.url_to_fs(target)
        made = {path for cell in cells if (found := read_result(root, cell.digest)) for path in found.made.values()}
        for path in sorted(made):
            copied += _copy(root / path, there, f"{prefix.rstrip('/')}/{path}")
    except ImportError as error:
        raise ValueshiftError(f"{target} needs a package: {error}") from error
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"cannot copy to {target} ({error}); what was done is in {root}") from error
    return copied


_LAST = ("record.json", "config.json", "index.html")
"""Whose presence says that a folder is whole."""


def _copy(source: Path, there: Any, target: str) -> bool:
    """Copy a file or folder, unless its last file is there."""
    if source.is_file():
        files = [source]
    else:
        files = sorted(file for file in source.rglob("*") if file.is_file())
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
