"""Where runs are in MLflow, for the links of the report; nothing is sent and no store is made."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ValueshiftError
from ...core.paths import mlflow_experiment, mlflow_uri
from .. import schema
from .page import Run

if TYPE_CHECKING:
    from mlflow.entities import RunInfo


def published(runs: Sequence[Run], root: Path) -> list[Run]:
    """The runs, with id and page of those that MLflow has; as they are where it has none of them or cannot be read."""
    from ..client import opened, shown, sqlite_file

    uri = mlflow_uri(root)
    store = sqlite_file(uri)
    if store is not None and not store.is_file():
        return list(runs)
    try:
        with opened(root, uri) as client:
            experiment = client.get_experiment_by_name(mlflow_experiment())
            complete = f"tags.`{schema.STATUS}` = '{schema.COMPLETE}'"
            found: dict[str, RunInfo] = {}
            token = None
            while experiment and (token is None or token):
                batch = client.search_runs([experiment.experiment_id], complete, page_token=token)
                found |= {run.data.tags.get(schema.CONTENT, ""): run.info for run in batch}
                token = batch.token or ""
    except ValueshiftError:
        return list(runs)

    def linked(run: Run) -> Run:
        info = found.get(schema.content_key(run.folder, run.record))
        if info is None:
            return run
        page = f"{shown(uri).rstrip('/')}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        return replace(run, run_id=info.run_id, href=page if uri.startswith("http") else "")

    return [linked(run) for run in runs]
