"""Run records: one folder `<kind>-<digest>/` with `record.json` and Parquet tables, written whole or not at all."""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from .digests import digest
from .errors import ValueshiftError
from .files import whole_folder

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
Kind = Literal["probe", "finetune", "attribution", "comparison", "report"]
KINDS: tuple[str, ...] = get_args(Kind)
_LIBRARIES = ("valueshift", "torch", "transformers", "lm_eval", "tokenizers", "peft")


class RunRecord(BaseModel):
    """What a run was given, did and found. Tables lie beside it as Parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA
    kind: Kind
    digest: str
    """Digest of `inputs`: the same work has the same digest."""
    inputs: dict[str, Any]
    """What determines the result."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What was used besides: engine, batch size, device, paths as given."""
    versions: dict[str, str]
    created: datetime
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Figures that summarise the run, by their MLflow names."""
    tables: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences that a reader of the numbers must know."""
    status: Literal["complete"] = "complete"

    @property
    def name(self) -> str:
        """The record's folder name."""
        return f"{self.kind}-{self.digest}"


def record_folder(root: Path, kind: Kind, inputs: Mapping[str, Any]) -> Path:
    """Where the record of these inputs is or will be."""
    return root / f"{kind}-{digest(inputs)}"


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that determine numbers; absent ones are left out."""
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def write_record(
    root: Path,
    kind: Kind,
    inputs: Mapping[str, Any],
    tables: "Mapping[str, pd.DataFrame]",
    *,
    settings: Mapping[str, Any] | None = None,
    metrics: Mapping[str, float] | None = None,
    notes: tuple[str, ...] = (),
) -> Path:
    """Write a whole record and return its folder; an older record of the same inputs is replaced, unless it says the same.

    Raises:
        ValueshiftError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    record = RunRecord(
        kind=kind,
        digest=digest(inputs),
        inputs=dict(inputs),
        settings=dict(settings or {}),
        versions=library_versions(),
        created=datetime.now(UTC),
        metrics=dict(metrics or {}),
        tables=tuple(tables),
        notes=notes,
    )
    folder = root / record.name
    if _says_the_same(folder, record, tables):
        return folder
    with whole_folder(folder) as temporary:
        for name, table in tables.items():
            table.to_parquet(temporary / f"{name}.parquet", index=False)
        (temporary / "record.json").write_text(record.model_dump_json(indent=2), encoding="utf-8")
    return folder


def _says_the_same(folder: Path, record: RunRecord, tables: "Mapping[str, pd.DataFrame]") -> bool:
    """Whether the record there differs in its time at most; kept then, it is also one and the same run in MLflow."""
    if not (folder / "record.json").is_file():
        return False
    try:
        there = read_record(folder)
    except ValueshiftError:  # damaged, and so replaced
        return False
    if there.model_dump_json(exclude={"created"}) != record.model_dump_json(exclude={"created"}):
        return False
    return all(
        (folder / f"{name}.parquet").read_bytes() == table.to_parquet(index=False) for name, table in tables.items()
    )


def read_record(folder: Path) -> RunRecord:
    """The record of a folder.

    Raises:
        ValueshiftError: there is none, it is unfinished, damaged, or written by a newer version.
    """
    path = folder / "record.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueshiftError(f"{folder} is no run record: it has no record.json") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueshiftError(f"{path} is damaged ({error}); run the command that made it again") from error
    if isinstance(content, dict) and (found := content.get("schema_version")) is not None and found > SCHEMA:
        raise ValueshiftError(f"{path} has schema {found}, this version reads up to {SCHEMA}; upgrade valueshift")
    try:
        record = RunRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ValueshiftError(f"{path}, {field}: {first['msg']}; run the command that made it again") from error
    if missing := [name for name in record.tables if not (folder / f"{name}.parquet").is_file()]:
        raise ValueshiftError(f"{folder} lacks {missing[0]}.parquet; run the command that made it again")
    return record


def read_table(folder: Path, name: str) -> "pd.DataFrame":
    """One table of a record.

    Raises:
        ValueshiftError: the table is missing or damaged.
    """
    import pandas as pd

    path = folder / f"{name}.parquet"
    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise ValueshiftError(f"{folder} has no table {name}") from None
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"{path} is damaged ({error}); run the command that made it again") from error


def find_records(root: Path, kind: Kind | None = None) -> list[Path]:
    """Folders of whole records under `root`, oldest first."""
    kinds = (kind,) if kind else KINDS
    found = [path.parent for name in kinds for path in root.glob(f"{name}-*/record.json")]
    return sorted(found, key=lambda folder: read_record(folder).created)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (a lock file beside it), waiting for other processes."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield
