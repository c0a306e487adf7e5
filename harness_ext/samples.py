"""One sample of our tasks, as lm-eval has it in memory or saved it: checked before anything is made of it."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from ..core.errors import ValueshiftError
from ..core.probes import Probe, Whole
from .formats import Format

RERUN = "run lm_eval again"
"""What to do about results that are damaged."""
_CODE = "^[a-z]{2}$"


def _log_probability(value: float) -> float:
    if value == float("inf"):
        raise ValueError("no log-probability")
    return value  # NaN where the model gave none, minus infinity where the option is impossible


class _Doc(Probe):
    """A probe as it was asked."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    language: Annotated[str, Field(pattern=_CODE)]
    format: Format
    model_digest: str
    tokens_first: Annotated[Whole, Field(ge=1)] | None
    tokens_second: Annotated[Whole, Field(ge=1)] | None
    template: str | None = None
    """`ignored` where the run had a chat template or a system instruction, which a cloze statement does not take."""


_Responses = Annotated[tuple[tuple[Annotated[float, AfterValidator(_log_probability)], Any], ...], Field(min_length=1)]
"""Of one option: log-probability, and whether it is the greedy choice."""


class Sample(BaseModel):
    """A probe with the log-probabilities of its options."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    doc_id: int
    doc: _Doc
    resps: tuple[_Responses, _Responses]

    @property
    def probe(self) -> Probe:
        """What was asked."""
        return Probe.model_validate(self.doc.model_dump(include=set(Probe.model_fields)))

    @property
    def logprobs(self) -> tuple[float, float]:
        """Of the first and the second option; NaN where the model gave none."""
        first, second = self.resps
        return first[0][0], second[0][0]


def is_ours(sample: Any) -> bool:
    """Whether a value can be a sample of our tasks; another suite's are of another shape."""
    return isinstance(sample, Mapping) and isinstance(sample.get("doc"), Mapping) and "probe_set" in sample["doc"]


def read_sample(sample: Any, where: str) -> Sample:
    """A sample, checked.

    Args:
        sample: as in memory, or as parsed from a saved line.
        where: names it in errors.

    Raises:
        ValueshiftError: a field is missing or is not what our tasks write. Names the field.
    """
    try:
        return Sample.model_validate(sample)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        found = "" if first["type"] == "missing" else f", found {first['input']!r:.80}"
        raise ValueshiftError(f"{where}, {field}: {first['msg']}{found}; {RERUN}") from error
