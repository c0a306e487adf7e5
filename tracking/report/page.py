"""The report as one HTML page that opens without network: styles, figures and tables are inside it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ...core.languages import LANGUAGES
from ...core.records import RunRecord, library_versions
from .. import schema
from .arms import Study
from .exhibit import Exhibit
from .figures import file_name, formats
from .folder import GENERATOR, mark
from .style import COLOURS, INK, RULE
from .tables import Column, layout, parts, records
from .words import MEANINGS, label

ROWS = 100
"""Rows of a table that the page shows; more would make it slow to open on a phone."""
OPEN_ROWS = 20
"""Longer tables are folded."""
_LIBRARIES = ("matplotlib", "numpy", "pandas", "scipy", "scikit-learn")
_KINDS = {"svg": "SVG", "png": "PNG", "csv": "CSV", "parquet": "Parquet", "tex": "LaTeX"}
_ONCE = (
    "model",
    "source",
    "tuning",
    "size",
    "training",
    "seed",
    "placebo",
    "stage",
    "first",
    "second",
    "side",
    "other",
)
"""Columns that are said once above the table where all rows have the same value."""


class Drawing(NamedTuple):
    """One drawing of an exhibit: its first page is shown, the others are linked."""

    svg: str
    """Text of the first page."""
    pages: int


@dataclass(frozen=True)
class Run:
    """A record that numbers come from, and where it is in MLflow."""

    folder: Path
    record: RunRecord
    run_id: str = ""
    href: str = ""
    """The run's page, where MLflow is a server."""


