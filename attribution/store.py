"""Features on disk: shards that are whole or absent, with a manifest of what they are of.

A store is a folder with `manifest.json` and, for each shard of consecutive items, `<number>.npy` (items x dimension) and
`<number>.json`, which is written after it: ids, Q and scale of each item, size and SHA-256 of the array. What is whole there is
not computed again, what is missing or damaged is. Within a shard, items of like length are computed together, so that a run that
was stopped and goes on at the same batch size gives the same bytes.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from ..core.digests import file_sha256
from ..core.errors import ValueshiftError
from ..core.fields import field_error
from ..core.files import explained, whole_file
from ..core.limits import WORK_SECONDS
from ..core.locks import locked
from ..core.outside import read_json
from .features import FeatureBackend, Floats
from .measurement import Item

log = logging.getLogger("valueshift.attribution")

Stored = Literal["float32", "float16"]
SHARD_BYTES = 16_000_000
"""Of a shard in float32, about; the most that is lost when a run is stopped."""
NOT_COMPARED = {"batch_size", "versions"}
"""Fields of a manifest that may differ from those of a later run: they change features by rounding only."""
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt}, {rate_fmt}, done at {eta:%H:%M:%S}"


@dataclass(frozen=True)
class InMemory:
    """Features that are kept nowhere."""

    values: Floats
    wrong: Floats

    @property
    def shape(self) -> tuple[int, int]:
        """Items, dimension."""
        return self.values.shape[0], self.values.shape[1]

    def columns(self, start: int, stop: int) -> Floats:
        """Some dimensions of all vectors, shape (items, stop - start)."""
        return self.values[:, start:stop]


@dataclass(frozen=True)
class OnDisk:
    """A store that is whole."""

    paths: tuple[Path, ...]
    scales: tuple[Floats, ...]
    wrong: Floats
    dimension: int

    @property
    def shape(self) -> tuple[int, int]:
        """Items, dimension."""
        return len(self.wrong), self.dimension

    def columns(self, start: int, stop: int) -> Floats:
        """Some dimensions of all vectors, shape (items, stop - start); one shard is mapped at a time."""
        found = np.empty((len(self.wrong), stop - start), dtype=np.float32)
        row = 0
        for path, scale in zip(self.paths, self.scales, strict=True):
            shard = np.load(path, mmap_mode="r", allow_pickle=False)
            np.multiply(shard[:, start:stop], scale[:, None], out=found[row : row + len(shard)])
            row += len(shard)
        return found


class _Note(BaseModel):
    """What is noted of a shard."""

    model_config = ConfigDict(strict=True)

    items: list[str]
    dimension: int
    wrong: list[float]
    scale: list[float]
    bytes: int
    sha256: str


def in_memory(backend: FeatureBackend, items: Sequence[Item], batch_size: int, title: str) -> InMemory:
    """Features of all items, computed now."""
    with _bar(len(items), title) as bar:
        return InMemory(*_computed(backend, items, batch_size, bar))


def on_disk(
    folder: Path,
    manifest: Mapping[str, Any],
    backend: FeatureBackend,
    items: Sequence[Item],
    batch_size: int,
    title: str,
    stored: Stored = "float32",
) -> OnDisk:
    """Features of all items, of which only those are computed that the store does not hold.

    Args:
        folder: of the store; made where it is not there.
        manifest: JSON values that say what the features are of; all but `NOT_COMPARED` must be the same as when it was made.
        backend: what computes them.
        items: in the order that is asked for, names unique.
        batch_size: items that are computed at a time.
        title: of the progress bar.
        stored: number format on disk; each vector is divided by its largest absolute entry first in float16.

    Raises:
        ValueshiftError: the store is of something else (names the field), or the disk is full.
    """
    if len({item.name for item in items}) < len(items):
        raise ValueshiftError("two items to be stored have the same id; ids of sentences and of probes must be unique")
    with explained(folder), locked(folder, WORK_SECONDS):
        stated = _manifest(
            folder, {**manifest, "stored": stored, "batch_size": batch_size, "dimension": backend.dimension}
        )
        size = int(stated["shard_items"])
        shards = [items[start : start + size] for start in range(0, len(items), size)]
        paths = [folder / f"{number:05}.npy" for number in range(len(shards))]
        with _bar(len(items), title) as bar:
            notes = [
                _held(path, shard, backend.dimension, bar) or _made(path, shard, backend, batch_size, stored, bar)
                for path, shard in zip(paths, shards, strict=True)
            ]
    return OnDisk(
        tuple(paths),
        tuple(np.array(note.scale, dtype=np.float32) for note in notes),
        np.array([wrong for note in notes for wrong in note.wrong], dtype=np.float32),
        backend.dimension,
    )


def _manifest(folder: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a store, made where there is none."""
    path = folder / "manifest.json"
    items = max(8, SHARD_BYTES // (4 * wanted["dimension"]) // 8 * 8)
    if not path.exists():
        if foreign := sorted(folder.glob("[!.]*")):
            raise ValueshiftError(f"{folder} holds {foreign[0].name} and no manifest.json; give a new or empty folder")
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps({**wanted, "shard_items": items}, indent=2) + "\n", encoding="utf-8")
    remedy = f"remove {folder} to compute its features again"
    stated = read_json(path, remedy)
    if not (isinstance(stated, dict) and isinstance(size := stated.get("shard_items"), int) and size > 0):
        raise ValueshiftError(f"{path} is damaged (shard_items is no number of items); {remedy}")
    for field, value in json.loads(json.dumps(wanted)).items():
        if field not in NOT_COMPARED and stated.get(field) != value:
            raise ValueshiftError(
                f"the features in {folder} were made with another {field}: {stated.get(field)} there, {value} now; ask for the "
                f"same, give another folder, or remove that one"
            )
    return stated


