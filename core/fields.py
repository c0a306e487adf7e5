"""What readers rely on in the inputs and settings of each kind of run record. Whatever else stands there is passed on."""

import unicodedata
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from .limits import RECORD_TEXT


def _from_root(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or not path:
        raise ValueError("a path from the runs root is needed")
    return path


Inside = Annotated[str, AfterValidator(_from_root)]
"""A path from the runs root."""
SetName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
"""Of a probe set."""
Name = Annotated[str, Field(pattern=r"^[a-z]+-[0-9a-f]{16}$")]
"""Of a record's folder."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True)


class Referred(_Part):
    """Something by its content digest."""

    digest: str


class Survey(Referred):
    """What answers were compared with."""

    provenance: str


class Corpus(Referred):
    """What was trained on."""

    name: str


class SpanCorruption(_Part):
    """How sentences were masked."""

    roll: bool


class ProbeInputs(_Part):
    """Of a probe record."""

    model: str | Referred
    probe_set: SetName
    probes: dict[str, str]
    format: str
    dtype: str
    neutral: dict[str, str] | None = None


class ProbeSettings(_Part):
    """Of a probe record."""

    model: str | None = None
    reading: str | None = None
    survey: Survey | None = None


class FinetuneInputs(_Part):
    """Of a finetune record."""

    model: str
    corpus: Corpus | str
    languages: Annotated[list[str], Field(min_length=1)]
    size: int
    seed: int
    placebo: bool
    epochs: Annotated[FiniteFloat, Field(ge=0)]
    learning_rate: FiniteFloat
    batch_size: int
    span_corruption: SpanCorruption | None = None


class FinetuneSettings(_Part):
    """Of a finetune record."""

    model: str | None = None
    corpus: str | None = None
    checkpoint: Inside
    checkpoint_digest: str
    intermediate: dict[str, Inside] | None = None


class AttributionInputs(_Part):
    """Of an attribution record."""

    base: str | None = None
    tuned: Annotated[list[str], Field(min_length=1)]
    finetune: list[str] | None = None
    probe_set: SetName


class AttributionSettings(_Part):
    """Of an attribution record."""

    finetune: Name | None = None
    output: str | None = None


class ComparisonInputs(_Part):
    """Of a comparison record."""

    base: str
    tuned: Annotated[list[str], Field(min_length=1)]
    probe_set: SetName
    runs: dict[str, str] | None = None


class ComparisonSettings(_Part):
    """Of a comparison record."""

    base: str | None = None
    tuned: str | list[str] | None = None
    survey: Survey | None = None


class ReportInputs(_Part):
    """Of a report record."""

    runs: list[str] | None = None


class ReportSettings(_Part):
    """Of a report record."""

    report: str | None = None


_BY_KIND: dict[str, tuple[type[_Part], type[_Part]]] = {
    "probe": (ProbeInputs, ProbeSettings),
    "finetune": (FinetuneInputs, FinetuneSettings),
    "attribution": (AttributionInputs, AttributionSettings),
    "comparison": (ComparisonInputs, ComparisonSettings),
    "report": (ReportInputs, ReportSettings),
}


def field_error(error: ValidationError, *, whole: bool = True) -> str | None:
    """The first fault that a validation found, as `field: what is wrong`; None where there is none.

    Args:
        error: of pydantic.
        whole: whether what is missing is a fault.
    """
    for found in error.errors(include_url=False, include_input=False):
        if whole or found["type"] != "missing":
            return f"{'.'.join(str(part) for part in found['loc'])[:200]}: {found['msg'][:200]}"
    return None


def fault(kind: str, inputs: Mapping[str, Any], settings: Mapping[str, Any], *, whole: bool) -> str | None:
    """What is wrong with the inputs and settings of a record, as `field: what is wrong`; None where nothing is.

    Args:
        kind: of record.
        inputs: as read from JSON.
        settings: as read from JSON.
        whole: whether all that readers of the kind rely on must be there, or only be of its type where it is.
    """
    parts = {"inputs": inputs, "settings": settings}
    for (name, values), model in zip(parts.items(), _BY_KIND[kind], strict=True):
        try:
            model.model_validate(values)
        except ValidationError as error:
            if found := field_error(error, whole=whole):
                return f"{name}.{found}"
    return _unfit_text(parts, "")


def _unfit_text(value: Any, where: str) -> str | None:
    """The first text that is too long, or holds control characters, such as no name or path has."""
    if isinstance(value, str):
        if len(value) > RECORD_TEXT:
            return f"{where}: {len(value):,} characters, at most {RECORD_TEXT:,} are read"
        controls = (character for character in value if unicodedata.category(character) == "Cc")
        return next((f"{where}: the control character {character!r}" for character in controls), None)
    if isinstance(value, Mapping):
        pairs = [(name, inner) for name in value.items() for inner in name]  # names are texts as well
        return next((found for (key, _), inner in pairs if (found := _unfit_text(inner, _below(where, key)))), None)
    if isinstance(value, list | tuple):
        return next((found for n, inner in enumerate(value) if (found := _unfit_text(inner, _below(where, n)))), None)
    return None


def _below(where: str, part: object) -> str:
    return f"{where}.{str(part)[:60]}".lstrip(".")[:200]
