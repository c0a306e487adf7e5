"""Servers that answer less than MLflow 3, something else, too much or without an end."""

import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from tracking_stores import Answer, Proxy, Server, all_runs, finetune_record, is_complete
from valueshift.core.errors import ValueshiftError
from valueshift.tracking import client as client_module
from valueshift.tracking import schema, wire
from valueshift.tracking.client import ServerAwayError
from valueshift.tracking.publish import publish, publish_missing

pytestmark = pytest.mark.xdist_group("mlflow_server")


@pytest.fixture(autouse=True)
def _own_experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", str(tmp_path))


# Servers that lack something

UNKNOWN = (404, [b"<!doctype html><title>404 Not Found</title>"])
LACKS = {
    "checkpoints": ("logged-models", "runs/outputs"),
    "datasets": ("runs/log-inputs",),
    "artifacts": ("mlflow-artifacts",),
}


@pytest.mark.parametrize(
    ("lacking", "unknown"),
    [
        (("checkpoints",), UNKNOWN),
        (("checkpoints",), (404, [json.dumps({"error_code": "ENDPOINT_NOT_FOUND", "message": "no"}).encode()])),
        (("datasets", "checkpoints"), (404, [b'{"detail": "Not Found"}'])),
        (("datasets", "checkpoints", "artifacts"), (405, [b"Method not allowed"])),
        (("artifacts",), (501, [b"later"])),
    ],
)
def test_what_a_server_lacks_is_left_out_and_said(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture, lacking: tuple[str, ...], unknown: Answer
) -> None:
    endpoints = ["experiments/search", "set-experiment-tag", *(part for what in lacking for part in LACKS[what])]

    def answer(proxy: Proxy, asked: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        return unknown if any(part in asked.path for part in endpoints) else proxy.forward(asked, body)

    proxy, folder = Proxy(server.uri, answer), finetune_record(tmp_path)
    with caplog.at_level(logging.WARNING):
        done = publish(folder, tmp_path, proxy.uri)
    assert publish_missing(tmp_path, proxy.uri) == []
    (run,) = all_runs(server.uri, str(tmp_path))
    assert (run.info.run_id, is_complete(run)) == (done.run_id, True)
    assert f"This server does not take {', '.join(lacking)}" in run.data.tags[schema.DESCRIPTION]
    assert f"does not take {', '.join(f'{what} of 1 records' for what in lacking)}: left out" in caplog.text
    run = MlflowClient(server.uri).get_run(run.info.run_id)
    assert len(run.inputs.dataset_inputs) == ("datasets" not in lacking)
    assert len(run.outputs.model_outputs if run.outputs else ()) == ("checkpoints" not in lacking)
    assert bool(MlflowClient(server.uri).list_artifacts(run.info.run_id)) == ("artifacts" not in lacking)
    proxy.close()


@pytest.mark.parametrize("status", [200, 404])
def test_a_web_server_that_is_no_mlflow_is_said(tmp_path: Path, status: int) -> None:
    proxy = Proxy("", lambda *_: (status, [b"{}"]))
    with pytest.raises(ValueshiftError, match=r"set MLFLOW_TRACKING_URI to an MLflow server: the record is kept"):
        publish(finetune_record(tmp_path), tmp_path, proxy.uri)
    proxy.close()


def test_what_a_server_refuses_is_not_what_it_lacks(tmp_path: Path, server: Server) -> None:
    """A run that the server does not have is a 404 too."""
    unknown = json.dumps({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such run"}).encode()

    def answer(proxy: Proxy, asked: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        return (404, [unknown]) if "log-inputs" in asked.path else proxy.forward(asked, body)

    proxy = Proxy(server.uri, answer)
    with pytest.raises(ValueshiftError, match="refuses: RESOURCE_DOES_NOT_EXIST: no such run; the record is kept"):
        publish(finetune_record(tmp_path), tmp_path, proxy.uri)
    (run,) = all_runs(server.uri, str(tmp_path))
    assert not is_complete(run)
    proxy.close()


# Answers of a wrong shape


def leaves(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {key: leaves(inner, change) for key, inner in value.items()}
    return [leaves(inner, change) for inner in value] if isinstance(value, list) else change(value)


def of_leaves(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    return lambda body: json.dumps(leaves(json.loads(body or b"{}"), change)).encode()


SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "null": lambda _: b"null",
    "list": lambda _: b"[]",
    "nothing": lambda _: b"",
    "object": lambda _: b"{}",
    "page": lambda _: b"<html>" + b"x" * 200_000,
    "numbers": of_leaves(lambda _: 7),
    "nulls": of_leaves(lambda _: None),
    "lists": of_leaves(lambda value: [value]),
    "deep": lambda _: b'{"run":' * 20_000 + b"1" + b"}" * 20_000,
    "large integer": lambda _: b'{"run":' + b"9" * 6000 + b"}",
    "members": lambda _: b'{"runs": [null], "run": null, "experiment": null, "models": [null], "model": 3}',
    "types": lambda _: b'{"runs": 7, "run": "x", "experiment": [], "models": "m", "model": {"info": []}}',
}


def publish_with_one_strange_answer(root: Path, uri: str, number: int, shape: str) -> bool:
    """Whether there are so many answers; each is carried out, and the one of this number arrives in that shape."""

    def answer(proxy: Proxy, asked: BaseHTTPRequestHandler, body: bytes) -> Answer | None:
        status, content = proxy.forward(asked, body)
        return (200, [SHAPES[shape](b"".join(content))]) if proxy.asked - 1 == number else (status, content)

    proxy, folder = Proxy(uri, answer), finetune_record(root, f"{shape} {number}")
    try:
        publish(folder, root, proxy.uri)
    except ValueshiftError as error:
        assert "the record is kept" in str(error)
        assert len(str(error)) < 800
        assert "\n" not in str(error)
    reached = proxy.asked > number
    proxy.close()
    return reached


def test_answers_of_a_wrong_shape_end_in_a_sentence(tmp_path: Path, server: Server) -> None:
    """Another shape for every third answer; `test_every_answer_in_every_shape` is the whole of it."""
    shapes = itertools.cycle(SHAPES)
    numbers = itertools.takewhile(
        lambda number: publish_with_one_strange_answer(tmp_path, server.uri, number, next(shapes)),
        itertools.count(step=3),
    )
    assert len(list(numbers)) > 5


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_answer_in_every_shape(tmp_path: Path, server: Server, shape: str) -> None:
    number = 0
    while publish_with_one_strange_answer(tmp_path, server.uri, number, shape):
        number += 1
    assert number > 15


# Answers without an end


def endless() -> Iterable[bytes]:
    yield b'{"runs": "'
    yield from itertools.repeat(b"x" * (1 << 20))


def dripping() -> Iterator[bytes]:
    while True:
        time.sleep(0.05)
        yield b" "


@pytest.mark.parametrize("content", [endless, dripping])
def test_an_answer_without_an_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Callable[[], Iterable[bytes]]
) -> None:
    monkeypatch.setattr(client_module, "GREETING_SECONDS", 1)
    monkeypatch.setattr(wire, "ANSWER_BYTES", 4 << 20)
    proxy, start = Proxy("", lambda *_: (200, content())), time.monotonic()
    with pytest.raises(ServerAwayError, match="does not end its answer; the record is kept"):
        publish(finetune_record(tmp_path), tmp_path, proxy.uri)
    assert time.monotonic() - start < 30
    proxy.close()