def _held(path: Path, items: Sequence[Item], dimension: int, bar: Any) -> _Note | None:
    """What is noted of a shard that is whole; None where it has to be computed."""
    if not ((beside := path.with_suffix(".json")).exists() and path.exists()):
        return None
    try:
        note = _Note.model_validate(read_json(beside, "it is computed again"))
    except (ValueshiftError, ValidationError) as error:
        reason = field_error(error) if isinstance(error, ValidationError) else error
        log.warning("%s is damaged (%s) and is computed again", beside, reason)
        return None
    same = note.items == [item.name for item in items] and note.dimension == dimension
    same &= len(note.wrong) == len(note.scale) == len(items)
    if not (same and _is_whole(path, note)):
        log.warning("%s is truncated or damaged and is computed again", path)
        return None
    bar.update(len(items))
    return note


def _is_whole(path: Path, note: _Note) -> bool:
    """Whether a shard has the bytes that were noted, and they are an array of its shape."""
    try:
        if path.stat().st_size != note.bytes or file_sha256(path) != note.sha256:
            return False
        shard = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return False
    return shard.shape == (len(note.items), note.dimension) and shard.dtype in (np.float32, np.float16)


def _made(
    path: Path, items: Sequence[Item], backend: FeatureBackend, batch_size: int, stored: Stored, bar: Any
) -> _Note:
    """Compute and write a shard, and what is noted of it."""
    values, wrong = _computed(backend, items, batch_size, bar)
    scale = np.ones(len(items), dtype=np.float32)
    if stored == "float16":
        largest = np.abs(values).max(1)
        scale = np.where(largest > 0, largest, 1).astype(np.float32)
        values = values / scale[:, None]
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values.astype(stored), allow_pickle=False)
    note = _Note(
        items=[item.name for item in items],
        dimension=backend.dimension,
        wrong=wrong.tolist(),
        scale=scale.tolist(),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )
    with whole_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(note.model_dump()) + "\n", encoding="utf-8")
    return note


def _computed(backend: FeatureBackend, items: Sequence[Item], batch_size: int, bar: Any) -> tuple[Floats, Floats]:
    """Features in the order of the items; items of like length are computed together."""
    values = np.empty((len(items), backend.dimension), dtype=np.float32)
    wrong = np.empty(len(items), dtype=np.float32)
    for batch in _batches(items, batch_size):
        values[batch], wrong[batch] = backend.features([items[number] for number in batch])
        bar.update(len(batch))
    return values, wrong


def _batches(items: Sequence[Item], batch_size: int) -> Iterator[npt.NDArray[np.intp]]:
    lengths = [max((len(row.encoder) + len(row.labels) for row in item.rows), default=0) for item in items]
    order = np.argsort(lengths, kind="stable")
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _bar(total: int, title: str) -> Any:
    return tqdm(total=total, desc=title, bar_format=_BAR, disable=None)
