"""Publication into a SQLite store: a record arrives whole and once, whatever its tables, parameters, folder and user are."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from tracking_stores import all_runs, contents, is_complete, probe_record, scores, sqlite_uri
from valueshift.analysis.profiles import profile
from valueshift.core.digests import digest
from valueshift.core.paths import mlflow_uri
from valueshift.core.records import read_record, read_table, write_record
from valueshift.tracking import schema
from valueshift.tracking.contents import TABLE_ROWS_LIMIT
from valueshift.tracking.publish import Published, publish, publish_missing


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
