"""What the cells of each stage do; the rooms that do it are imported when a worker does it first."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .cells import Cell
from .results import Result

if TYPE_CHECKING:
    import pandas as pd

    from ..harness_ext.results import ProbeRun

Results = Mapping[str, Result]


def toy(cell: Cell, root: Path, given: Results) -> dict[str, str]:
    """Build the toy community, and join the languages of each of its corpora to one file."""
    from ..core.files import whole_file
    from ..finetune.toy import CHECKPOINTS, CORPORA, build_toy

    folder = root / "toys" / cell.digest
    build_toy(folder, cell.spec["languages"], cell.spec["seed"])
    made = {name: folder / name for name in CHECKPOINTS} | {"truth": folder / "truth.csv"}
    for name in CORPORA:
        made[name] = root / "toys" / f"{cell.digest}-corpora" / f"{name}.parquet"
        with whole_file(made[name]) as temporary:
            _joined(folder / name).to_parquet(temporary, index=False)
    return {name: _from(root, path) for name, path in made.items()}


def _joined(folder: Path) -> "pd.DataFrame":
    """The languages of a parallel corpus in one table, translations of a sentence together."""
    import pandas as pd

    table = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)
    place = {sentence: number for number, sentence in enumerate(dict.fromkeys(table["id"]))}
    return table.iloc[table["id"].map(place).argsort(kind="stable")]


def probe(cell: Cell, root: Path, given: Results) -> dict[str, str]:
    """Ask a model one probe set."""
    from ..core.probes import probe_set
    from ..harness_ext.probe_record import kept_probe_record
    from ..harness_ext.probing import Asking, ask

    spec = cell.spec
    how = Asking(dtype=spec["dtype"], neutral=spec["neutral"])
    run = ask(_model(cell, root, given), probe_set(spec["set"]), list(spec["probes"]), root, how)
    return {"record": _from(root, kept_probe_record(root, run))}


def finetune(cell: Cell, root: Path, given: Results) -> dict[str, str]:
    """Fine-tune a model; a run that was stopped goes on from its last checkpoint."""
    from ..core.records import read_record
    from ..finetune.finetuning import finetune as run_finetune
    from ..finetune.training import Training

    spec = cell.spec
    how = Training(
        epochs=spec["epochs"],
        learning_rate=spec["learning_rate"],
        batch_size=spec["batch_size"],
        accumulate=spec["accumulate"],
        seed=spec["seed"],
        lora=spec["lora"],
    )
    record = run_finetune(
        _model(cell, root, given),
        _corpus(cell, root, given),
        spec["languages"],
        spec["size"],
        how,
        placebo=spec["placebo"],
        root=root,
    )
    return {"record": _from(root, record), "model": str(read_record(record).settings["checkpoint"])}


def compare(cell: Cell, root: Path, given: Results) -> dict[str, str]:
    """Compare the answers before and after."""
    from ..harness_ext.comparison import compare as compare_runs

    base, tuned = (_probe_run(given[digest].path(root, "record")) for digest in cell.needs)
    record, _ = compare_runs(base, tuned, root)
    return {"record": _from(root, record)}


def attribute(cell: Cell, root: Path, given: Results) -> dict[str, str]:
    """Explain the answers that shifted by training sentences; nothing is made where none did."""
    from ..attribution.attributing import Attributing, page_folder
    from ..attribution.attributing import attribute as attribute_shifts
    from ..attribution.page import write_page
    from ..attribution.scoring import Method

    spec = cell.spec
    base, tuned = (str(given[digest].path(root, "record")) for digest in cell.needs[:2])
    method = (
        Method.paper(k=spec["k"])
        if spec["method"] == "paper"
        else Attributing().method.model_copy(update={"k": spec["k"]})
    )
    how = Attributing(method, languages=",".join(spec["languages"]) or None)
    record = attribute_shifts(base, tuned, root, how)
    if record is None:
        print("No answer shifted.")
        return {}
    page = write_page(record, page_folder(record))
    return {"record": _from(root, record), "page": _from(root, page.parent)}


def report(cell: Cell, root: Path, given: Results) -> dict[str, str]:
    """Every table and figure, of all records that there are."""
    from ..tracking.report.write import write_report

    records = [result.path(root, "record") for result in given.values() if "record" in result.made]
    truth = next((result.path(root, "truth") for result in given.values() if "truth" in result.made), None)
    folder = root / "reports" / cell.digest
    record = write_report(list(dict.fromkeys(records)), folder, root=root, truth=truth)
    return {"record": _from(root, record), "report": _from(root, folder)}


def _model(cell: Cell, root: Path, given: Results) -> str:
    """Where the model of a cell is: as the plan says, or as another cell made it."""
    part = cell.spec["model"].get("toy") or cell.spec["model"].get("part")
    if part is None:
        return str(cell.settings["model"])
    return str(next(result.path(root.resolve(), part) for result in given.values() if part in result.made))


def _corpus(cell: Cell, root: Path, given: Results) -> str:
    part = cell.spec["corpus"].get("toy")
    if part is None:
        return str(cell.settings["corpus"])
    return str(next(result.path(root.resolve(), part) for result in given.values() if part in result.made))


def _probe_run(record: Path) -> "ProbeRun":
    from ..harness_ext.results import read_probe_runs, single_run

    return single_run(read_probe_runs(record), record)


def _from(root: Path, path: Path) -> str:
    """The path from the root, through links: a folder of the root may lie on another disk."""
    return str(path.absolute().relative_to(root.absolute()))