def page(
    study: Study,
    exhibits: Sequence[Exhibit],
    drawings: Mapping[str, Sequence[Drawing]],
    runs: Sequence[Run],
    command: str,
    record: str = "",
) -> str:
    """The page.

    Args:
        study: what the runs are.
        exhibits: in the order to show; those without rows are listed as not possible.
        drawings: by exhibit.
        runs: every record that the exhibits name.
        command: what made the report.
        record: name of its run record.
    """
    environment = Environment(
        loader=PackageLoader("valueshift.tracking", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = prose
    known = {run.record.name for run in runs}
    shown = [exhibit for exhibit in exhibits if not exhibit.table.empty]
    printed = {str(name) for exhibit in shown for name in exhibit.table.columns}
    return environment.get_template("report.html.j2").render(
        marks=[Markup(mark("generator", GENERATOR)), Markup(mark("record", record))],  # noqa: S704
        style=Markup((files("valueshift.tracking.report") / "templates" / "report.css").read_text("utf-8")),  # noqa: S704
        lead=_lead(study, runs),
        notes=study.notes,
        languages=[LANGUAGES[code] for code in _spoken(study) if code in LANGUAGES],
        exhibits=[_exhibit(exhibit, drawings.get(exhibit.name, ()), known) for exhibit in shown],
        impossible=[exhibit for exhibit in exhibits if exhibit.table.empty],
        planted=study.plant is not None,
        legend=[(label(name), meaning) for name, meaning in MEANINGS.items() if _stem(name, printed)],
        runs=[_run(run) for run in runs],
        made=f"{datetime.now(UTC):%Y-%m-%d at %H:%M} UTC",
        command=command,
        versions=[*library_versions().items(), *((name, version(name)) for name in _LIBRARIES)],
        survey=study.truth.provenance if study.truth else "",
    )


def _stem(name: str, printed: set[str]) -> bool:
    return name in printed or f"{name}_low" in printed


def _lead(study: Study, runs: Sequence[Run]) -> str:
    counted = {
        "pretrained model": len(study.pretrained),
        "fine-tuned model": len(study.real),
        "placebo run": len(study.arms) - len(study.real),
        "test language": len(study.languages),
    }
    counts = ", ".join(_count(number, what) for what, number in counted.items() if number)
    return f"Probe set {study.probe_set}: {counts}; from {_count(len(runs), 'run record')}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _spoken(study: Study) -> list[str]:
    """Test languages, then fine-tuning languages."""
    return list(dict.fromkeys([*study.languages, *(code for arm in study.arms for code in arm.languages)]))


def _exhibit(exhibit: Exhibit, drawings: Sequence[Drawing], known: set[str]) -> dict[str, Any]:
    table = exhibit.table
    once = [name for name in _ONCE if name in table and len(table) > 1 and table[name].nunique(dropna=False) == 1]
    rest = table.drop(columns=once)
    columns = sorted(layout(rest), key=lambda column: column.name in ("run", "attribution"))
    names = [[file_name(exhibit.name, place, n) for n in range(one.pages)] for place, one in enumerate(drawings)]
    linked = [
        (f"figures/{name}.{kind}", _KINDS[kind] + (f", page {n + 1}" if n else ""))
        for pages in names
        for n, name in enumerate(pages)
        for kind in formats(n)
    ]
    linked += [(f"tables/{exhibit.name}.{kind}", _KINDS[kind]) for kind in ("csv", "parquet", "tex")]
    return {
        "name": exhibit.name,
        "title": exhibit.title,
        "paper": exhibit.paper,
        "caption": exhibit.caption,
        "missing": exhibit.missing,
        "runs": [name for name in exhibit.runs if name in known],
        "named": "run" in table,
        "figures": [
            {"svg": inlined(one.svg, name, exhibit.title)} for one, (name, *_) in zip(drawings, names, strict=True)
        ],
        "once": [
            (label(name), text) for name in once if (text := parts(records(table[:1])[0], Column(name, None, False))[0])
        ],
        "columns": columns,
        "rows": [[_cell(row, column, known) for column in columns] for row in records(rest[:ROWS])],
        "total": len(table),
        "open": len(table) <= OPEN_ROWS,
        "files": [{"href": href, "label": text} for href, text in linked],
    }


def _cell(row: Mapping[str, Any], column: Column, known: set[str]) -> dict[str, Any]:
    value, interval = parts(dict(row), column)
    html = escape(value)
    if column.name == "language" and value in LANGUAGES:
        html += _native(value)
    elif value in known:
        html = Markup('<a href="#{}">{}</a>').format(value, f"{value.partition('-')[0]}-{value.partition('-')[2][:6]}")
    if interval:
        html += Markup(' <span class="interval">{}</span>').format(interval)
    return {"html": html, "kind": "n" if column.numeric else "wrap" if len(value) > 40 else ""}


def prose(text: str) -> Markup:
    """A sentence, in which what stands in backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else part for place, part in enumerate(parts)
    )


def _native(code: str) -> Markup:
    language = LANGUAGES[code]
    direction = Markup(' dir="rtl"') if language.right_to_left else ""
    return Markup(' <bdi lang="{}"{}>{}</bdi>').format(code, direction, language.native)


def inlined(svg: str, name: str, title: str) -> Markup:
    """An SVG file as part of the page: ids of its own, the page's text and rule colours, a size that fits the screen."""
    body = svg[svg.index("<svg") :]
    head, _, rest = body.partition(">")
    width = float(re.search(r'width="([\d.]+)pt"', head)[1])  # type: ignore[index]
    box = re.search(r'viewBox="[^"]*"', head)[0]  # type: ignore[index]

    def of_page(tag: re.Match[str]) -> str:
        text = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag[0])  # a turn by nothing
        text = re.sub(r"(\d\.\d\d)\d+", r"\1", text)  # thousandths of a point
        text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
        for colour, ours in {INK: "currentColor", RULE: "var(--rule)", COLOURS[0]: "var(--first)"}.items():
            text = re.sub(colour, ours, text, flags=re.IGNORECASE)
        return text

    rest = re.sub(r"<[^>]*>", of_page, re.sub(r"<!--.*?-->|\s*\n\s*", " ", rest, flags=re.DOTALL))
    opening = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        'aria-label="{}" style="--width: {:.0f}px" '
    ).format(title, width * 4 / 3)
    return opening + Markup(f"{box}>{rest}")  # noqa: S704 matplotlib escapes the texts of its SVG


def _run(run: Run) -> dict[str, Any]:
    record = run.record
    return {
        "name": record.name,
        "about": schema.run_name(record),
        "digest": record.digest,
        "created": f"{record.created:%Y-%m-%d %H:%M} UTC",
        "folder": str(run.folder),
        "run_id": run.run_id,
        "href": run.href,
        "details": list(schema.params(record).items()),
        "notes": record.notes,
    }
