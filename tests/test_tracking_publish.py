"""Publication into a SQLite store: a record arrives whole and once, whatever its tables, parameters, folder and user are."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from tracking_stores import all_runs, contents, free_port, is_complete, probe_record, scores, sqlite_uri
from valueshift.analysis.profiles import profile
from valueshift.analysis.readings import READINGS
from valueshift.cli.results import publish as publish_command
from valueshift.cli.show import publish_records
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.paths import mlflow_uri
from valueshift.core.probes import probe_set
from valueshift.core.records import read_record, read_table, write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.harness_ext.probe_record import write_probe_record
from valueshift.harness_ext.results import ProbeRun
from valueshift.tracking import schema
from valueshift.tracking.contents import TABLE_ROWS_LIMIT, write_tables
from valueshift.tracking.publish import Published, publish, publish_all, publish_missing


def test_a_published_record_is_whole_in_mlflow(tmp_path: Path) -> None:
    folder = probe_record(tmp_path)
    done = publish(folder, tmp_path)
    assert done == Published(folder.name, done.run_id, "1", sqlite_uri(tmp_path.resolve()), already=False)
    client = MlflowClient(sqlite_uri(tmp_path))
    run, original = client.get_run(done.run_id), read_record(folder)

    assert run.info.experiment_id == client.get_experiment_by_name("valueshift").experiment_id
    assert run.info.run_name == "mt5-small probe de fa"
    assert run.info.status == "FINISHED"
    assert run.info.start_time == run.info.end_time == int(original.created.timestamp() * 1000)
    assert run.data.tags[schema.STATUS] == "complete"
    assert run.data.tags[schema.DIGEST] == original.digest
    assert run.data.tags["valueshift.model"] == digest("google/mt5-small")
    assert run.data.tags[schema.DESCRIPTION] == "- A note."
    assert run.data.params == schema.params(original)
    assert run.data.params["model"] == "google/mt5-small"
    share = (scores().query("language == 'de'")["answer"] == "first").mean()
    assert run.data.metrics["first_share/de"] == share
    assert run.data.metrics["questions"] == 12
    datasets = {item.dataset.name: (item.dataset.digest, item.tags[0].value) for item in run.inputs.dataset_inputs}
    assert datasets == {"wvs": (digest(original.inputs["probes"]), "probes")}
    (model,) = [client.get_logged_model(item.model_id) for item in run.inputs.model_inputs]
    assert (model.name, model.status.value) == ("mt5-small", "READY")
    assert model.params == {"path": "google/mt5-small", "digest": digest("google/mt5-small")}

    copy = Path(client.download_artifacts(done.run_id, "", str(tmp_path / "copy")))
    views = {"scores.json", "profile-wvs.csv", "profile-wvs.parquet"}
    assert {file.name for file in copy.iterdir()} == {"record.json", "scores.parquet", *views}
    assert read_record(copy) == original
    pd.testing.assert_frame_equal(read_table(copy, "scores"), read_table(folder, "scores"))
    seen, exact = pd.read_csv(copy / "profile-wvs.csv", index_col="question"), profile(scores())
    assert list(seen.index) == list(exact.index)
    assert list(seen.columns) == list(exact.columns)
    assert seen.to_numpy() == pytest.approx(exact.to_numpy(), rel=1e-5)


def test_the_profile_is_of_the_same_answers_as_the_metrics(tmp_path: Path) -> None:
    """Whatever the reading: the mean of a language in the table is its `p_first`; a question without a value is in neither."""
    items, poles = list(probe_set("wvs").items)[:60], ("first", "second")
    drawn = np.random.default_rng(7)
    rows: list[dict[str, object]] = []
    for language in ("de", "fa"):
        for place, question in enumerate(items):
            first, second = (float(value) for value in -drawn.uniform(1, 9, 2)) if place != 5 else (math.nan, -1.0)
            raw = {f"{name}_{pole}": -float(drawn.uniform(0, 3)) for name in ("closing", "neutral") for pole in poles}
            sizes = {f"{name}_{pole}": int(drawn.integers(1, 9)) for name in ("tokens", "bytes") for pole in poles}
            rows.append(
                {"probe_set": "wvs", "language": language, "question": question, "category": 1, **raw, **sizes}
                | {"logprob_first": first, "logprob_second": second}
                | {"p_first": p_first(first, second), "answer": answer(first, second)}
            )
    run = ProbeRun("m", {"model": "m", "probe_set": "wvs", "probes": {"de": "x", "fa": "y"}}, {}, scores_frame(rows))
    means = {}
    for reading in READINGS:
        folder = write_probe_record(tmp_path / reading, run, reading=reading)
        record = read_record(folder)
        write_tables(folder, record, folder)
        csv, parquet = (
            table.set_index("question")
            for table in (pd.read_csv(folder / "profile-wvs.csv"), read_table(folder, "profile-wvs"))
        )
        for language in ("de", "fa"):
            metric = record.metrics[f"p_first/{language}"]
            assert parquet[language].mean() == pytest.approx(metric, rel=1e-12)
            assert csv[language].mean() == pytest.approx(metric, rel=1e-5)  # six digits are written
            assert parquet[language].notna().sum() == record.metrics[f"questions/{language}"]
        means[reading] = record.metrics["p_first/de"]
    assert len({round(mean, 6) for mean in means.values()}) == len(READINGS)


def test_publishing_again_changes_nothing(root: Path) -> None:
    folder = probe_record(root)
    first = publish(folder, root)
    before = contents(root / "mlflow.db")
    again = publish(folder, root)
    assert again.already
    assert again.run_id == first.run_id
    assert publish_missing(root) == []
    assert contents(root / "mlflow.db") == before


def test_a_record_made_anew_is_a_new_run(root: Path) -> None:
    first = publish(probe_record(root), root)
    second = publish(probe_record(root, batch_size=8), root)
    assert not second.already
    assert second.record == first.record
    assert second.run_id != first.run_id


def test_missing_records_are_sent_oldest_first(root: Path) -> None:
    folders = [probe_record(root, model) for model in ("z", "a", "m")]
    publish(folders[1], root)
    sent = publish_missing(root)
    assert [item.record for item in sent] == [folders[0].name, folders[2].name]
    assert len(all_runs(sqlite_uri(root))) == 3


def test_unknown_tables_and_many_params_are_taken(root: Path) -> None:
    tables = {
        "odd": pd.DataFrame({"a b": [1, 2], "c": [["x"], None]}),
        "long": pd.DataFrame({"n": range(TABLE_ROWS_LIMIT + 1)}),
        "scores": pd.DataFrame({"other": [1.0]}),
    }
    inputs = {"corpus": "news", **{f"option {number}": f"{number}" for number in range(250)}, "p@q": ""}
    folder = write_record(root, "finetune", inputs, tables, metrics={"weird (%)": 3.0, "n/@": -1e9})
    done = publish(folder, root)
    client = MlflowClient(sqlite_uri(root))
    run = client.get_run(done.run_id)
    assert len([name for name in run.data.params if name.startswith("option ")]) == 250
    assert run.data.metrics == {"weird ___": 3.0, "n/_": -1e9}
    names = {item.path for item in client.list_artifacts(done.run_id)}
    assert names == {"record.json", "odd.parquet", "long.parquet", "scores.parquet", "odd.json", "scores.json"}


@pytest.mark.parametrize("name", ["meine Läufe & mehr", "a%20b", "g?", "h#x", "100%", "a@b:c;d"])
def test_a_runs_root_of_any_name_holds_all_that_is_its(tmp_path: Path, empty_store: Path, name: str) -> None:
    root = tmp_path / "beside" / name
    root.mkdir(parents=True)
    shutil.copy(empty_store, root)
    done = publish(probe_record(root), root)
    copy = MlflowClient(mlflow_uri(root)).download_artifacts(done.run_id, "record.json", str(tmp_path))
    assert read_record(root / done.record).model_dump_json(indent=2) == Path(copy).read_text(encoding="utf-8")
    assert [path.name for path in root.parent.iterdir()] == [name]
    assert {path.name for path in root.iterdir()} == {"mlflow.db", ".mlflow.db.lock", "mlartifacts", done.record}


def test_the_experiment_of_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "thesis")
    publish(probe_record(root), root)
    assert [is_complete(run) for run in all_runs(sqlite_uri(root), "thesis")] == [True]


def test_a_user_without_a_name_can_publish(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("getpass.getuser", nameless)
    publish(probe_record(root), root)
    assert [run.data.tags["mlflow.user"] for run in all_runs(sqlite_uri(root))] == ["unknown"]


# The command


def test_publish_of_one_record_looks_at_no_other(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = probe_record(root), probe_record(root, "other")
    (other / "record.json").write_text("{")
    publish_command([one], root)
    publish_command([one], root)
    said = capsys.readouterr().out
    assert f"Sent 1 records that MLflow did not have.\n  {one.name}: sqlite:///{root}/mlflow.db" in said
    assert "MLflow has all records." in said
    assert [run.data.tags[schema.RECORD] for run in all_runs(sqlite_uri(root))] == [one.name]


def test_of_several_paths_each_is_published_for_itself(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, damaged, empty = probe_record(root), probe_record(root, "damaged"), root / "nothing"
    (damaged / "record.json").write_text("{")
    empty.mkdir()
    with pytest.raises(ValueshiftError) as caught:
        publish_command([empty, damaged, good], root)
    assert f"Sent 1 records that MLflow did not have.\n  {good.name}: " in capsys.readouterr().out
    assert f"{empty} is neither a run record nor" in str(caught.value)
    assert f"{damaged}/record.json is damaged" in str(caught.value)
    assert f"MLflow has 1 records and lacks 1: {damaged.name}" in str(caught.value)


def test_a_record_that_mlflow_refuses_stops_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused, good = probe_record(root, "refused"), probe_record(root, "good")
    original = MlflowClient.create_run

    def choosy(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        if "refused" in str(arguments):
            raise MlflowException("no such model here")
        return original(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", choosy)
        account = publish_all([refused, good], root)
    assert [done.record for done in account.sent] == [good.name]
    assert list(account.failed) == [refused.name]
    assert "no such model here; the record is kept" in str(account.complaint())
    assert [done.record for done in publish_missing(root)] == [refused.name]


def test_a_command_whose_work_is_done_does_not_fail_for_mlflow(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [probe_record(root), probe_record(root, "other")]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    publish_records(root, *records)
    said = capsys.readouterr().err
    assert said.startswith("warning: MLflow at http://127.0.0.1:")
    assert said.endswith(f"MLflow has 0 records and lacks 2: {records[0].name}, {records[1].name}\n")


def test_ctrl_c_while_publishing_leaves_whole_records_and_the_next_finishes(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = probe_record(root)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish(folder, root)
    assert "stopped: the record is kept, and `valueshift publish` sends it" in caplog.text
    assert [is_complete(run) for run in all_runs(sqlite_uri(root))] == [False]
    assert len(publish_missing(root)) == 1
    assert [is_complete(run) for run in all_runs(sqlite_uri(root))] == [True]


def test_a_run_lasts_as_long_as_its_work(root: Path) -> None:
    folder = write_record(root, "report", {"runs": []}, {}, seconds=12.5)
    publish(folder, root)
    (run,) = all_runs(sqlite_uri(root))
    assert run.info.end_time - run.info.start_time == 12_500
    assert run.info.end_time == schema.milliseconds(read_record(folder))
    assert write_record(root, "report", {"runs": []}, {}, seconds=1.0) == folder
    assert read_record(folder).seconds == 12.5, "the same work is the same record, however long it takes another time"
