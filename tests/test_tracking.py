"""MLflow as a sink of run records: the names, and publication against real stores and a real server."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.utils.validation import _validate_metric_name, _validate_param
from valueshift.analysis.profiles import profile, summary_metrics
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import RunRecord, read_record, read_table, write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.tracking import client as client_module
from valueshift.tracking import schema
from valueshift.tracking.client import ServerAwayError, experiment_id, opened, shown
from valueshift.tracking.contents import TABLE_ROWS_LIMIT
from valueshift.tracking.publish import Published, publish, publish_missing
from valueshift.tracking.ui import serve, ui_command, ui_environment
from valueshift.tracking.views import LAYOUT, VIEWS

Fork = multiprocessing.get_context("fork")  # the children find MLflow imported: a second each saved


def scores(languages: tuple[str, ...] = ("de", "fa")) -> pd.DataFrame:
    rows: list[dict[str, object]] = []
    for shift, language in enumerate(languages):
        for number in range(1, 7):
            first, second = -8.0 - number / 7, -9.5 + shift + number / 5
            rows.append(
                {"probe_set": "wvs", "language": language, "question": f"Q{number}", "category": 1}
                | {"logprob_first": first, "logprob_second": second}
                | {"p_first": p_first(first, second), "answer": answer(first, second)}
            )
    return scores_frame(rows)


def probe_record(root: Path, model: str = "google/mt5-small", **settings: Any) -> Path:
    table = scores()
    inputs = {
        "model": {"digest": digest(model)},
        "probe_set": "wvs",
        "probes": {"de": digest("de"), "fa": digest("fa")},
        "format": "encoder-decoder",
        "dtype": "float32",
    }
    settings = {"model": model, "engine": "fast", "batch_size": 64, "device": "cpu", **settings}
    return write_record(
        root, "probe", inputs, {"scores": table}, settings=settings, metrics=summary_metrics(table), notes=("A note.",)
    )


def record(metrics: dict[str, float] | None = None, **parts: Any) -> RunRecord:
    whole = {"kind": "comparison", "digest": "0" * 16, "inputs": {}, "versions": {}, "created": "2026-01-01T00:00:00Z"}
    return RunRecord.model_validate({**whole, "metrics": metrics or {}, **parts})


def sqlite_uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with MLflow's tables: to create them takes seconds."""
    root = tmp_path_factory.mktemp("empty")
    with opened(root, sqlite_uri(root)):
        return root / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """A runs root with an empty store."""
    shutil.copy(empty_store, tmp_path)
    return tmp_path


def all_runs(uri: str, experiment: str = "valueshift") -> list[Run]:
    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def is_complete(run: Run) -> bool:
    return run.data.tags[schema.STATUS] == schema.COMPLETE and run.info.status == "FINISHED"


# The names


@given(st.lists(st.text(max_size=300), unique=True, max_size=20))
def test_any_name_becomes_one_that_mlflow_takes_and_none_is_lost(names: list[str]) -> None:
    cleaned = schema._distinct((name, position) for position, name in enumerate(names))
    assert list(cleaned.values()) == list(range(len(names)))
    for name in cleaned:
        _validate_metric_name(name)
        _validate_param(name, "value")
        assert len(name) <= 250


def test_a_clean_name_stays() -> None:
    for name in ("kept/de", "rho/de.DEU", "0_overview/kept", "a b:c-d"):
        assert schema.clean(name) == name
    assert schema.clean("kept (%)/de@x") == "kept ___/de_x"


def test_fractions_are_percentages_correlations_have_three_decimals_and_other_values_all() -> None:
    shown_metrics = schema.metrics(
        record({"kept/de": 0.83172, "kept/fa": 0.6, "rho/de.DEU": 0.1234567, "loss": 2.71828})
    )
    assert shown_metrics == {
        "0_overview/kept": 71.6,
        "0_overview/rho": 0.123,
        "kept/de": 83.2,
        "kept/fa": 60.0,
        "rho/de.DEU": 0.123,
        "loss": 2.71828,
    }


