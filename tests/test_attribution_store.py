"""The store: what is whole is kept, what is damaged is computed again, what belongs to something else is refused."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from valueshift.attribution import store
from valueshift.attribution.factorised import FactorisedFeatures
from valueshift.attribution.features import Floats
from valueshift.attribution.measurement import Item, Row, masked_examples, training_items
from valueshift.attribution.scoring import Method
from valueshift.attribution.solver import dual
from valueshift.attribution.store import InMemory, OnDisk, in_memory, on_disk
from valueshift.core.errors import ValueshiftError
from valueshift.core.probes import probe_set
from valueshift.finetune.span_corruption import sentence_tokens, span_corruption
from valueshift.harness_ext.models import load_model, load_tokenizer

STATED = {"model": "0123", "measurement": "contrast", "k": 8, "seed": 0}
BYTES = 16_000  # five items a shard would do; the least is eight


class Counted:
    """A backend that gives every item the same vector whatever its batch, and counts what it is asked for."""

    dimension = 500

    def __init__(self) -> None:
        self.asked: list[str] = []

    def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
        self.asked += [item.name for item in items]
        made = [np.random.default_rng([*item.name.encode()]).normal(size=self.dimension) for item in items]
        return np.array(made, np.float32), np.array([len(item.name) / 10 for item in items], np.float32)


def items(number: int) -> list[Item]:
    return [Item(f"a:de:{n}", (Row((1,) * (n % 5 + 1), (2,), (1.0,)),)) for n in range(number)]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("valueshift.attribution.store.SHARD_BYTES", BYTES)


def filled(folder: Path, number: int = 20, batch_size: int = 4, **stated: Any) -> tuple[OnDisk, Counted]:
    backend = Counted()
    return on_disk(folder, {**STATED, **stated}, backend, items(number), batch_size, "test"), backend


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != "manifest.json"}


def test_what_is_read_is_what_was_computed(tmp_path: Path) -> None:
    found, backend = filled(tmp_path / "store")
    whole = in_memory(Counted(), items(20), 4, "test")
    assert found.shape == whole.shape == (20, 500)
    assert (found.columns(0, 500) == whole.values).all() and (found.columns(7, 9) == whole.columns(7, 9)).all()
    assert (found.wrong == whole.wrong).all()
    assert sorted(backend.asked) == sorted(item.name for item in items(20))
    assert sorted(path.name for path in (tmp_path / "store").glob("*.npy")) == ["00000.npy", "00001.npy", "00002.npy"]


def test_a_second_run_computes_nothing(tmp_path: Path) -> None:
    first, _ = filled(tmp_path / "store")
    again, backend = filled(tmp_path / "store")
    assert backend.asked == []
    assert (again.columns(0, 500) == first.columns(0, 500)).all()


def test_items_of_like_length_are_computed_together(tmp_path: Path) -> None:
    _, backend = filled(tmp_path / "store", number=8, batch_size=4)
    assert backend.asked == [f"a:de:{n}" for n in (0, 5, 1, 6, 2, 7, 3, 4)]


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        (lambda folder: os.truncate(folder / "00001.npy", 1000), "00001.npy is truncated or damaged"),
        (lambda folder: (folder / "00001.npy").write_bytes(b"\0" * 16_128), "00001.npy is truncated or damaged"),
        (lambda folder: (folder / "00001.npy").unlink(), None),
        (lambda folder: (folder / "00001.json").unlink(), None),
        (lambda folder: (folder / "00001.json").write_text('{"items": ['), "00001.json is damaged"),
        (lambda folder: (folder / "00001.json").write_text("{}"), "00001.json is damaged"),
    ],
)
def test_a_damaged_shard_alone_is_computed_again(
    tmp_path: Path, damage: Any, names: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "store"
    filled(folder)
    before = contents(folder)
    damage(folder)
    with caplog.at_level(logging.WARNING, "valueshift.attribution"):
        _, backend = filled(folder)
    assert sorted(backend.asked) == sorted(f"a:de:{n}" for n in range(8, 16))
    assert contents(folder) == before
    assert [names in message for message in caplog.messages] == ([True] if names else [])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "4567"}, "model: 0123 there, 4567 now"),
        ({"k": 16}, "k: 8 there, 16 now"),
        ({"seed": 1}, "seed"),
        ({"measurement": "paper"}, "measurement"),
        ({"count": 3}, "count: None there, 3 now"),
    ],
)
def test_another_run_is_refused_by_the_field_that_differs(tmp_path: Path, change: Any, field: str) -> None:
    filled(tmp_path / "store")
    before = contents(tmp_path / "store")
    with pytest.raises(ValueshiftError, match=f"made with another {field}.*give another folder, or remove"):
        filled(tmp_path / "store", **change)
    assert contents(tmp_path / "store") == before


def test_number_format_and_dimension_are_compared_and_batch_size_is_not(tmp_path: Path) -> None:
    filled(tmp_path / "store", batch_size=4)
    _, backend = filled(tmp_path / "store", batch_size=8)
    assert backend.asked == []
    with pytest.raises(ValueshiftError, match="another stored: float32 there, float16 now"):
        on_disk(tmp_path / "store", STATED, Counted(), items(20), 4, "test", "float16")
    longer = Counted()
    longer.dimension = 501
    with pytest.raises(ValueshiftError, match="another dimension: 500 there, 501 now"):
        on_disk(tmp_path / "store", STATED, longer, items(20), 4, "test")


def test_a_foreign_folder_a_damaged_manifest_and_repeated_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").touch()
    with pytest.raises(ValueshiftError, match="holds thesis.tex and no manifest.json"):
        filled(tmp_path / "foreign")
    filled(tmp_path / "store")
    (tmp_path / "store" / "manifest.json").write_text('{"model": ')
    with pytest.raises(ValueshiftError, match="manifest.json is damaged .* remove"):
        filled(tmp_path / "store")
    with pytest.raises(ValueshiftError, match="same id"):
        on_disk(tmp_path / "twice", STATED, Counted(), items(2) + items(2), 4, "test")


def test_a_full_disk_is_named_and_leaves_whole_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, written = np.save, []

    def save(stream: Any, array: Any, **options: Any) -> None:
        if len(written) == 2:
            raise OSError(28, "No space left on device")
        written.append(1)
        original(stream, array, **options)

    monkeypatch.setattr(np, "save", save)
    with pytest.raises(ValueshiftError, match="No space left on device; free the disk"):
        filled(tmp_path / "store")
    monkeypatch.undo()
    names = {"manifest.json", "00000.json", "00000.npy", "00001.json", "00001.npy"}
    assert {path.name for path in (tmp_path / "store").iterdir()} == names


def test_float16_is_half_the_size_and_keeps_the_order(tmp_path: Path) -> None:
    class Tiny(Counted):
        """Gradients far below what float16 can hold, of very different sizes."""

        def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
            values, wrong = super().features(items)
            return values * 10 ** -np.linspace(8, 12, len(items), dtype=np.float32)[:, None], wrong

    full, half = (
        on_disk(tmp_path / stored, STATED, Tiny(), items(40), 8, "test", stored) for stored in ("float32", "float16")
    )
    sizes = [sum(path.stat().st_size for path in one.paths) for one in (full, half)]
    assert sizes[1] < 0.52 * sizes[0]
    expected, found = full.columns(0, 500), half.columns(0, 500)
    assert np.abs(found - expected).max(1) == pytest.approx(np.zeros(40), abs=1e-11)
    assert (np.abs(found - expected) <= 5e-4 * np.abs(expected).max(1, keepdims=True)).all()
    queries = in_memory(Counted(), items(5), 8, "test")
    left, right = (dual(one, queries, 0.1) for one in (full, half))
    assert min(spearmanr(left[:, q], right[:, q]).statistic for q in range(5)) > 0.999


def store_real_features(checkpoint: str, target: Path, batch_size: int, pause: float) -> None:
    """Five shards of a tiny model's features, 80 sentences under two masks, with a pause before each batch."""
    model, tokenizer = load_model(checkpoint), load_tokenizer(checkpoint)
    rows = model.get_input_embeddings().weight.shape[0]
    texts = [probe.filled(pole) for probe in probe_set("wvs").probes("de")[:40] for pole in ("first", "second")]
    tokens, _ = sentence_tokens(texts, tokenizer, 100)
    given = [{"example": f"toy:de:{number}", "tokens": ids} for number, ids in enumerate(tokens)]
    examples = masked_examples(given, span_corruption(tokenizer, rows, roll=True), 2)

    class Slow(FactorisedFeatures):
        def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
            time.sleep(pause)
            return super().features(items)

    backend = Slow(model, "log_prob", k=16)
    store.SHARD_BYTES = 16 * 4 * backend.dimension
    on_disk(target, {"model": "tiny"}, backend, training_items(examples, Method(), tokenizer, rows), batch_size, "test")


