"""A bad record among good ones, whatever is wrong with it: it is left out with file, field and remedy, and the rest is used."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_records import moved, odds, probed, tuned
from valueshift.cli.probing import compare
from valueshift.core import limits, locks
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import (
    KINDS,
    find_records,
    read_record,
    read_table,
    record_folder,
    whole_records,
    write_record,
)
from valueshift.core.tables import EXAMPLES, SCORES
from valueshift.experiments.results import Result, read_result, result_path, write_result
from valueshift.harness_ext.results import read_probe_runs
from valueshift.tracking.contents import artifacts
from valueshift.tracking.lineage import made_by, makers
from valueshift.tracking.report.folder import GENERATOR, mark
from valueshift.tracking.report.study import collect

Change = Callable[[dict[str, Any]], object]
GOOD = ("base", "fa", "other")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Probe records of three models, and how one was tuned from another and explained."""
    root = tmp_path_factory.mktemp("good") / "runs"
    start = odds(0, ["de", "fa"])
    for number, name in enumerate(GOOD):
        probed(root, name, moved(start, number, 1.0))
    finetune = tuned(root, "base", "fa")
    query = {"language": "de", "question": "Q1"}
    influence = pd.DataFrame([{**query, "side": "top", "rank": 1, "example": "pbc:fa:0", "train_language": "fa"}])
    queries = pd.DataFrame([{**query, "answer_tuned": "first"}])
    settings = {"finetune": finetune.name, "output": "pages/x"}
    inputs = {"tuned": ["fa"], "probe_set": "wvs"}
    write_record(root, "attribution", inputs, {"queries": queries, "influence": influence}, settings=settings)
    return root


@pytest.fixture
def root(good: Path, tmp_path: Path) -> Path:
    shutil.copytree(good, tmp_path / "runs")
    return tmp_path / "runs"


def folder_of(root: Path, kind: str, model: str = "other") -> Path:
    found = [path for path in root.glob(f"{kind}-*") if kind != "probe" or read_record(path).inputs["model"] == model]
    (folder,) = found
    return folder


def changed(folder: Path, change: Change) -> Path:
    """The record with its JSON changed; where its inputs were, digest and name are theirs again, as a forger would see to."""
    path = folder / "record.json"
    content = json.loads(path.read_text())
    before = digest(content["inputs"])
    change(content)
    if isinstance(inputs := content.get("inputs"), dict) and digest(inputs) != before:
        content["digest"] = digest(inputs)
        folder = folder.rename(folder.with_name(f"{content['kind']}-{content['digest']}"))
    (folder / "record.json").write_text(json.dumps(content))
    return folder


def put(part: str, *keys: str, value: Any) -> Change:
    def change(content: dict[str, Any]) -> None:
        place = content[part] if keys else content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1] if keys else part] = value

    return change


