"""What the digests of a grid's cells depend on, and what the cells are said to cost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from valueshift.core.own_set import new_probe_set
from valueshift.experiments.cells import Cell, expand
from valueshift.experiments.estimates import estimate
from valueshift.experiments.overview import overview
from valueshift.experiments.plan import STAGES, Plan

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "own_survey"
PLAN = """\
toy: {languages: [fa, ko]}
models: {toy: {toy: base}}
sources: {values: {toy: corpus}}
probe: {languages: [fa, ko]}
finetune:
  short: {models: [toy], sources: [values], languages: [fa, ko], size: 30, training: [multilingual]}
attribute: {all: {blocks: [short], languages: [fa, ko]}}
"""


def cells_of(folder: Path, text: str = PLAN) -> list[Cell]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.yaml").write_text(text)
    return expand(Plan.read(folder / "plan.yaml"))


def changed(before: list[Cell], after: list[Cell]) -> set[str]:
    """Stages that have cells which were not there before."""
    there = {cell.digest for cell in before}
    return {cell.stage for cell in after if cell.digest not in there}


@pytest.fixture
def own_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], list[Cell]]:
    """The cells of a plan that asks a probe set of one's own, in a file of which a word is replaced."""
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))
    text = PLAN.replace("{languages: [fa, ko]}\nfinetune", "{sets: [trains], languages: [de, en]}\nfinetune")
    text = text.replace(", languages: [fa, ko]}}", "}}")

    def cells(file: str, old: str, new: str) -> list[Cell]:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        shutil.copytree(EXAMPLE, tmp_path / "example", dirs_exist_ok=True)
        content = (EXAMPLE / file).read_text()
        assert old in content
        (tmp_path / "example" / file).write_text(content.replace(old, new))
        given = tmp_path / "example"
        new_probe_set("trains", given / "items.csv", given / "probes", given / "shares.csv")
        return cells_of(tmp_path, text)

    return cells


def test_other_probes_are_other_cells(own_set: Callable[[str, str, str], list[Cell]]) -> None:
    before, same, after = (own_set("probes/de.csv", "[MASK]", new) for new in ("[MASK]", "[MASK]", "[MASK] "))
    assert not changed(before, same)
    assert changed(before, after) == {"probe", "compare", "attribute", "report"}


def test_other_answers_of_people_are_other_comparisons(own_set: Callable[[str, str, str], list[Cell]]) -> None:
    before, after = (own_set("shares.csv", "0.31", new) for new in ("0.31", "0.32"))
    assert changed(before, after) == {"compare", "report"}


def test_the_order_of_languages_makes_no_other_cells(tmp_path: Path) -> None:
    turned = PLAN.replace("probe: {languages: [fa, ko]}", "probe: {languages: [ko, fa]}")
    turned = turned.replace("sources: [values], languages: [fa, ko]", "sources: [values], languages: [ko, fa]")
    turned = turned.replace("blocks: [short], languages: [fa, ko]", "blocks: [short], languages: [ko, fa]")
    assert turned.count("[ko, fa]") == 3
    assert [cell.digest for cell in cells_of(tmp_path, turned)] == [cell.digest for cell in cells_of(tmp_path)]


def test_other_weights_under_an_adapter_are_other_cells(tmp_path: Path) -> None:
    def over(weights: str) -> list[Cell]:
        base, adapter = tmp_path / weights / "base", tmp_path / weights / "adapter"
        for folder, config in ((base, "config.json"), (adapter, "adapter_config.json")):
            folder.mkdir(parents=True)
            (folder / config).write_text(json.dumps({"base_model_name_or_path": "../base"}))
        (base / "pytorch_model.bin").write_text(weights)
        (adapter / "adapter_model.bin").write_text("of the adapter")
        return cells_of(tmp_path / weights, PLAN.replace("models: {toy: {toy: base}}", "models: {toy: adapter}"))

    assert changed(over("one"), over("other")) == set(STAGES) - {"toy"}


def disk_of_attribution(folder: Path, model: str, *hows: str, done: int = 0) -> tuple[float, int]:
    """Bytes that attributions of one fine-tuned model are said to leave, and how many of them are of unknown size."""
    text = PLAN.replace("{toy: base}", model).replace("size: 30", "size: 2000").partition("attribute:")[0]
    cells = cells_of(
        folder, text + "attribute:\n" + "".join(f"  a{n}: {{blocks: [short]{how}}}\n" for n, how in enumerate(hows))
    )
    digests = [cell.digest for cell in cells if cell.stage == "attribute"]
    assert len(digests) == len(hows)
    found = estimate(cells, digests[done:], folder)["attribute"]
    return found.disk, found.unsized


def test_attributions_leave_what_their_k_says_and_share_a_store(tmp_path: Path) -> None:
    sentences, small = 1600, "google/mt5-small"
    assert disk_of_attribution(tmp_path, small, "") == (2 * 4 * sentences * 150_000, 0)
    of_16 = 2 * 4 * sentences * 146 * 16**2  # two projections of 146 matrices, each to 16 x 16 numbers of 4 bytes
    assert disk_of_attribution(tmp_path, small, ", k: 16") == (of_16, 0)
    assert disk_of_attribution(tmp_path, small, ", k: 16", ", k: 16, languages: [fa]") == (of_16, 0)
    assert disk_of_attribution(tmp_path, small, ", k: 16", ", k: 16, languages: [fa]", done=1) == (0, 0)
    assert disk_of_attribution(tmp_path, small, ", k: 16", ", k: 32") == (5 * of_16, 0)
    assert disk_of_attribution(tmp_path, small, ", method: paper") == (4 * sentences * 4096, 0)
    assert disk_of_attribution(tmp_path, "google/flan-t5-xl", ", k: 16") == (0, 1)


def test_what_is_not_known_is_said_and_what_every_model_has_in_common_is_known(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, PLAN.replace("{toy: base}", "google/flan-t5-xl"))
    view = overview(cells, tmp_path)
    assert view.left == len(cells) == 7
    unknown = [note for note in view.notes if "not known" in note]
    assert unknown == [
        "4 cells are of models whose rate is not known before the first of them is done",
        "1 cells are of models whose size is not known: what they leave on the disk is not counted",
    ]
    *_, compared, _, reported, total = view.rows
    assert compared[-2:] == ["0.1 min", ""] and reported[-2:] == ["0.1 min", ""]
    assert total[-2:] == ["over 2.8 min", "over 29 MB"]
