"""What of a record reaches MLflow beside names and figures: curves, inputs, checkpoints, tables, files, views."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.records import read_record, record_folder, write_record
from valueshift.core.scores import COLUMNS
from valueshift.tracking import schema
from valueshift.tracking.client import opened
from valueshift.tracking.experiment import experiment_id
from valueshift.tracking.lineage import label, made_by, makers, tuned_on
from valueshift.tracking.publish import publish, publish_missing
from valueshift.tracking.report.folder import GENERATOR, mark
from valueshift.tracking.views import VIEWS

BASE, TUNED = digest("base"), digest("tuned")
CORPUS = {"name": "tanzil", "digest": digest("sentences")}
SURVEY = {"source": "packaged", "provenance": "shares of somewhere", "digest": digest("shares")}


@pytest.fixture
def client(root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{root / 'mlflow.db'}")


@pytest.fixture
def chosen(root: Path, client: MlflowClient) -> Iterator[MlflowClient]:
    """The store as the one that the user has chosen in this process, which `load_table` needs."""
    mlflow.set_tracking_uri(f"sqlite:///{root / 'mlflow.db'}")
    yield client
    mlflow.set_tracking_uri(None)


def finetune_record(root: Path, steps: int = 3, checkpoint: str = TUNED, **inputs: Any) -> Path:
    losses = pd.DataFrame(
        [{"step": 0, "epoch": 0.0, "split": "dev", "loss": 4.0}]
        + [{"step": step, "epoch": step / 2, "split": "train", "loss": 3 / step} for step in range(1, steps + 1)]
        + [{"step": steps, "epoch": 2.0, "split": "dev", "loss": 2.5}]
    )
    asked = {"model": BASE, "corpus": CORPUS, "languages": ["fa"], "size": 2000, "seed": 1, "placebo": False}
    asked |= {"epochs": 2, "learning_rate": 5e-5, "batch_size": 8, **inputs}
    settings = {"model": "google/mt5-small", "corpus": "tanzil", "checkpoint": "checkpoints/3f"}
    settings |= {"checkpoint_digest": checkpoint}
    return write_record(root, "finetune", asked, {"losses": losses}, settings=settings, metrics={"loss/dev": 2.5})


def comparison_record(root: Path, tuned: str = TUNED, tables: dict[str, pd.DataFrame] | None = None) -> Path:
    inputs = {"base": BASE, "tuned": [tuned], "probe_set": "wvs", "survey": SURVEY["digest"]}
    settings = {"base": "google/mt5-small", "tuned": [f"runs/checkpoints/{tuned}"], "survey": SURVEY}
    return write_record(root, "comparison", inputs, tables or {}, settings=settings, metrics={"kept/de": 0.5})


def run_of(client: MlflowClient, run_id: str) -> Run:
    return client.get_run(run_id)


# Loss curves


def test_losses_are_a_curve_by_step_and_the_summary_stays(root: Path, client: MlflowClient) -> None:
    folder = finetune_record(root)
    run_id = publish(folder, root).run_id
    history = client.get_metric_history(run_id, "curve/train")
    assert [(point.step, point.value) for point in history] == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert {point.timestamp for point in history} == {int(read_record(folder).created.timestamp() * 1000)}
    assert [(point.step, point.value) for point in client.get_metric_history(run_id, "curve/dev")] == [(0, 4), (3, 2.5)]
    assert run_of(client, run_id).data.metrics == {"loss/dev": 2.5, "curve/train": 1.0, "curve/dev": 2.5}


def test_a_curve_longer_than_one_call_may_carry_arrives_whole_and_once(
    root: Path, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finetune_record(root, steps=2300)

    def away(*_: object) -> None:
        raise ConnectionRefusedError

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", away)
        with pytest.raises(ValueshiftError, match="the record is kept"):
            publish(folder, root)
    run_id = publish(folder, root).run_id
    history = client.get_metric_history(run_id, "curve/train")
    assert [point.step for point in history] == list(range(1, 2301))


# Inputs


def test_probes_survey_corpus_and_checkpoints_are_inputs(root: Path, client: MlflowClient) -> None:
    finetune, comparison = (publish(make(root), root).run_id for make in (finetune_record, comparison_record))
    datasets = [
        {item.dataset.name: (item.dataset.digest, item.tags[0].value) for item in run.inputs.dataset_inputs}
        for run in (run_of(client, finetune), run_of(client, comparison))
    ]
    assert datasets == [
        {"tanzil": (CORPUS["digest"], "training")},
        {"wvs survey": (SURVEY["digest"], "survey")},
    ]

    def models(items: Any) -> dict[str, str]:
        found = [client.get_logged_model(item.model_id) for item in items]
        return {model.name: model.params["digest"] for model in found}

    assert models(run_of(client, finetune).inputs.model_inputs) == {"mt5-small": BASE}
    assert models(run_of(client, finetune).outputs.model_outputs) == {"fa tanzil 2000 seed 1": TUNED}
    assert models(run_of(client, comparison).inputs.model_inputs) == {"mt5-small": BASE, "fa tanzil 2000 seed 1": TUNED}
    everything = client.search_logged_models([run_of(client, finetune).info.experiment_id])
    assert sorted(model.tags[schema.DIGEST] for model in everything) == sorted([BASE, TUNED])
    assert all(model.tags["mlflow.model.isExternal"] == "true" for model in everything)


@pytest.mark.parametrize("name", ["a/b:c.d%e", "ünder 'x'", "..", "/", "hub/model.v1"])
def test_any_path_names_a_checkpoint(root: Path, client: MlflowClient, name: str) -> None:
    folder = write_record(root, "probe", {"model": BASE}, {}, settings={"model": name})
    run = run_of(client, publish(folder, root).run_id)
    (model,) = run.inputs.model_inputs
    assert client.get_logged_model(model.model_id).params == {"path": name, "digest": BASE}


# What a model was tuned on


def test_runs_of_a_tuned_model_say_what_it_was_tuned_on_and_link_its_run(root: Path, client: MlflowClient) -> None:
    finetune, comparison = finetune_record(root), comparison_record(root)
    done = [run_of(client, publish(folder, root).run_id) for folder in (finetune, comparison)]
    for run in done:
        about = {name: value for name, value in run.data.params.items() if name.startswith("tuned_on.")}
        assert about == {
            "tuned_on.languages": "fa",
            "tuned_on.corpus": "tanzil",
            "tuned_on.size": "2000",
            "tuned_on.seed": "1",
            "tuned_on.placebo": "false",
        }
        assert run.data.tags[schema.FINETUNE] == read_record(finetune).digest
    assert [run.info.run_name for run in done] == [
        "mt5-small finetune fa tanzil 2000 seed 1",
        "fa tanzil 2000 seed 1 ← mt5-small comparison",
    ]
    found = client.search_runs(["1"], f"tags.`{schema.FINETUNE}` = '{read_record(finetune).digest}'")
    assert {run.info.run_id for run in found} == {run.info.run_id for run in done}


def test_a_placebo_is_named_so_and_a_model_from_elsewhere_has_no_such_params(root: Path) -> None:
    placebo = read_record(finetune_record(root, placebo=True, languages=["fa", "ko"]))
    assert label([placebo]) == "fa ko tanzil 2000 seed 1 placebo"
    assert tuned_on([placebo])["placebo"] is True
    other = read_record(comparison_record(root, digest("another")))
    assert made_by(other, makers(root)) == ()
    assert not [name for name in schema.params(other) if name.startswith("tuned_on")]


def test_of_several_models_only_what_they_agree_on_is_said(root: Path) -> None:
    first, second = finetune_record(root), finetune_record(root, seed=2, checkpoint=digest("x"))
    several = read_record(write_record(root, "attribution", {"base": BASE, "tuned": [TUNED, digest("x")]}, {}))
    made = made_by(several, makers(root))
    assert [one.digest for one in made] == [read_record(first).digest, read_record(second).digest]
    assert tuned_on(made) == {"languages": ["fa"], "corpus": "tanzil", "size": 2000, "placebo": False}
    assert schema.run_name(several, made) == "fa tanzil 2000 ← mt5-small attribution"
    unknown = write_record(root, "attribution", {"base": BASE, "tuned": [TUNED, digest("y")]}, {})
    assert made_by(read_record(unknown), makers(root)) == ()


def test_a_damaged_finetune_record_stops_only_its_own_publication(root: Path, client: MlflowClient) -> None:
    finetune_record(root)
    broken = finetune_record(root, seed=2)
    (broken / "record.json").write_text("{")
    comparison_record(root)
    with pytest.raises(ValueshiftError, match=r"is damaged .*MLflow has 2 records and lacks 1: finetune-"):
        publish_missing(root)
    runs = client.search_runs(["1"])
    assert sorted(run.data.tags[schema.KIND] for run in runs) == ["comparison", "finetune"]
    assert {run.data.params["tuned_on.seed"] for run in runs} == {"1"}


# Tables and files


def test_tables_are_what_log_table_writes(root: Path, chosen: MlflowClient) -> None:
    client = chosen
    table = pd.DataFrame({"language": ["de", "فا"], "change": [0.123456789, None], "n": [65, 62], "reason": ["", "x"]})
    run = run_of(client, publish(comparison_record(root, tables={"alignment_change": table}), root).run_id)
    elsewhere = client.create_experiment("log_table", artifact_location=(root / "theirs").as_uri())
    theirs = client.create_run(elsewhere).info.run_id
    client.log_table(theirs, table, "alignment_change.json")
    tag = "mlflow.loggedArtifacts"
    assert json.loads(run.data.tags[tag]) == json.loads(client.get_run(theirs).data.tags[tag])
    ours = client.load_table(run.info.experiment_id, "alignment_change.json", [run.info.run_id])
    pd.testing.assert_frame_equal(ours, client.load_table(elsewhere, "alignment_change.json", [theirs]), atol=1e-6)


def test_a_table_of_several_runs_is_loaded_as_one(root: Path, chosen: MlflowClient) -> None:
    for name in ("a", "b"):
        publish(comparison_record(root, digest(name), {"kept": pd.DataFrame({"language": [name]})}), root)
    both = chosen.load_table("1", "kept.json", extra_columns=["run_id"])
    assert sorted(both["language"]) == ["a", "b"]
    assert both["run_id"].nunique() == 2


def test_profiles_are_csv_and_parquet_of_the_same_figures(root: Path, client: MlflowClient) -> None:
    scores = pd.DataFrame(
        {
            "probe_set": "wvs",
            "language": ["de", "fa", "de"],
            "question": ["Q1", "Q1", "Q2"],
            "p_first": [0.25, 0.5, 1 / 3],
            "logprob_first": np.log([0.25, 0.5, 1 / 3]),
            "logprob_second": np.log([0.75, 0.5, 2 / 3]),
        }
    ).reindex(columns=list(COLUMNS))
    folder = write_record(root, "probe", {"model": BASE, "probe_set": "wvs"}, {"scores": scores})
    copy = Path(client.download_artifacts(publish(folder, root).run_id, "", str(root)))
    exact = pd.DataFrame({"question": ["Q1", "Q2"], "de": [0.25, 1 / 3], "fa": [0.5, None]})
    pd.testing.assert_frame_equal(pd.read_parquet(copy / "profile-wvs.parquet"), exact, check_dtype=False)
    pd.testing.assert_frame_equal(pd.read_csv(copy / "profile-wvs.csv"), exact, atol=1e-6)


def report_head(root: Path, inputs: dict[str, Any]) -> str:
    return mark("generator", GENERATOR) + mark("record", record_folder(root, "report", inputs).name)


def test_the_report_is_an_artifact_of_its_run(root: Path, client: MlflowClient) -> None:
    report = root / "my report"
    (report / "figures").mkdir(parents=True)
    (report / "index.html").write_text(report_head(root, {"runs": ["a"]}), encoding="utf-8")
    (report / "figures" / "kept.svg").write_text("<svg>", encoding="utf-8")
    folder = write_record(root, "report", {"runs": ["a"]}, {}, settings={"report": str(report)})
    run_id = publish(folder, root).run_id
    assert {item.path for item in client.list_artifacts(run_id)} == {"record.json", "report"}
    copy = Path(client.download_artifacts(run_id, "report", str(root / "copy")))
    assert (copy / "figures" / "kept.svg").read_text(encoding="utf-8") == "<svg>"
    assert (copy / "index.html").read_bytes() == (report / "index.html").read_bytes()


def test_a_report_that_is_gone_is_said(root: Path, client: MlflowClient) -> None:
    folder = write_record(root, "report", {"runs": ["a"]}, {}, settings={"report": str(root / "nowhere")})
    run = run_of(client, publish(folder, root).run_id)
    assert run.data.tags[schema.STATUS] == schema.COMPLETE
    assert run.data.tags[schema.DESCRIPTION] == f"- {root / 'nowhere'} was gone when this run was published."


def test_the_top_examples_of_an_attribution_are_an_artifact(root: Path, client: MlflowClient) -> None:
    output = root / "attribution"
    output.mkdir()
    (output / "top100.json").write_text("[1]")
    tables = {"influence": pd.DataFrame({"example": ["tanzil:fa:1"], "score": [0.5]})}
    finetune = read_record(finetune_record(root))
    inputs = {"base": BASE, "tuned": [TUNED], "finetune": [finetune.digest]}
    settings = {"base": f"probe-{digest('p')}", "tuned": f"probe-{digest('q')}", "output": str(output)}
    metrics = {"stability": 0.54321, "share/de.fa": 0.25}
    folder = write_record(root, "attribution", inputs, tables, settings=settings, metrics=metrics)
    run = run_of(client, publish(folder, root).run_id)
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert names == {"record.json", "influence.parquet", "influence.json", "top100.json"}
    assert run.data.metrics == {"stability": 0.54321, "share/de.fa": 0.25}
    assert run.data.params["tuned_on.languages"] == "fa"
    assert "finetune" not in run.data.params
    assert [item.dataset.digest for item in run.inputs.dataset_inputs] == [CORPUS["digest"]]
    read = [client.get_logged_model(item.model_id) for item in run.inputs.model_inputs]
    assert {model.name: model.params["path"] for model in read} == {
        "mt5-small": "google/mt5-small",
        "fa tanzil 2000 seed 1": "checkpoints/3f",
    }
    assert run.info.run_name == "fa tanzil 2000 seed 1 ← mt5-small attribution"


def test_everything_of_an_active_run_is_in_the_records_folder(root: Path, chosen: MlflowClient) -> None:
    report = root / "out"
    report.mkdir()
    (report / "index.html").write_text(report_head(root, {}))
    folder = write_record(root, "report", {}, {"t": pd.DataFrame({"a": [1]})}, settings={"report": str(report)})
    experiment = mlflow.create_experiment("mine", artifact_location=(root / "files").as_uri())
    with mlflow.start_run(experiment_id=experiment) as active:
        publish(folder, root)
    assert [item.path for item in chosen.list_artifacts(active.info.run_id)] == [folder.name]
    inside = {Path(item.path).name for item in chosen.list_artifacts(active.info.run_id, folder.name)}
    assert inside == {"record.json", "t.parquet", "t.json", "report"}
    (entry,) = json.loads(chosen.get_run(active.info.run_id).data.tags["mlflow.loggedArtifacts"])
    assert entry == {"path": f"{folder.name}/t.json", "type": "table"}


# Views


def test_a_new_experiment_links_to_its_views(root: Path, client: MlflowClient) -> None:
    with opened(root, f"sqlite:///{root / 'mlflow.db'}") as connection:
        new = experiment_id(connection, "valueshift")
    note = client.get_experiment(new).tags["mlflow.note.content"]
    for view in VIEWS:
        assert f"[{view.title}](#/experiments/{new}/runs?" in note
        assert f"viewStateShareKey={view.key})" in note


def test_an_older_experiment_receives_the_saved_views(root: Path, client: MlflowClient) -> None:
    client.create_experiment("valueshift", tags={"mine": "stays", "mlflow.sharedViewState.seeds": "old"})
    with opened(root, f"sqlite:///{root / 'mlflow.db'}") as connection:
        experiment_id(connection, "valueshift")
    assert client.get_experiment_by_name("valueshift").tags == {"mine": "stays", **dict(view.tag() for view in VIEWS)}
