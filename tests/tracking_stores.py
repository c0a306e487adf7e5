"""A record to publish, and the MLflow stores and servers that tests publish it to and look into."""

import contextlib
import multiprocessing
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
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


def finetune_record(root: Path, name: str = "a", rows: int = 20) -> Path:
    """A record that sends a little of everything: figures, a curve, datasets, checkpoints, tables."""
    steps = np.arange(1, rows + 1)
    losses = pd.DataFrame({"step": steps, "epoch": steps / rows, "split": "train", "loss": 1 / steps})
    noise = pd.DataFrame({"noise": np.random.default_rng(0).normal(size=rows)})
    inputs = {"model": digest("base"), "corpus": {"name": "tanzil", "digest": digest(name)}, "languages": ["fa"]}
    settings = {"model": "google/mt5-small", "checkpoint": f"checkpoints/{name}", "checkpoint_digest": digest([name])}
    metrics = {"loss/train": 0.5, "steps": float(rows)}
    return write_record(
        root, "finetune", inputs, {"losses": losses, "noise": noise}, settings=settings, metrics=metrics
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


Answer = tuple[int, Iterable[bytes]]


class Proxy:
    """A proxy before a server: `answer(proxy, request, body)` decides what is answered, None closes the connection at once."""

    def __init__(self, server: str, answer: Callable[["Proxy", BaseHTTPRequestHandler, bytes], Answer | None]) -> None:
        self.server, self.asked = server, 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                owner.asked += 1
                self.close_connection = True
                if (answered := answer(owner, self, body)) is None:
                    return
                status, content = answered
                self.send_response(status)
                self.send_header("Connection", "close")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for part in content:
                        self.wfile.write(part)
                        self.wfile.flush()

            def log_message(self, *_: object) -> None:
                pass

        for verb in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler.handle_any)
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def forward(self, asked: BaseHTTPRequestHandler, body: bytes) -> Answer:
        headers = {"Content-Type": asked.headers.get("Content-Type") or "application/json"}
        request = urllib.request.Request(self.server + asked.path, body or None, headers, method=asked.command)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status), [answer.read()]
        except urllib.error.HTTPError as error:
            return error.code, [error.read()]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
