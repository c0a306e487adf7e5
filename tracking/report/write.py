"""`valueshift report`: exhibits of run records, written as a folder of its own and as a run record."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ...core.digests import text_digest
from ...core.errors import ValueshiftError
from ...core.files import whole_folder
from ...core.records import record_folder, write_record
from .arms import Study
from .exhibit import Exhibit
from .exhibits import exhibits
from .figures import figures, file_name, formats
from .folder import INDEX, PARTS, is_report
from .page import Drawing, Run, page
from .published import published
from .study import collect
from .style import save, styled
from .tables import write_tables


def write_report(folders: Sequence[Path], output: Path, *, root: Path, truth: Path | None = None) -> Path:
    """Write a report and its run record, and return the record's folder.

    `output` holds `index.html`, `figures/` (SVG, and first pages as PNG) and `tables/` (CSV, Parquet, and the first rows for
    LaTeX). The record's tables are `exhibits` (name, title, paper, rows, missing) and every exhibit under its name; its settings
    name `output`.

    Args:
        folders: run records, or folders that hold run records.
        output: folder to write; an older report there is replaced.
        root: folder of run records that the report's own record goes to.
        truth: the planted profiles of a toy study.

    Raises:
        ValueshiftError: `output` holds something else; no records can be read or joined; the disk is full.
    """
    began = time.monotonic()
    _check(output)
    study = collect(folders, truth)
    made = exhibits(study)
    runs = published([Run(*one) for one in study.records], root)
    inputs = _inputs(study)
    with whole_folder(output.resolve()) as folder:
        drawings = _write_files(made, folder)
        name = record_folder(root, "report", inputs).name
        text = page(study, made, drawings, runs, _command(folders, output, truth), name)
        (folder / INDEX).write_text(text, encoding="utf-8")
    return _write_record(study, made, inputs, output, root, began)


def _check(output: Path) -> None:
    """Refuse to replace a folder that is no report."""
    if output.exists() and not (output.is_dir() and (is_report(output) or not any(output.iterdir()))):
        raise ValueshiftError(f"{output} holds something else than a report; choose another folder with --output")


def _write_files(made: Sequence[Exhibit], folder: Path) -> dict[str, list[Drawing]]:
    """Tables and figures of the exhibits that have rows; the drawings by exhibit."""
    for name in PARTS:
        (folder / name).mkdir()
    drawings: dict[str, list[Drawing]] = {}
    for exhibit in made:
        if not exhibit.table.empty:
            write_tables(exhibit.table, folder / "tables", exhibit.name)
            with styled():
                drawings[exhibit.name] = _draw(exhibit, folder / "figures")
    return drawings


def _draw(exhibit: Exhibit, folder: Path) -> list[Drawing]:
    drawings = []
    for place, pages in enumerate(figures(exhibit)):
        texts = (save(one, folder, file_name(exhibit.name, place, n), formats(n)) for n, one in enumerate(pages))
        drawings.append(Drawing(next(texts), 1 + sum(1 for _ in texts)))
    return drawings


def _command(folders: Sequence[Path], output: Path, truth: Path | None) -> str:
    words = ["valueshift", "report", *map(str, folders), "--output", str(output)]
    return shlex.join([*words, "--truth", str(truth)] if truth else words)


def _inputs(study: Study) -> dict[str, Any]:
    """What determines the report."""
    return {
        "runs": sorted(one.record.name for one in study.records),
        "probe_set": study.probe_set,
        "survey": study.truth.provenance if study.truth else "",
        "plant": text_digest(study.plant.to_csv(index=False).splitlines()) if study.plant is not None else "",
    }


def _write_record(
    study: Study, made: Sequence[Exhibit], inputs: Mapping[str, Any], output: Path, root: Path, began: float
) -> Path:
    listed = pd.DataFrame(
        {
            "name": [one.name for one in made],
            "title": [one.title for one in made],
            "paper": [one.paper for one in made],
            "rows": [len(one.table) for one in made],
            "missing": [one.missing for one in made],
        }
    )
    shown = {one.name: one.table for one in made if not one.table.empty}
    return write_record(
        root,
        "report",
        inputs,
        {"exhibits": listed, **shown},
        settings={"report": str(output.resolve())},
        metrics={"exhibits": float(len(shown)), "missing": float(len(made) - len(shown))},
        notes=study.notes,
        seconds=time.monotonic() - began,
    )
