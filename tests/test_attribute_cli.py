"""`valueshift attribute` and `attribute check` as they are typed."""

import contextlib
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from valueshift.cli import main
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table
from valueshift.finetune.finetuning import finetune
from valueshift.finetune.training import Training
from valueshift.harness_ext.probing import run_of

pytestmark = pytest.mark.xdist_group("attribute_cli")  # what its tests share takes long to make

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def run(tiny_mt5, tmp_path_factory) -> Run:
    """The command, in a folder with a model tuned on 64 German and Farsi sentences."""
    folder = tmp_path_factory.mktemp("cli")
    rows = [
        (str(number), language, probe.filled("first"))
        for language in ("de", "fa")
        for number, probe in enumerate(probe_set("wvs").probes(language)[:40])
    ]
    pd.DataFrame(rows, columns=["id", "language", "text"]).to_parquet(folder / "small.parquet")
    how = Training(epochs=2, learning_rate=3e-3, seed=1)
    base, root = str(tiny_mt5()), folder / "runs"
    record = read_record(finetune(base, str(folder / "small.parquet"), ["de", "fa"], 80, how, root=root))
    models = ["--base", base, "--tuned", str(root / record.settings["checkpoint"])]

    def command(*arguments: str, status: int = 0, models: list[str] = models) -> SimpleNamespace:
        out, err = io.StringIO(), io.StringIO()
        with (
            pytest.MonkeyPatch.context() as patch,
            pytest.raises(SystemExit) as left,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["valueshift", "attribute", *arguments, *models])
            main()
        assert (left.value.code or 0) == status, err.getvalue()
        return SimpleNamespace(stdout=out.getvalue(), stderr=err.getvalue())

    command.root, command.models = root, models[1::2]  # type: ignore[attr-defined]
    return command


def test_it_says_what_it_found_whether_to_believe_it_and_what_next(run):
    known = set(find_records(run.root, "attribution"))
    done = run("--languages", "de,tr")
    (folder,) = set(find_records(run.root, "attribution")) - known
    record, shares = read_record(folder), read_table(folder, "shares")
    assert f"Record: {folder.relative_to(run.root.parent)}" in done.stdout
    page = Path(done.stdout.split("Read the sentences: ")[1].splitlines()[0])
    assert page.is_file() and (page.parent / "top100.json").is_file()
    assert f"{record.metrics['stability']:.2f}" in done.stdout
    assert f"{shares['share'][0]:.3f}" in done.stdout
    assert all(note[:40] in done.stdout for note in record.notes)
    assert "MLflow: " in done.stdout and "Next: valueshift attribute check --base" in done.stdout


def test_without_a_shift_it_says_so_and_writes_nothing(run):
    first, second = (run_of(model, "wvs", "de", run.root).scores for model in run.models)
    stayed = first["question"][first["answer"] == second["answer"]].iloc[0]
    before = find_records(run.root, "attribution")
    done = run("--languages", "de", "--questions", stayed)
    assert "No answer shifted between" in done.stdout
    assert find_records(run.root, "attribution") == before


@pytest.mark.filterwarnings("ignore:64 projected dimensions are not fewer:UserWarning")  # what it says itself
def test_the_papers_way_is_refused_where_it_cannot_be_right_and_runs_on_request(run):
    refused = run("--languages", "de", "--paper", status=2)
    assert "4,096 projected dimensions are not fewer than the 64 training sentences" in refused.stderr
    for options in (["--paper", "--projection", "16"], ["--paper-strict", "--projection", "64"]):
        known = set(find_records(run.root, "attribution"))
        done = run("--languages", "de", *options)
        (folder,) = set(find_records(run.root, "attribution")) - known
        method = read_record(folder).inputs["method"]
        assert (method["backend"], method["measurement"], method["targets"]) == ("traker", "paper", "all")
        assert read_table(folder, "queries")["stability"].between(0, 1).all()
        assert "bottom sentences need not contradict" in done.stdout
        assert ("also where the inverse does not exist" in done.stdout) == ("--paper-strict" in options)


def test_check_trains_again_and_reads_what_it_trained(run):
    options = ["check", "--languages", "de", "--models", "3", "--removals", "1", "--seeds", "1"]
    done = run(*options)
    folder = Path(done.stdout.split("Tables: ")[1].split(" (")[0])
    tables = {
        name: pd.read_csv(run.root.parent / folder / f"{name}.csv") for name in ("lds", "removal", "randomisation")
    }
    assert tables["lds"]["method"].tolist() == ["default", "shuffled weights", "token overlap", "random"]
    assert (tables["lds"]["models"] == 3).all() and tables["lds"]["lds"].between(-1, 1).all()
    assert tables["removal"]["removed"].item() == 6
    assert tables["randomisation"]["chance"].item() == pytest.approx(6 / 64)
    assert len(list((run.root / "checks").glob("*/*.json"))) == 3 + 1 + 2
    again = run(*options)
    assert "finetune" not in again.stderr, "nothing is trained again"
    assert again.stdout == done.stdout


def test_what_cannot_be_done_is_one_sentence(run):
    assert "give both models" in run("check", models=[], status=2).stderr
    assert "unknown backend 'trak'" in run("--backend", "trak", status=2).stderr
    assert "Invalid value for '--models'" in run("check", "--languages", "de", "--models", "2", status=2).stderr