def drop(part: str, *keys: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        (content[part] if keys else content).pop(keys[-1] if keys else part)

    return change


DEEP: Any = []
for _ in range(150):
    DEEP = [DEEP]
LONG = "m" * 1_000_000

JSON: list[tuple[str, Change, str]] = [
    ("probe", put("schema_version", value="1"), "schema_version: "),
    ("probe", put("schema_version", value=True), "schema_version: "),
    ("probe", put("schema_version", value=99), "has schema 99.*upgrade"),
    ("probe", put("created", value="2025-01-01T00:00:00"), "created: .*timezone"),
    ("probe", put("created", value="0001-01-01T00:00:00+14:00"), "created: .*between 1971"),
    ("probe", put("created", value="9999-12-31T23:59:59-14:00"), "created: .*between 1971"),
    ("probe", put("kind", value="finetune"), "kind or digest: it is the record finetune-"),
    ("probe", put("kind", value="survey"), "kind: "),
    ("probe", put("digest", value="0" * 16), "digest: it is not that of the inputs"),
    ("probe", put("metrics", value={"p": float("inf")}), "metrics.p: "),
    ("probe", put("metrics", value=[1]), "metrics: "),
    ("probe", put("notes", value=[{}]), "notes.0: "),
    ("probe", put("versions", value=None), "versions: "),
    ("probe", drop("inputs"), "inputs: "),
    ("probe", put("inputs", value="x"), "inputs: "),
    ("probe", put("settings", value=[]), "settings: "),
    *(("probe", drop("inputs", key), f"inputs.{key}: ") for key in ("model", "probe_set", "probes", "format", "dtype")),
    *(("probe", put("inputs", key, value=[1]), f"inputs.{key}") for key in ("model", "probe_set", "probes", "format")),
    ("probe", put("inputs", "probe_set", value="../wvs"), "inputs.probe_set: "),
    ("probe", put("inputs", "probe_set", value="nowhere"), "inputs.probe_set: 'nowhere' is not on this machine"),
    ("probe", put("inputs", "probes", value={"de": "0"}), "scores.parquet, column language: fa is not among"),
    ("probe", put("inputs", "deep", value=DEEP), "nested deeper than 100"),
    ("probe", put("inputs", "number", value=10**30), "an integer of 31 digits"),
    ("probe", put("settings", "model", value="\ud800"), "half a surrogate pair"),
    ("probe", put("settings", "model", value=LONG), "settings.model: 1,000,000 characters"),
    ("probe", put("settings", "model", value="a\0b"), "settings.model: the control character"),
    ("probe", put("settings", "model", value={"a": 1}), "settings.model: "),
    ("probe", put("settings", "reading", value="aloud"), "unknown reading 'aloud'"),
    ("probe", put("settings", "survey", value={"provenance": 1}), "settings.survey."),
    ("probe", put("tables", value=["scores", "../x"]), "tables.1: "),
    ("probe", put("tables", value=["/etc/passwd"]), "tables.0: "),
    ("probe", put("tables", value=["absent"]), "lacks absent.parquet"),
    ("probe", put("surprise", value=1), "surprise: "),
    *(
        ("finetune", drop("inputs", key), f"inputs.{key}: ")
        for key in ("size", "seed", "placebo", "languages", "epochs")
    ),
    ("finetune", put("inputs", "size", value="2000"), "inputs.size: "),
    ("finetune", put("inputs", "epochs", value=None), "inputs.epochs: "),
    ("finetune", put("inputs", "corpus", value={"name": 1, "digest": "0"}), "inputs.corpus"),
    ("finetune", put("inputs", "languages", value=[]), "inputs.languages: "),
    ("finetune", drop("settings", "checkpoint_digest"), "settings.checkpoint_digest: "),
    ("finetune", put("settings", "checkpoint", value="/etc"), "settings.checkpoint: .*from the runs root"),
    ("finetune", put("settings", "checkpoint", value="a/../../b"), "settings.checkpoint: .*from the runs root"),
    ("finetune", put("settings", "intermediate", value={"1": "../x"}), "settings.intermediate.1: "),
    ("attribution", put("inputs", "tuned", value=[]), "inputs.tuned: "),
    ("attribution", put("inputs", "tuned", value="fa"), "inputs.tuned: "),
    ("attribution", put("settings", "finetune", value="../../x"), "settings.finetune: "),
]


def _array(folder: Path) -> None:
    (folder / "record.json").write_text("[1]")


def _not_json(folder: Path) -> None:
    (folder / "record.json").write_bytes(b"\xff{")


def _digits(folder: Path) -> None:
    text = (folder / "record.json").read_text()
    (folder / "record.json").write_text(text.replace('"schema_version": 1', f'"schema_version": 1{"0" * 5000}'))


def _folder(folder: Path) -> None:
    (folder / "record.json").unlink()
    (folder / "record.json").mkdir()


def _fifo(folder: Path) -> None:
    (folder / "record.json").unlink()
    os.mkfifo(folder / "record.json")


def _linked(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        outside = folder.parent.parent / name
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def _linked_folder(folder: Path) -> None:
    folder.rename(folder.parent.parent / folder.name)
    folder.symlink_to(folder.parent.parent / folder.name)


def _scores(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        change(pd.read_parquet(folder / "scores.parquet")).to_parquet(folder / "scores.parquet", index=False)

    return write


def _many_rows(folder: Path) -> None:
    """A billion rows in some kilobytes."""
    column = pa.array(np.zeros(10_000_000, dtype=np.int8))
    with pq.ParquetWriter(folder / "scores.parquet", pa.schema([("x", pa.int8())])) as writer:
        for _ in range(3):
            writer.write_table(pa.table({"x": column}), row_group_size=10_000_000)


def _first(column: str, value: object) -> Callable[[Path], None]:
    def change(table: pd.DataFrame) -> pd.DataFrame:
        values = table[column].tolist()
        return table.assign(**{column: [value, *values[1:]]})

    return _scores(change)


FILES: list[tuple[Callable[[Path], None], str]] = [
    (_array, "no run record, but a JSON list"),
    (_not_json, "damaged"),
    (_digits, "an integer of 5001 digits"),
    (_folder, "is no file"),
    (_fifo, "is no file"),
    (_linked("record.json"), "leads out of"),
    (_linked("scores.parquet"), "leads out of"),
    (_linked_folder, "leads out of"),
    (lambda folder: (folder / "scores.parquet").unlink(), "lacks scores.parquet"),
    (lambda folder: (folder / "scores.parquet").write_bytes(b"PAR1 x PAR1"), "scores.parquet is damaged"),
    (lambda folder: os.truncate(folder / "scores.parquet", 3000), "scores.parquet is damaged"),
    (_many_rows, "30,000,000 rows, at most 20,000,000"),
    (_scores(lambda table: table.head(0)), "it has no rows"),
    (_scores(lambda table: table.drop(columns="p_first")), "column p_first: it is missing"),
    (_scores(lambda table: pd.concat([table, table.head(1)])), "the same probe_set, language, question"),
    (_scores(lambda table: table.assign(question=[["Q1"]] * len(table))), "column question: it holds list"),
    (_scores(lambda table: table.assign(question=1)), "column question: .*text is needed"),
    (_scores(lambda table: table.assign(p_first="high")), "column p_first: .*numbers are needed"),
    (_first("question", None), "column question: row 1 has no value"),
    (_first("question", "Q999"), "Q999 is not in the registry"),
    (_first("probe_set", "other"), "column probe_set: other is not among"),
    (_first("logprob_first", float("-inf")), "column logprob_first: -inf is no finite number"),
    (_first("category", 1.5), "column category: 1.5 is no whole number"),
]


def left_out(root: Path, folder: Path, message: str) -> None:
    """What every reader makes of one bad record among good ones."""
    kind, _, _ = folder.name.partition("-")
    study = collect([root])
    (note,) = [note for note in study.notes if note.startswith("Left out: ")]
    assert re.search(message, note)
    assert note.rstrip(".").rpartition("; ")[2] and len(note) < 1000, "a remedy, and no novel"
    probes = {model.name for model in study.models}
    assert {name for name in GOOD if kind != "probe" or name != "other"} == probes
    assert len(study.attributions) == (kind == "probe")
    assert len(find_records(root)) >= 4
    if kind == "probe" and not folder.is_symlink():  # who names a link means what it leads to
        with pytest.raises(ValueshiftError):
            read_probe_runs(folder)
            collect([folder])  # knows surveys and readings
    (base,) = (one.record for one in whole_records(root, "probe")[0] if one.record.inputs["model"] == "base")
    assert made_by(base, makers(root)) == ()


@pytest.mark.parametrize(("kind", "change", "message"), JSON)
def test_a_record_whose_json_is_wrong_is_left_out(root: Path, kind: str, change: Change, message: str) -> None:
    left_out(root, changed(folder_of(root, kind), change), message)


@pytest.mark.parametrize(("change", "message"), FILES)
def test_a_record_whose_files_are_wrong_is_left_out(root: Path, change: Callable[[Path], None], message: str) -> None:
    folder = folder_of(root, "probe")
    change(folder)
    left_out(root, folder, message)


def test_all_that_is_wrong_at_once_leaves_the_rest(root: Path) -> None:
    whole = folder_of(root, "probe")
    for number, (change, _) in enumerate(FILES):
        copy = root / f"probe-{number:016x}"
        shutil.copytree(whole, copy)
        change(copy)
    found, wrong = whole_records(root, *KINDS)
    assert len(found) == 5 and len(wrong) == len({str(error) for error in wrong}) == len(FILES)


def test_a_record_under_any_name_of_ones_own_is_read(root: Path) -> None:
    folder = folder_of(root, "probe").rename(root / "my base")
    assert read_record(folder, "probe").inputs["model"] == "other"
    with pytest.raises(ValueshiftError, match="of kind probe; give one of kind finetune"):
        read_record(folder, "finetune")


def test_what_is_written_can_be_read_whatever_its_numbers_and_names(tmp_path: Path) -> None:
    metrics = {"loss": float("nan"), "p": 0.5}
    named = {"name": "\udcff news", "digest": "0"}
    folder = write_record(tmp_path, "report", {"corpus": named}, {}, settings={"report": "\udcff"}, metrics=metrics)
    record = read_record(folder)
    assert record.metrics == {"p": 0.5} and record.notes == ("loss is nan, and left out.",)
    assert record.inputs["corpus"]["name"] == "? news" and folder == record_folder(
        tmp_path, "report", {"corpus": named}
    )


def test_a_table_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valueshift.core.tables.TABLE_BYTES", 4_000_000)
    folder = write_record(tmp_path, "report", {}, {"t": pd.DataFrame({"x": ["word" * 250] * 5000})})
    assert (folder / "t.parquet").stat().st_size < 20_000
    with pytest.raises(ValueshiftError, match="unpacks to more than 4,000,000 bytes"):
        read_table(folder, "t")


def test_needed_columns_are_those_of_what_we_write(good: Path) -> None:
    finetune = folder_of(good, "finetune")
    assert len(read_table(finetune, "examples", EXAMPLES)) == 40
    with pytest.raises(ValueshiftError, match=r"examples.parquet, column probe_set: it is missing; run the command"):
        read_table(finetune, "examples", SCORES)


def test_compare_leaves_a_bad_record_out_and_compares_the_rest(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("valueshift.cli.probing.publish_records", lambda root, *records: None)
    base, good, bad = (folder_of(root, "probe", name) for name in ("base", "fa", "other"))
    bad = changed(bad, drop("inputs", "format"))
    with pytest.raises(ValueshiftError, match=r"inputs.format: Field required; run the command"):
        compare(str(base), [str(bad), str(good)], output=root, probe_set="wvs", languages=None)
    assert len(find_records(root, "comparison")) == 1
    assert "Unchanged answers" in capsys.readouterr().out


# What a record names


def test_of_a_record_only_its_own_files_are_sent(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "private"
    secret.mkdir()
    for name in ("key", "top100.json", "index.html"):
        (secret / name).write_text("secret")
    folder = folder_of(root, "attribution")
    (folder / "link").symlink_to(secret / "key")
    (folder / "more.txt").write_text("left here by somebody")
    own = {"record.json", "queries.parquet", "influence.parquet"}
    for stated in (str(secret), "../private", "."):
        record = read_record(changed(folder, put("settings", "output", value=stated)))
        assert {path.name for path, _ in artifacts(folder, record)} == own
    record = read_record(changed(folder, put("settings", "output", value="pages")))
    (root / "pages").mkdir()
    (root / "pages" / "top100.json").write_text("[]")
    assert {path.name for path, _ in artifacts(folder, record)} == {*own, "top100.json"}
    (root / "pages" / "top100.json").unlink()
    (root / "pages" / "top100.json").symlink_to(secret / "top100.json")
    assert {path.name for path, _ in artifacts(folder, record)} == own


def test_of_a_report_only_its_own_page_figures_and_tables_are_sent(tmp_path: Path) -> None:
    report = tmp_path / "report"
    (report / "figures").mkdir(parents=True)
    folder = write_record(tmp_path / "runs", "report", {"runs": ["a"]}, {}, settings={"report": str(report)})
    record = read_record(folder)

    def sent() -> set[str]:
        return {f"{place}/{path.name}" for path, place in artifacts(folder, record)} - {"/record.json"}

    head = mark("generator", GENERATOR)
    (report / "index.html").write_text(head)
    (report / "figures" / "kept.svg").write_text("<svg>")
    assert sent() == set(), "no mark of this record"
    (report / "index.html").write_text(head + mark("record", record.name))
    assert sent() == {"report/index.html", "report/figures/kept.svg"}
    (report / "figures" / "notes.txt").write_text("mine")
    (report / "figures" / "link.svg").symlink_to("/etc/passwd")
    assert sent() == {"report/index.html", "report/figures/kept.svg"}
    (report / "id_rsa").write_text("mine")
    assert sent() == set(), "a folder that holds something else"


@pytest.mark.parametrize("stated", ["../x", "/etc", "a/../../x", "link", 1, ""])
def test_a_result_of_a_cell_that_leaves_the_root_is_done_again(tmp_path: Path, stated: object) -> None:
    (tmp_path / "link").symlink_to("/etc")
    given = {"stage": "toy", "label": "x", "model": "m", "seconds": 1.0, "units": 1.0, "host": "h", "finished": 1.0}
    write_result(tmp_path, "abc", Result(**given, published=True, made={"model": "toys/x"}))
    assert read_result(tmp_path, "abc") is not None
    path = result_path(tmp_path, "abc")
    path.write_text(path.read_text().replace('"toys/x"', json.dumps(stated)))
    assert read_result(tmp_path, "abc") is None


# Waiting


def test_a_lock_names_its_holder_and_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import multiprocessing

    monkeypatch.setattr(locks, "LOCK_NOTICE_SECONDS", 0.1)
    fork = multiprocessing.get_context("fork")
    held, go = fork.Event(), fork.Event()

    def hold() -> None:
        with locks.locked(tmp_path / "store"):
            held.set()
            go.wait(30)

    process = fork.Process(target=hold)
    process.start()
    held.wait(30)
    holder = f"process {process.pid} on "
    with pytest.raises(ValueshiftError, match=f"store is used by {holder}.*not free within 0 seconds; wait for"):
        with locks.locked(tmp_path / "store", 0.3):
            pass
    assert holder in caplog.text
    go.set()
    process.join()
    with locks.locked(tmp_path / "store"):
        assert limits.LOCK_SECONDS == 600
