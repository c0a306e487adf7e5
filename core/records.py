"""Run records: one folder `<kind>-<digest>/` with `record.json` and Parquet tables, written whole or not at all.

Runs folders are shared: a record may be damaged, of another version, or made to lead its reader astray. So it is read here
alone, `read_record` says of each what is wrong with it, and `whole_records` leaves out those that cannot be read.
"""

import json
import math
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from .digests import digest
from .errors import ValueshiftError
from .fields import fault, field_error
from .files import inside, whole_folder
from .limits import RECORD_BYTES, TABLE_BYTES, WORK_SECONDS
from .outside import read_json, regular_file
from .tables import SCORES, Needed, read_parquet

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
Kind = Literal["probe", "finetune", "attribution", "comparison", "report"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_LIBRARIES = ("valueshift", "torch", "transformers", "lm_eval", "tokenizers", "peft")
_FOLDER = re.compile(rf"({'|'.join(KINDS)})-[0-9a-f]{{16}}")
_REMEDY = "run the command that made it again, or remove it"


def _of_our_time(created: datetime) -> datetime:
    """In UTC: years at the end of the calendar cannot be converted, and MLflow counts from 1970."""
    if not 1970 < created.year < 9999:
        raise ValueError("a time between 1971 and 9998 is needed")
    return created.astimezone(UTC)


class RunRecord(BaseModel):
    """What a run was given, did and found. Tables lie beside it as Parquet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Annotated[int, Field(strict=True, ge=1)] = SCHEMA
    kind: Kind
    digest: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    """Digest of `inputs`: the same work has the same digest."""
    inputs: dict[str, Any]
    """What determines the result."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """What was used besides: engine, batch size, device, paths as given."""
    versions: dict[str, str]
    created: Annotated[AwareDatetime, AfterValidator(_of_our_time)]
    seconds: Annotated[FiniteFloat, Field(ge=0, le=WORK_SECONDS * 52)] | None = None
    """How long the work took that ended at `created`; what was done before and only read is not in it."""
    metrics: dict[str, FiniteFloat] = Field(default_factory=dict)
    """Figures that summarise the run, by their MLflow names."""
    tables: tuple[Annotated[str, Field(pattern=r"^\w[\w-]{0,99}$")], ...] = ()
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
    seconds: float | None = None,
) -> Path:
    """Write a whole record and return its folder; an older record of the same inputs is replaced, unless it says the same.

    Metrics that are no finite number are left out, which the notes say.

    Raises:
        ValueshiftError: the disk is full or the folder cannot be written; nothing is left behind.
    """
    figures = metrics or {}
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    lost = [f"{name} is {figures[name]}, and left out." for name in figures if name not in finite]
    record = RunRecord(
        kind=kind,
        digest=digest(inputs),
        inputs=dict(inputs),
        settings=dict(settings or {}),
        versions=library_versions(),
        created=datetime.now(UTC),
        seconds=seconds,
        metrics=finite,
        tables=tuple(tables),
        notes=(*notes, *lost),
    )
    folder = root / record.name
    if _says_the_same(folder, record, tables):
        return folder
    with whole_folder(folder) as temporary:
        for name, table in tables.items():
            table.to_parquet(temporary / f"{name}.parquet", index=False)
        text = json.dumps(record.model_dump(mode="json"), ensure_ascii=False, indent=2)
        (temporary / "record.json").write_bytes(text.encode(errors="replace"))  # paths need not be UTF-8
    return folder


def _says_the_same(folder: Path, record: RunRecord, tables: "Mapping[str, pd.DataFrame]") -> bool:
    """Whether the record there differs in its time at most; kept then, it is also one and the same run in MLflow."""
    if not (folder / "record.json").is_file():
        return False
    try:
        there = read_record(folder)
    except ValueshiftError:  # damaged, and so replaced
        return False
    one, other = (each.model_dump(mode="json", exclude={"created", "seconds"}) for each in (there, record))
    if one != other:
        return False
    return all(
        (folder / f"{name}.parquet").read_bytes() == table.to_parquet(index=False) for name, table in tables.items()
    )


def read_record(folder: Path, kind: Kind | None = None) -> RunRecord:
    """The record of a folder.

    Args:
        folder: of the record, under any name but another record's.
        kind: what it must be; all that readers of that kind rely on must then be there, and not only be of its type.

    Raises:
        ValueshiftError: there is none, it is of another kind, unfinished, damaged, changed, or written by a newer version. The
            sentence names the file, the field and the remedy.
    """
    path = folder / "record.json"
    if not path.exists():
        raise ValueshiftError(f"{folder} is no run record: it has no record.json")
    content = read_json(inside(folder, path.absolute()), _REMEDY, RECORD_BYTES)
    if not isinstance(content, dict):
        raise ValueshiftError(f"{path} is no run record, but a JSON {type(content).__name__}; {_REMEDY}")
    if isinstance(found := content.get("schema_version"), int) and found > SCHEMA:
        raise ValueshiftError(f"{path} has schema {found}, this version reads up to {SCHEMA}; upgrade valueshift")
    try:
        record = RunRecord.model_validate(content)
        same = record.digest == digest(record.inputs)
    except ValidationError as error:
        raise ValueshiftError(f"{path}, {field_error(error)}; {_REMEDY}") from error
    except ValueError as error:
        raise ValueshiftError(f"{path}, inputs: {error}; {_REMEDY}") from error
    if not same:
        raise ValueshiftError(f"{path}, digest: it is not that of the inputs, one of which was changed; {_REMEDY}")
    if kind not in (None, record.kind):
        raise ValueshiftError(f"{path}, kind: it is a record of kind {record.kind}; give one of kind {kind}")
    name = folder.absolute().name
    if _FOLDER.fullmatch(name) and name != record.name:
        raise ValueshiftError(f"{path}, kind or digest: it is the record {record.name}; give the folder that name")
    _refuse_fault(folder, record, whole=kind is not None)
    for table in record.tables:
        _table_file(folder, table)
    return record


def _refuse_fault(folder: Path, record: RunRecord, *, whole: bool) -> None:
    if wrong := fault(record.kind, record.inputs, record.settings, whole=whole):
        raise ValueshiftError(f"{folder / 'record.json'}, {wrong}; {_REMEDY}")


def _table_file(folder: Path, name: str) -> Path:
    """The file of a table, which is a regular one of this folder."""
    if not (path := folder / f"{name}.parquet").exists():
        raise ValueshiftError(f"{folder} lacks {name}.parquet; {_REMEDY}")
    regular_file(inside(folder, path.absolute()), _REMEDY, TABLE_BYTES)
    return path


def read_table(folder: Path, name: str, needed: Needed | None = None) -> "pd.DataFrame":
    """One table of a record.

    Args:
        folder: of the record.
        name: of the table.
        needed: what its reader relies on, such as `core.tables.EXAMPLES`.

    Raises:
        ValueshiftError: the table is missing, damaged, too large, or lacks what is needed.
    """
    return read_parquet(_table_file(folder, name), _REMEDY, needed)


def read_scores(folder: Path, record: RunRecord) -> "pd.DataFrame":
    """The scores of a probe record, as `core.scores.COLUMNS`: of the probe set and the languages that its inputs name.

    Raises:
        ValueshiftError: as `read_table`, or they are of others.
    """
    scores = read_table(folder, "scores", SCORES)
    for column, known in (("probe_set", {record.inputs["probe_set"]}), ("language", set(record.inputs["probes"]))):
        if others := sorted(set(scores[column].unique()) - known):
            raise ValueshiftError(
                f"{folder / 'scores.parquet'}, column {column}: {others[0]} is not among the record's inputs; {_REMEDY}"
            )
    return scores


class Whole(NamedTuple):
    """A record that could be read, and where it is."""

    folder: Path
    record: RunRecord


def whole_records(where: Path | Iterable[Path], *kinds: Kind) -> tuple[list[Whole], list[ValueshiftError]]:
    """The records at some places, oldest first, and of those that cannot be read what is wrong with each.

    Args:
        where: records, and folders that hold records.
        kinds: read only these, as `read_record` reads a kind; all that is a record where none is given.
    """
    found, left_out = [], []
    for folder, root in _candidates([where] if isinstance(where, Path) else where, kinds or KINDS):
        try:
            inside(root, folder.absolute())
            record = read_record(folder)
            if kinds and record.kind in kinds:
                _refuse_fault(folder, record, whole=True)
        except ValueshiftError as error:
            left_out.append(error)
            continue
        if record.kind in (kinds or KINDS):
            found.append(Whole(folder, record))
    return sorted(found, key=lambda one: one.record.created), left_out


def _candidates(where: Iterable[Path], kinds: Iterable[Kind]) -> Iterator[tuple[Path, Path]]:
    """Folders that should be records, each with the folder that it must not lead out of."""
    for place in where:
        if (place / "record.json").exists():
            yield place, place
            continue
        for kind in kinds:
            yield from ((path.parent, place) for path in sorted(place.glob(f"{kind}-*/record.json")))


def find_records(root: Path, kind: Kind | None = None) -> list[Path]:
    """Folders of whole records under `root`, oldest first."""
    found, _ = whole_records(root, *((kind,) if kind else ()))
    return [one.folder for one in found]
