"""The folder of a report: how it is known to be ours, and which files are its own."""

from pathlib import Path

GENERATOR = "valueshift report"
INDEX = "index.html"
PARTS = {"figures": {".svg", ".png"}, "tables": {".csv", ".parquet", ".tex"}}
"""Folders beside the index, and what their files are; a report's folder holds nothing else."""
_HEAD = 1000
"""Bytes of the page within which its marks are."""


def is_report(folder: Path, record: str | None = None) -> bool:
    """Whether a folder holds a report of ours, and nothing else beside its parts.

    Args:
        folder: any.
        record: name of the report's record, where it must be that one's.
    """
    index = folder / INDEX
    if not index.is_file() or {path.name for path in folder.iterdir()} - {INDEX, *PARTS}:
        return False
    with index.open("rb") as stream:
        head = stream.read(_HEAD).decode(errors="replace")
    marks = [mark("generator", GENERATOR), *([mark("record", record)] if record else [])]
    return all(one in head for one in marks)


def mark(name: str, content: str) -> str:
    """What stands in the head of the page."""
    return f'<meta name="{name}" content="{content}">'


def report_files(folder: Path, record: str) -> list[Path]:
    """The files of the report of a record, without links to elsewhere; none where the folder is not that report."""
    if not is_report(folder, record):
        return []
    parts = [
        path for name, kinds in PARTS.items() for path in sorted((folder / name).glob("*")) if path.suffix in kinds
    ]
    own = folder.resolve()
    return [path for path in (folder / INDEX, *parts) if path.is_file() and path.resolve().is_relative_to(own)]