def test_a_percentage_in_a_record_is_refused_rather_than_multiplied_again() -> None:
    with pytest.raises(ValueshiftError, match=r"kept/de is 83\.2.* between -1 and 1"):
        schema.metrics(record({"kept/de": 83.2}))


def test_overview_comes_first_sums_counts_and_leaves_a_given_one_alone() -> None:
    metrics = {"questions/de": 6.0, "kept/de": 0.5, "questions/fa": 5.0, "0_overview/kept": 0.25}
    assert list(schema.metrics(record(metrics)).items()) == [
        ("0_overview/kept", 25.0),
        ("0_overview/questions", 11.0),
        ("questions/de", 6.0),
        ("questions/fa", 5.0),
        ("kept/de", 50.0),
    ]


def test_at_most_sixty_metrics_and_the_description_says_how_many_are_elsewhere() -> None:
    many = record({f"kept/l{number}": 0.5 for number in range(80)}, notes=("First.", "Second."))
    names = list(schema.metrics(many))
    assert len(names) == 60
    assert names[0] == "0_overview/kept"
    assert schema.description(many) == ("- First.\n- Second.\n- 21 more metrics are in the artifact `record.json`.")


def test_params_are_flat_short_and_name_the_model_first() -> None:
    comparison = record(
        inputs={
            "base": "b" * 16,
            "tuned": ["c" * 16, "d" * 16],
            "probes": {"fa": "1", "de": "2"},
            "seed": 0,
            "lora": {"r": 8, "targets": ["q", "v"]},
            "questions": [f"Q{number}" for number in range(200)],
            "limit": None,
        },
        settings={"base": "toy/base", "seed": 1},
        versions={"torch": "2.13.0"},
    )
    found = schema.params(comparison)
    assert found == {
        "base": "toy/base",
        "languages": "fa, de",
        "probes": digest({"fa": "1", "de": "2"}),
        "seed": "0",
        "lora.r": "8",
        "lora.targets": "q, v",
        "questions": "1088 characters, whole in record.json",
        "setting.seed": "1",
        "version.torch": "2.13.0",
    }
    assert next(iter(found)) == "base"


def test_runs_are_linked_by_the_digests_of_their_models() -> None:
    comparison = record(
        inputs={
            "base": {"digest": "b" * 16},
            "tuned": ["c" * 16, "d" * 16],
            "runs": {"base": "e" * 16, "tuned": "f" * 16},
        },
        settings={"base": "google/mt5-small", "tuned": ["x/moved", "x/other"]},
    )
    tags = schema.tags(comparison)
    assert tags["valueshift.base"] == "b" * 16
    assert tags["valueshift.tuned"] == f"{'c' * 16} {'d' * 16}"
    assert tags["valueshift.runs.base"] == "e" * 16
    assert "valueshift.model" not in tags
    assert schema.models(comparison) == {
        "b" * 16: ("mt5-small", "google/mt5-small"),
        "c" * 16: ("moved", "x/moved"),
        "d" * 16: ("other", "x/other"),
    }
    assert schema.run_name(comparison) == "moved other ← mt5-small comparison"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"kind": "probe", "inputs": {"probes": {"de": "", "fa": ""}}, "settings": {"model": "a/m"}}, "m probe de fa"),
        ({"kind": "probe", "inputs": {"probes": dict.fromkeys("abcde", "")}}, f"{'0' * 16} probe 5 languages"),
        (
            {"kind": "finetune", "inputs": {"corpus": "tanzil", "languages": ["fa"]}, "settings": {"model": "a/m"}},
            "m finetune fa tanzil",
        ),
        ({"kind": "report", "inputs": {"runs": ["a", "b"]}}, "report of 2 runs"),
        ({"inputs": {"tuned": list("abcde")}}, "5 models comparison"),
    ],
)
def test_run_names(parts: dict[str, Any], name: str) -> None:
    assert schema.run_name(record(**parts)) == name


def test_credentials_are_not_shown() -> None:
    assert shown("https://me:secret@host:8/x") == "https://host:8/x"
    assert shown("sqlite:////a/b.db") == "sqlite:////a/b.db"


