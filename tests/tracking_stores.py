"""A record to publish, and the MLflow stores and servers that tests publish it to and look into."""

import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from valueshift.analysis.profiles import summary_metrics
from valueshift.core.digests import digest
from valueshift.core.records import write_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.tracking import schema
from valueshift.tracking.publish import publish
from valueshift.tracking.ui import ui_command, ui_environment

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


def sqlite_uri(root: Path) -> str:
    return f"sqlite:///{root / 'mlflow.db'}"


def all_runs(uri: str, experiment: str = "valueshift") -> list[Run]:
    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def is_complete(run: Run) -> bool:
    return run.data.tags[schema.STATUS] == schema.COMPLETE and run.info.status == "FINISHED"


def contents(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    with sqlite3.connect(database) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(f'SELECT * FROM "{name}"'), key=repr) for name in names}


def publish_together(barrier: Any, folders: list[tuple[Path, Path]], uri: str) -> None:
    barrier.wait(60)
    for folder, root in folders:
        publish(folder, root, uri)


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


class Server:
    """The command of `valueshift ui`, in a process group of its own; `store`: instead of the root's SQLite file."""

    def __init__(self, root: Path, port: int, store: str | None = None) -> None:
        self.uri = f"http://127.0.0.1:{port}"
        command = ui_command(root, port)
        if store:
            command[command.index("--backend-store-uri") + 1] = store
        with (root / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                command, start_new_session=True, stdout=log, stderr=log, cwd=root, env=ui_environment()
            )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                self.get("/health")
            except OSError:
                assert self.process.poll() is None, (root / "server.log").read_text()
                time.sleep(0.1)
            else:
                return
        self.kill()
        raise AssertionError((root / "server.log").read_text())

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.uri + path, timeout=20) as response:
            return bytes(response.read())

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
