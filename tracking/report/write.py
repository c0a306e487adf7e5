"""`valueshift report`: exhibits of run records, written as a folder of its own and as a run record."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ...core.digests import text_digest
from ...core.errors import ValueshiftError
from ...core.files import whole_folder
from ...core.records import find_records, read_record, write_record
from .arms import Study
from .exhibit import Exhibit
from .exhibits import exhibits
from .figures import figures, file_name
from .page import GENERATOR, Run, page
from .published import published
from .study import collect
from .style import save, styled
from .tables import write_tables

CONTENT = {"index.html", "figures", "tables"}
"""What a report's folder holds, and nothing else."""


def write_report(folders: Sequence[Path], output: Path, *, root: Path, truth: Path | None = None) -> Path:
    """Write a report and its run record, and return the record's folder.

    `output` holds `index.html`, `figures/` (SVG, PNG) and `tables/` (CSV, Parquet, LaTeX). The record's tables are
    `exhibits` (name, title, paper, rows, missing) and every exhibit under its name; its settings name `output`.

    Args:
        folders: run records, or folders that hold run records.
        output: folder to write; an older report there is replaced.
        root: folder of run records that the report's own record goes to.
        truth: the planted profiles of a toy study.

    Raises:
        ValueshiftError: `output` holds something else; the records cannot be read or joined; the disk is full.
    """
    _check(output)
    study = collect(folders, truth)
    made = exhibits(study)
    runs = _runs(folders, root)
    with whole_folder(output.resolve()) as folder:
        drawings = _write_files(made, folder)
        text = page(study, made, drawings, runs, _command(folders, output, truth))
        (folder / "index.html").write_text(text, encoding="utf-8")
    return _write_record(study, made, runs, output, root)


def _check(output: Path) -> None:
    """Refuse to replace a folder that is no report."""
    if not output.exists():
        return
    index = output / "index.html"
    if output.is_dir() and not any(output.iterdir()):
        return
    ours = index.is_file() and f'content="{GENERATOR}"' in index.read_text(encoding="utf-8", errors="replace")[:1000]
    if not ours or {path.name for path in output.iterdir()} - CONTENT:
        raise ValueshiftError(f"{output} holds something else than a report; choose another folder with --output")


def _runs(folders: Sequence[Path], root: Path) -> list[Run]:
    """The records, each once, oldest first, without reports."""
    paths = [
        path
        for folder in folders
        for path in ([folder] if (folder / "record.json").is_file() else find_records(folder))
    ]
    found = {record.name: Run(path, record) for path in paths if (record := read_record(path)).kind != "report"}
    return sorted(published(list(found.values()), root), key=lambda run: run.record.created)


def _write_files(made: Sequence[Exhibit], folder: Path) -> dict[str, list[list[str]]]:
    """Tables and figures of the exhibits that have rows; exhibit to the SVG texts of its drawings, each in pages."""
    for name in ("figures", "tables"):
        (folder / name).mkdir()
    drawings: dict[str, list[list[str]]] = {}
    for exhibit in made:
        if exhibit.table.empty:
            continue
        write_tables(exhibit.table, folder / "tables", exhibit.name)
        with styled():
            drawings[exhibit.name] = [
                [save(figure, folder / "figures", file_name(exhibit.name, place, n)) for n, figure in enumerate(pages)]
                for place, pages in enumerate(figures(exhibit))
            ]
    return drawings


def _command(folders: Sequence[Path], output: Path, truth: Path | None) -> str:
    words = ["valueshift", "report", *map(str, folders), "--output", str(output)]
    return shlex.join([*words, "--truth", str(truth)] if truth else words)


def _write_record(study: Study, made: Sequence[Exhibit], runs: Sequence[Run], output: Path, root: Path) -> Path:
    listed = pd.DataFrame(
        {
            "name": [one.name for one in made],
            "title": [one.title for one in made],
            "paper": [one.paper for one in made],
            "rows": [len(one.table) for one in made],
            "missing": [one.missing for one in made],
        }
    )
    inputs = {
        "runs": sorted(run.record.name for run in runs),
        "probe_set": study.probe_set,
        "survey": study.truth.provenance if study.truth else "",
        "plant": text_digest(study.plant.to_csv(index=False).splitlines()) if study.plant is not None else "",
    }
    shown = {one.name: one.table for one in made if not one.table.empty}
    return write_record(
        root,
        "report",
        inputs,
        {"exhibits": listed, **shown},
        settings={"report": str(output.resolve())},
        metrics={"exhibits": float(len(shown)), "missing": float(len(made) - len(shown))},
        notes=study.notes,
    )
