"""The real chain in cells, on a random model: probe, fine-tune, probe, compare, attribute, report; then from the command line."""

import json
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from valueshift.core.records import find_records, read_record, read_table
from valueshift.experiments import actions
from valueshift.experiments.cells import Cell, expand
from valueshift.experiments.copying import copy_results
from valueshift.experiments.plan import Plan
from valueshift.experiments.results import read_result
from valueshift.finetune import toy
from valueshift.finetune.corpora.selection import select
from valueshift.finetune.corpora.store import read_corpus

pytestmark = pytest.mark.slow

PLAN = """\
models: {{tiny: {model}}}
sources: {{own: own.parquet}}
probe: {{languages: [de, tr]}}
finetune:
  short:
    models: [tiny]
    sources: [own]
    languages: [de, tr]
    size: 40
    training: [monolingual, multilingual]
    placebo: [0]
    epochs: 1
    learning_rate: 0.01
attribute:
  mixture: {{blocks: [short], training: [multilingual], languages: [de], k: 8}}
"""


def grid(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from valueshift.cli import main; main()", "grid", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_plan_is_done_from_the_command_line(
    tiny_mt5, sentences: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nowhere: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{nowhere}")
    rows = [
        (str(n), language, sentences[40 * place + n]) for n in range(40) for place, language in enumerate(("de", "tr"))
    ]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(tmp_path / "own.parquet")
    file, root = tmp_path / "plan.yaml", tmp_path / "runs"
    file.write_text(PLAN.format(model=tiny_mt5()))

    planned = grid("plan", str(file), "--output", str(root))
    assert planned.returncode == 0 and "21 cells" in planned.stdout, planned.stderr
    done = grid("run", str(file), "--output", str(root), "--copy-to", f"file://{tmp_path}/copy")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "21 of 21 cells are done: 21 now, 0 before" in done.stdout
    assert "records are not in MLflow" in done.stderr

    kinds = Counter(read_record(folder).kind for folder in find_records(root))
    assert kinds == {"probe": 7, "finetune": 6, "comparison": 6, "attribution": 1, "report": 1}
    assert Counter(read_record(folder).inputs["placebo"] for folder in find_records(root, "finetune")) == {
        False: 3,
        True: 3,
    }
    (attribution,) = find_records(root, "attribution")
    assert set(read_table(attribution, "queries")["language"]) == {"de"}
    cells = expand(Plan.read(file))
    result = read_result(root, cells[-1].digest)
    assert result and (result.path(root, "report") / "index.html").is_file()
    assert len(list((tmp_path / "copy").glob("*/record.json"))) == 21
    assert copy_results(cells, root, f"file://{tmp_path}/copy") == 0

    again = grid("run", str(file), "--output", str(root), "--cell", cells[0].digest)
    assert again.returncode == 0 and "1 of 1 cells are done: 0 now, 1 before" in again.stdout
    listed = grid("plan", str(file), "--output", str(root), "--list").stdout.splitlines()
    assert len(listed) == 21 and all(line.split("\t")[1] == "done" for line in listed)
    assert json.loads((root / "cells" / f"{cells[0].digest}.json").read_text())["made"]["record"].startswith("probe-")


def test_the_toys_corpora_are_joined_so_that_languages_can_share_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "build_toy", partial(toy.build_toy, passes=(1, 1), progress=False))
    cell = Cell("toy", "", "toy", {"languages": ["ko", "ru"], "seed": 0})
    made = actions.toy(cell, tmp_path, {})
    assert set(made) == {"base", "moved", "truth", "corpus", "corpus_other"}
    for name in ("corpus", "corpus_other"):
        corpus = read_corpus(str(tmp_path / made[name]))
        assert corpus.name == name and corpus.languages == ("ko", "ru")
        rows = select(corpus, ["ko", "ru"], 200)
        assert Counter(rows["language"]) == {"ko": 100, "ru": 100}
        assert set(rows["id"][rows["language"] == "ko"]) == set(rows["id"][rows["language"] == "ru"])
        folder = tmp_path / made["base"]
        separate = pd.concat([pd.read_parquet(path) for path in (folder.parent / name).glob("*.parquet")])
        assert sorted(corpus.table["text"]) == sorted(separate["text"])


def test_bad_plans_and_executors_end_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("models: {a: b}\n")
    found = grid("plan", str(tmp_path / "plan.yaml"))
    assert found.returncode == 2 and "plan.yaml, line 1, probe: is missing; add it" in found.stderr
    found = grid("run", "toy", "--executor", "cloud", "--output", str(tmp_path))
    assert found.returncode == 2 and "--executor is local or ray, not 'cloud'" in found.stderr