IN_ANOTHER_PROCESS = """
import importlib.util, pathlib, sys, torch
spec = importlib.util.spec_from_file_location("tests_of_the_store", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
torch.set_num_threads(1)
module.store_real_features(sys.argv[2], pathlib.Path(sys.argv[3]), 6, 0.3)
"""


def test_a_killed_run_goes_on_and_gives_the_same_bytes(tiny_mt5: Callable[..., Path], tmp_path: Path) -> None:
    """kill -9 in the middle of a shard; the rest at the same batch size gives the bytes of a run that was not stopped."""
    checkpoint, killed = str(tiny_mt5()), tmp_path / "killed"
    running = subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, __file__, checkpoint, str(killed)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (killed / "00001.json").exists():
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.4)  # into the third shard
    running.send_signal(signal.SIGKILL)
    running.wait()
    there = contents(killed)
    assert {"00000.npy", "00001.npy"} <= there.keys() and "00004.npy" not in there
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    store_real_features(checkpoint, killed, 6, pause=0)
    store_real_features(checkpoint, tmp_path / "straight", 6, pause=0)
    store_real_features(checkpoint, tmp_path / "other", 11, pause=0)
    torch.set_num_threads(threads)
    straight, other = contents(tmp_path / "straight"), contents(tmp_path / "other")
    assert {name: contents(killed)[name] for name in straight} == straight
    assert json.loads(straight["00000.json"])["items"] == json.loads(other["00000.json"])["items"]
    vectors = [np.load(tmp_path / name / "00000.npy", allow_pickle=False) for name in ("straight", "other")]
    assert np.linalg.norm(vectors[0] - vectors[1]) <= 1e-4 * np.linalg.norm(vectors[0])


def test_scoring_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features of 48 MB, of which 2 MB are held at a time, beside kernel and scores of 3.2 MB; the same scores as in memory."""
    monkeypatch.setattr("valueshift.attribution.store.SHARD_BYTES", 2_000_000)
    monkeypatch.setattr("valueshift.attribution.solver._CHUNK", 500_000)

    class Wide(Counted):
        dimension = 20_000

    train, queries = (
        on_disk(tmp_path / name, STATED, Wide(), items(number), 50, name)
        for name, number in (("train", 600), ("asked", 60))
    )
    tracemalloc.start()
    found = dual(train, queries, 0.1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6 < 48e6 == 4 * train.shape[0] * train.shape[1]
    whole = [InMemory(one.columns(0, 20_000), one.wrong) for one in (train, queries)]
    monkeypatch.undo()
    assert np.abs(found - dual(*whole, 0.1)).max() < 1e-6 * np.abs(found).max()
