"""What of a record is sent to MLflow beside names and figures: loss curves, datasets, checkpoints, tables and files.

Everything can be sent twice without a trace: points carry the record's own time, files replace themselves, and what a run
has already is left out.
"""

import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelInput,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Run,
)
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS, MLFLOW_MODEL_IS_EXTERNAL

from ..analysis.profiles import profile
from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import inside
from ..core.records import RunRecord, read_table
from ..core.scores import COLUMNS
from ..core.tables import LOSSES, SCORES
from . import schema
from .client import answered, run_of
from .lineage import Known, corpus, known_models
from .report.folder import report_files

TABLE_ROWS_LIMIT = 5000
TOP_EXAMPLES = "top100.json"


def curves(folder: Path, record: RunRecord) -> list[Metric]:
    """The losses of a finetune record step by step, as `curve/<split>`."""
    if record.kind != "finetune" or "losses" not in record.tables:
        return []
    losses = read_table(folder, "losses", LOSSES).dropna(subset=["step", "loss"])
    points = zip(losses["split"], losses["step"], losses["loss"], strict=True)
    return [
        Metric(f"curve/{split}", float(loss), schema.milliseconds(record), int(step)) for split, step, loss in points
    ]


def datasets(record: RunRecord, made: Sequence[RunRecord]) -> list[DatasetInput]:
    """Probe files, survey and corpus by reference: name and digest, never content."""
    found = []
    if isinstance(probes := record.inputs.get("probes"), dict):
        found.append(_dataset("probes", str(record.inputs.get("probe_set")), digest(probes), {"probes": probes}))
    if isinstance(survey := record.settings.get("survey"), dict):
        found.append(_dataset("survey", f"{record.inputs.get('probe_set')} survey", survey["digest"], survey))
    for one in made if record.kind in ("finetune", "attribution") else ():
        if (sentences := corpus(one)).get("digest"):
            source = {"corpus": one.settings.get("corpus"), **sentences}
            found.append(_dataset("training", str(sentences["name"]), str(sentences["digest"]), source))
    return found


def _dataset(context: str, name: str, identity: str, source: dict[str, object]) -> DatasetInput:
    return DatasetInput(
        Dataset(name=name, digest=identity, source_type="valueshift", source=json.dumps(source)),
        [InputTag("mlflow.data.context", context)],
    )


def log_checkpoints(client: MlflowClient, run_id: str, record: RunRecord, made: Sequence[RunRecord]) -> None:
    """Link the run with its checkpoints, which MLflow knows by path and digest: what was read and what was made.

    They are external models: referred to, never uploaded. Each is created once an experiment.
    """
    run = run_of(client, run_id)  # one that was searched for lacks its inputs
    experiment = run.info.experiment_id
    read = [_external_model(client, experiment, known, digest) for digest, known in schema.models(record, made).items()]
    there = {item.model_id for item in (run.inputs.model_inputs if run.inputs else [])}
    if new := [model for model in read if model not in there]:
        client.log_inputs(run_id, models=[LoggedModelInput(model) for model in new])
    written = record.settings.get("checkpoint_digest")
    if record.kind == "finetune" and isinstance(written, str):
        model = _external_model(client, experiment, known_models(made)[written], written)
        if model not in {item.model_id for item in (run.outputs.model_outputs if run.outputs else [])}:
            client.log_outputs(run_id, [LoggedModelOutput(model, 0)])


def _external_model(client: MlflowClient, experiment: str, known: Known, identity: str) -> str:
    """Id of MLflow's reference to a checkpoint, created where the experiment has none of this digest."""
    if found := client.search_logged_models([experiment], f"tags.`{schema.DIGEST}` = '{identity}'", max_results=1):
        return str(found[0].model_id)
    name = re.sub(r"[^\w\- ]", "_", known.name) or identity  # MLflow refuses / : . % " ' in names of models
    tags = {schema.DIGEST: identity, MLFLOW_MODEL_IS_EXTERNAL: "true"}
    params = {"path": known.path, "digest": identity}
    model = client.create_logged_model(experiment, name, tags=tags, params=params)
    client.finalize_logged_model(answered(client, model.model_id), LoggedModelStatus.READY)
    return str(model.model_id)


def write_tables(folder: Path, record: RunRecord, views: Path) -> list[str]:
    """Write what MLflow's pages can show of the record's tables, and return the names of those that are its tables.

    `<table>.json` as `MlflowClient.log_table` writes it, which would append to what a stopped publication left; of scores
    the profiles (question by language, `p_first` as the record reads it) as `profile-<probe set>.csv` and `.parquet`.
    """
    from ..analysis.readings import as_recorded  # imports scipy, which takes as long as to see that nothing is missing

    written = []
    for name in record.tables:
        table = read_table(folder, name, SCORES if (record.kind, name) == ("probe", "scores") else None)
        if len(table) <= TABLE_ROWS_LIMIT:
            with suppress(ValueError, TypeError, OverflowError):  # JSON cannot say what it holds
                table.to_json(
                    views / f"{name}.json", orient="split", index=False, date_format="iso", double_precision=6
                )
                written.append(f"{name}.json")
        if name == "scores" and set(COLUMNS) <= set(table.columns):
            for probe_set, rows in table.groupby("probe_set"):
                answers = profile(as_recorded(rows, record.settings)).reset_index().rename_axis(columns=None)
                answers.to_csv(views / f"profile-{probe_set}.csv", index=False, float_format="%.6g")
                answers.to_parquet(views / f"profile-{probe_set}.parquet", index=False)
    return written


def table_tag(names: Iterable[str], artifact_path: str | None, run: Run) -> tuple[str, str]:
    """The tag by which MLflow knows which artifacts are tables, with those that the run had before."""
    try:
        found = json.loads(run.data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    except ValueError:  # written by somebody else
        found = None
    before = found if isinstance(found, list) else []
    ours = [{"path": f"{artifact_path}/{name}" if artifact_path else name, "type": "table"} for name in names]
    return MLFLOW_LOGGED_ARTIFACTS, json.dumps([*before, *(entry for entry in ours if entry not in before)])


def artifacts(folder: Path, record: RunRecord) -> list[tuple[Path, str]]:
    """The files of a record, each with its folder among the artifacts ("" for none), and none else that lies there.

    These are `record.json` and its tables, of a report its page, figures and tables, of an attribution its top examples.
    """
    found = [(folder / name, "") for name in ("record.json", *(f"{name}.parquet" for name in record.tables))]
    if record.kind == "report" and (stated := record.settings.get("report")):
        report = Path(stated).resolve()
        found += [
            (path, "/".join(["report", *path.relative_to(report).parts[:-1]]))
            for path in report_files(report, record.name)
        ]
    if record.kind == "attribution" and (output := record.settings.get("output")):
        with suppress(ValueshiftError):  # a folder that is none of this record's business
            path = inside(folder.parent, Path(output) / TOP_EXAMPLES)
            found += [(path, "")] if path.is_file() else []
    return found
