"""Where runs are in MLflow, for the links of the report; nothing is sent and no store is made."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...core.errors import ValueshiftError
from .. import schema
from .page import Run


def published(runs: Sequence[Run], root: Path) -> list[Run]:
    """The runs, with id and page of those that MLflow has; as they are where it has none of them or cannot be read."""
    from ..address import shown, sqlite_file
    from ..client import opened
    from ..experiment import chosen, store
    from ..publish import complete_runs

    try:
        uri = store(root)
        database = sqlite_file(uri)
        if database is not None and not database.is_file():
            return list(runs)
        with opened(root, uri) as client:
            experiment = chosen(client)
            found = complete_runs(client, experiment.experiment_id) if experiment else {}
    except ValueshiftError:
        return list(runs)

    def linked(run: Run) -> Run:
        info = found.get(schema.content_key(run.folder, run.record.name))
        if info is None:
            return run
        page = f"{shown(uri).rstrip('/')}/#/experiments/{info.experiment_id}/runs/{info.run_id}"
        return replace(run, run_id=info.run_id, href=page if uri.startswith("http") else "")

    return [linked(run) for run in runs]