# One record in a SQLite store


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
    assert run.data.metrics["first_share/de"] == round(100 * share, 1)
    assert run.data.metrics["0_overview/questions"] == 12
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


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    with sqlite3.connect(database) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}


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


def test_a_runs_root_with_blanks_and_umlauts(tmp_path: Path, empty_store: Path) -> None:
    root = tmp_path / "meine Läufe & mehr"
    root.mkdir()
    shutil.copy(empty_store, root)
    done = publish(probe_record(root), root)
    copy = MlflowClient(sqlite_uri(root)).download_artifacts(done.run_id, "record.json", str(tmp_path))
    assert read_record(root / done.record).model_dump_json(indent=2) == Path(copy).read_text(encoding="utf-8")


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


# Other processes


def process(work: Callable[..., object], *arguments: object) -> int | None:
    """Exit status of `work` in a child of its own; negative is the signal that ended it."""
    child = Fork.Process(target=work, args=arguments)
    child.start()
    child.join(120)
    return child.exitcode


def publish_and_die(folder: Path, root: Path, method: str, after: bool) -> None:
    original = getattr(MlflowClient, method)

    def dying(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        if after:
            original(self, *arguments, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MlflowClient, method, dying)
    publish(folder, root)


@pytest.mark.parametrize(
    ("method", "after"),
    [
        ("create_run", True),
        ("log_batch", True),
        ("log_inputs", True),
        ("create_logged_model", True),
        ("log_artifacts", False),
        ("log_artifacts", True),
        ("set_terminated", True),
    ],
)
def test_a_publication_killed_in_the_middle_is_finished_by_the_next(root: Path, method: str, after: bool) -> None:
    folder, other = probe_record(root), probe_record(root, "other")
    publish(other, root)
    assert process(publish_and_die, folder, root, method, after) == -signal.SIGKILL
    assert sorted(is_complete(run) for run in all_runs(sqlite_uri(root))) == [False, True]

    assert not publish(folder, root).already
    runs = {run.data.tags[schema.RECORD]: run for run in all_runs(sqlite_uri(root))}
    assert set(runs) == {folder.name, other.name}
    client = MlflowClient(sqlite_uri(root))
    run = client.get_run(runs[folder.name].info.run_id)
    assert is_complete(run)
    assert run.data.metrics == schema.metrics(read_record(folder))
    assert run.data.params == schema.params(read_record(folder))
    assert len(run.inputs.dataset_inputs) == len(run.inputs.model_inputs) == 1
    assert len(client.list_artifacts(run.info.run_id)) == 5
    assert len(client.search_logged_models([run.info.experiment_id])) == 2


def publish_together(barrier: Any, folders: list[tuple[Path, Path]], uri: str) -> None:
    barrier.wait(60)
    for folder, root in folders:
        publish(folder, root, uri)


def test_eight_processes_on_a_new_store(tmp_path: Path) -> None:
    """24 records of their own and one that all publish; without the lock 3 of 24 arrived."""
    shared = probe_record(tmp_path, "shared")
    barrier, uri = Fork.Barrier(8), sqlite_uri(tmp_path)
    own = [[probe_record(tmp_path, f"{worker}-{number}") for number in range(3)] for worker in range(8)]
    children = [
        Fork.Process(target=publish_together, args=(barrier, [(item, tmp_path) for item in [*folders, shared]], uri))
        for folders in own
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(240)
    assert [child.exitcode for child in children] == [0] * 8
    runs = all_runs(uri)
    expected = sorted([shared.name, *(folder.name for folders in own for folder in folders)])
    assert sorted(run.data.tags[schema.RECORD] for run in runs) == expected
    assert all(is_complete(run) for run in runs)
    assert all_runs(uri, "Default") == []


@pytest.mark.parametrize(
    ("status", "smaller", "yields"),
    [("complete", False, True), ("complete", True, True), ("publishing", True, True), ("publishing", False, False)],
)
def test_of_two_processes_without_a_common_lock_one_yields(
    root: Path, monkeypatch: pytest.MonkeyPatch, status: str, smaller: bool, yields: bool
) -> None:
    """While one publishes, a run of the same content appears, as a process with another runs root makes it."""
    original, twins = MlflowClient.log_batch, []

    def with_a_twin(self: MlflowClient, run_id: str, *arguments: Any, **options: Any) -> None:
        ours = self.get_run(run_id)
        tags = {schema.CONTENT: ours.data.tags[schema.CONTENT], schema.STATUS: status}
        while ((twin := self.create_run(ours.info.experiment_id, tags=tags).info.run_id) < run_id) != smaller:
            self.delete_run(twin)
        twins.append(twin)
        original(self, run_id, *arguments, **options)

    monkeypatch.setattr(MlflowClient, "log_batch", with_a_twin)
    done = publish(probe_record(root), root)
    assert done.already == yields
    assert (done.run_id == twins[0]) == yields
    left = {run.info.run_id for run in all_runs(sqlite_uri(root))}
    assert left == {twins[0], done.run_id}


def test_an_experiment_created_by_another_at_the_same_moment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(root, sqlite_uri(root)) as client:
        theirs = experiment_id(client, "valueshift")
        original, answers = MlflowClient.get_experiment_by_name, iter([None])
        monkeypatch.setattr(
            MlflowClient,
            "get_experiment_by_name",
            lambda self, name: next(answers, "ask") and original(self, name),
        )
        assert experiment_id(client, "valueshift") == theirs


# Runs of others


@pytest.fixture
def own_store(root: Path, empty_store: Path) -> Iterator[str]:
    """The store that the user has chosen in this process."""
    uri = f"sqlite:///{shutil.copy(empty_store, root / 'mine.db')}"
    mlflow.set_tracking_uri(uri)
    yield uri
    while mlflow.active_run():
        mlflow.end_run()
    mlflow.set_tracking_uri(None)


def test_an_active_run_receives_the_records_and_goes_on(root: Path, own_store: str) -> None:
    thesis = mlflow.create_experiment("thesis", artifact_location=(root / "files").as_uri())
    probe, second = probe_record(root), probe_record(root, "second")
    with mlflow.start_run(experiment_id=thesis) as active:
        mlflow.log_param("dtype", "mine")
        done = [publish(folder, root) for folder in (probe, second)]
        mlflow.log_metric("later", 1.0)
        assert [item.run_id for item in done] == [active.info.run_id] * 2
        assert mlflow.active_run().info.run_id == active.info.run_id
        assert MlflowClient().get_run(active.info.run_id).info.status == "RUNNING"
        before = contents(root / "mine.db")
        assert [publish(folder, root).already for folder in (probe, second)] == [True, True]
        assert contents(root / "mine.db") == before
    (run,) = all_runs(own_store, "thesis")
    assert run.data.params["dtype"] == "mine"
    assert run.data.params["format"] == "encoder-decoder"
    assert run.data.metrics["first_share/de"] == schema.metrics(read_record(probe))["first_share/de"]
    assert run.data.tags[schema.STATUS] == "complete"
    assert {item.path for item in MlflowClient().list_artifacts(run.info.run_id)} == {probe.name, second.name}
    assert MlflowClient(sqlite_uri(root)).get_experiment_by_name("valueshift") is None


def test_an_active_run_of_another_store_is_left_alone(root: Path, own_store: str) -> None:
    uri = sqlite_uri(root)
    with mlflow.start_run() as active:
        done = publish(probe_record(root), root, uri)
        assert done.run_id != active.info.run_id
    assert [is_complete(run) for run in all_runs(uri)] == [True]


def test_missing_records_never_go_into_an_active_run(root: Path, own_store: str) -> None:
    probe_record(root)
    with mlflow.start_run() as active:
        (sent,) = publish_missing(root)
    assert sent.run_id != active.info.run_id


def test_the_run_of_the_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, uri = probe_record(root), sqlite_uri(root)
    with opened(root, uri) as client:
        theirs = client.create_run(experiment_id(client, "harness")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", theirs)
    assert publish(folder, root).run_id == theirs
    assert publish(folder, root).already
    (run,) = all_runs(uri, "harness")
    assert run.info.status == "RUNNING"
    assert run.data.tags[schema.RECORD] == folder.name
    assert MlflowClient(uri).get_experiment_by_name("valueshift") is None

    monkeypatch.setenv("MLFLOW_RUN_ID", "f" * 32)
    with pytest.raises(ValueshiftError, match=f"MLFLOW_RUN_ID names the run {'f' * 32}, .* unset it"):
        publish(folder, root)


# What goes wrong


def test_a_server_that_is_not_there_costs_no_time_and_no_record(root: Path) -> None:
    folder = probe_record(root)
    settings = dict(os.environ)
    start = time.monotonic()
    with pytest.raises(ServerAwayError) as caught:
        publish(folder, root, f"http://me:secret@127.0.0.1:{free_port()}")
    assert time.monotonic() - start < 5
    assert "http://127.0.0.1" in str(caught.value)
    assert "valueshift publish" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert dict(os.environ) == settings
    assert read_record(folder).kind == "probe"
    assert len(publish_missing(root)) == 1


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "GREETING_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(ServerAwayError, match="cannot be reached"):
            publish(probe_record(tmp_path), tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert 0.9 < time.monotonic() - start < 5


@pytest.mark.parametrize("damage", [lambda path: path.write_text("no database" * 500), Path.mkdir])
def test_a_damaged_store_is_named_at_once(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    """MLflow itself tries for 100 seconds to open what cannot be opened."""
    folder = probe_record(tmp_path)
    damage(tmp_path / "mlflow.db")
    start = time.monotonic()
    with pytest.raises(ValueshiftError, match=r"mlflow\.db cannot be used by MLflow .*valueshift publish"):
        publish(folder, tmp_path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("foo://bar", r"foo://bar refuses: .*unsupported URI"),
        ("sqlite:////dev/null/mlflow.db", r"cannot write /dev/null"),
    ],
)
def test_a_store_that_cannot_be_is_named(tmp_path: Path, uri: str, reason: str) -> None:
    with pytest.raises(ValueshiftError, match=f"{reason}.*valueshift publish"):
        publish(probe_record(tmp_path), tmp_path, uri)


def test_a_refused_call_leaves_the_run_unfinished(root: Path) -> None:
    folder = probe_record(root)
    with opened(root, sqlite_uri(root)) as client:
        experiment_id(client, "valueshift")
    with sqlite3.connect(root / "mlflow.db") as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'disk full'); END")
    with pytest.raises(ValueshiftError, match=r"refuses: .*disk full.*valueshift publish"):
        publish(folder, root)
    assert [is_complete(run) for run in all_runs(sqlite_uri(root))] == [False]
    with sqlite3.connect(root / "mlflow.db") as connection:
        connection.execute("DROP TRIGGER full")
    assert [item.record for item in publish_missing(root)] == [folder.name]
    assert [is_complete(run) for run in all_runs(sqlite_uri(root))] == [True]


def test_an_experiment_in_the_trash(root: Path) -> None:
    uri = sqlite_uri(root)
    publish(probe_record(root), root)
    MlflowClient(uri).delete_experiment("1")
    with pytest.raises(
        ValueshiftError, match="'valueshift' is deleted; restore it with `mlflow experiments restore -x 1`"
    ):
        publish(probe_record(root, "other"), root)


# A real server


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Server:
    """The command of `valueshift ui`, in a process group of its own."""

    def __init__(self, root: Path, port: int) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        with (root / "server.log").open("w") as log:
            self.process = subprocess.Popen(
                ui_command(root, port), start_new_session=True, stdout=log, stderr=log, cwd=root, env=ui_environment()
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                self.get("/health")
            except OSError:
                assert self.process.poll() is None, (root / "server.log").read_text()
                time.sleep(0.1)
            else:
                return
        self.stop()
        raise AssertionError((root / "server.log").read_text())

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.uri + path, timeout=20) as response:
            return bytes(response.read())

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@pytest.fixture(scope="module")
def served_root(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A runs root with one record in its SQLite store."""
    root = tmp_path_factory.mktemp("served")
    shutil.copy(empty_store, root)
    environment = pytest.MonkeyPatch()
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        environment.delenv(name, raising=False)
    publish(probe_record(root), root)
    environment.undo()
    return root


@pytest.fixture(scope="module")
def server(served_root: Path) -> Iterator[Server]:
    running = Server(served_root, free_port())
    yield running
    running.stop()


def test_the_pages_show_what_was_published(served_root: Path, server: Server) -> None:
    (run,) = all_runs(sqlite_uri(served_root))
    page = f"/get-artifact?path=profile-wvs.csv&run_uuid={run.info.run_id}"
    assert server.get(page).decode().splitlines()[0] == "question,de,fa"
    assert b"<html" in server.get("/")


def test_the_saved_views_are_in_a_format_that_the_pages_read(served_root: Path) -> None:
    """MLflow documents none: this fails when a release stops reading ours."""
    tags = MlflowClient(sqlite_uri(served_root)).get_experiment_by_name("valueshift").tags
    assert tags == LAYOUT | dict(view.tag() for view in VIEWS)
    assert [view.title for view in VIEWS] == ["all runs", "shifts by fine-tuning language", "alignment", "seeds"]
    assert "metrics.`0_overview/kept`" in json.loads(tags["mlflow.sharedViewState.valueshift"])["selectedColumns"]
    scripts = (Path(mlflow.__file__).parent / "server/js/build/static/js").glob("*.js")
    code = "".join(script.read_text(encoding="utf-8") for script in scripts)
    states = [json.loads(view.tag()[1]) for view in VIEWS]
    words = {key for state in states for key in state} | {"groupByKeys", "groupByData", "aggregateFunction"}
    for word in ("viewStateShareKey", "mlflow.sharedViewState.", "workflowType", *LAYOUT, *LAYOUT.values(), *words):
        assert word in code, word


def test_publishing_to_a_server(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "remote")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    folder = probe_record(tmp_path, "model of a server")
    done = publish(folder, tmp_path)
    assert done.where == f"{server.uri}/#/experiments/{done.experiment_id}/runs/{done.run_id}"
    assert publish(folder, tmp_path).already
    assert publish_missing(tmp_path) == []
    (run,) = all_runs(server.uri, "remote")
    assert is_complete(run)
    assert run.data.metrics == schema.metrics(read_record(folder))
    copy = MlflowClient(server.uri).download_artifacts(done.run_id, "scores.parquet", str(tmp_path))
    assert Path(copy).read_bytes() == (folder / "scores.parquet").read_bytes()
    with pytest.raises(ValueshiftError, match=f"open {server.uri} in a browser"):
        ui_command(tmp_path)


def test_four_runs_roots_with_the_same_record_make_one_run(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "copies")
    roots = [tmp_path / str(number) for number in range(4)]
    folder = probe_record(roots[0], "copied")
    for root in roots[1:]:
        shutil.copytree(folder, root / folder.name)
    barrier = Fork.Barrier(4)
    children = [
        Fork.Process(target=publish_together, args=(barrier, [(root / folder.name, root)], server.uri))
        for root in roots
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 4
    assert [is_complete(run) for run in all_runs(server.uri, "copies")] == [True]


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_and_comes_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, port = probe_record(root), free_port()
    running = Server(root, port)
    original = MlflowClient.log_artifacts

    def dying(self: MlflowClient, *arguments: Any) -> None:
        running.stop()
        original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", dying)
        start = time.monotonic()
        with pytest.raises(ServerAwayError, match="valueshift publish"):
            publish(folder, root, running.uri)
        assert time.monotonic() - start < 5
    again = Server(root, port)
    try:
        assert [item.record for item in publish_missing(root, again.uri)] == [folder.name]
        assert [is_complete(run) for run in all_runs(again.uri)] == [True]
    finally:
        again.stop()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueshiftError, match=f"port {port} is taken .*--port"):
            serve(tmp_path, port)
