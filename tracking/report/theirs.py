"""The paper's figures beside ours: `experiments/paper_values.csv`, joined with the exhibits by exhibit, row and column.

Each line of the file is one figure of the paper: where it stands there, and which exhibit, row (`column=value;...`, what
identifies it) and column of ours is the same quantity.
"""

from collections.abc import Sequence

import pandas as pd

from ...core.paths import PACKAGE
from .arms import Study
from .exhibit import Exhibit

VALUES = PACKAGE / "experiments" / "paper_values.csv"
COLUMNS = ["table", "exhibit", "row", "column", "unit", "theirs", "ours", "low", "high", "n", "differs", "note"]
WORDING, QUESTIONS, TRAINING, MODELS = "wvs_arora", 237, "5 epochs, lr 5e-05", "mt5-"
"""What the paper's figures are of. It reports one question less than the categories that it keeps have."""


def beside_paper(exhibits: Sequence[Exhibit], study: Study) -> Exhibit:
    """Every figure of the paper that we hold, with ours where a row of an exhibit is the same quantity."""
    ours = {exhibit.name: exhibit for exhibit in exhibits}
    rows: list[dict[str, object]] = []
    runs: dict[str, None] = {}
    for line in pd.read_csv(VALUES, comment="#", dtype=str).to_dict("records"):
        exhibit = ours[line["exhibit"]]
        cells = _same(exhibit.table, dict(part.split("=", 1) for part in line["row"].split(";")))
        stated: dict[str, object] = {name: line[name] for name in ("table", "exhibit", "row", "column", "unit", "note")}
        stated["theirs"] = float(line["value"])
        if cells.empty:
            rows.append(stated | {"differs": f"not among our rows. {exhibit.missing}".strip()})
        for _, cell in cells.iterrows():
            values = {"ours": cell[line["column"]]} | {name: cell.get(name) for name in ("low", "high", "n")}
            rows.append(stated | values | {"differs": _differs(cell, study)})
            runs.update(dict.fromkeys([cell["run"]] if cell.get("run") else exhibit.runs))
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    return Exhibit(
        "paper",
        "The paper's figures beside ours",
        "all",
        table.astype({"ours": "float64", "low": "float64", "high": "float64", "n": "Int64"}),
        "Figures that the paper states, ours where it is the same quantity, with its interval of 95% over batteries "
        "of questions, and in what the two differ.",
        tuple(runs),
        "The file of the paper's figures holds only those that were read at their source: its Tables 1 to 3 are not "
        f"in it. Add lines to {VALUES.relative_to(PACKAGE)} with a copy of the paper.",
    )


def _same(table: pd.DataFrame, wanted: dict[str, str]) -> pd.DataFrame:
    """The rows with these values; a pair is the same in either order."""
    if table.empty:
        return table
    swapped = wanted | {"first": wanted.get("second", ""), "second": wanted.get("first", "")}
    orders = [wanted, swapped] if "second" in wanted else [wanted]
    text = table[list(wanted)].astype("string")
    chosen = [(text == pd.Series(order)).all(axis=1) for order in orders]
    return table[pd.concat(chosen, axis=1).any(axis=1)]


def _differs(cell: "pd.Series[float]", study: Study) -> str:
    """In what our figure is of something else than the paper's."""
    found = []
    if study.probe_set != WORDING:
        found.append(f"wording {study.probe_set}, the paper has {WORDING}")
    if cell.get("n", QUESTIONS) != QUESTIONS:
        found.append(f"{cell['n']} questions, the paper has {QUESTIONS}")
    if study.truth is not None and study.truth.source != "imported" and not {"model", "language"} & set(cell.index):
        found.append(f"survey shares are {study.truth.source}, not computed from the full survey")
    if "model" in cell.index and not str(cell["model"]).startswith(MODELS):
        found.append(f"model {cell['model']}, the paper has mT5")
    if cell.get("training", TRAINING) not in ("", TRAINING):
        found.append(f"{cell['training']}, the paper has {TRAINING}")
    return "; ".join(found)
