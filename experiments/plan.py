"""The plan of a study as YAML: which models are fine-tuned on what, asked what, compared, explained and reported.

A plan is no cross product: each block of `finetune` is one, and blocks may overlap; what two blocks share is done once.
"""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import PydanticCustomError

from ..core.errors import ValueshiftError
from ..core.limits import CELLS, COUNT, SEEDS
from ..core.paths import PACKAGE
from .yaml_lines import Document, Location

Grouping = Literal["monolingual", "multilingual"]
Stage = Literal["toy", "probe", "finetune", "compare", "attribute", "report"]
STAGES: tuple[Stage, ...] = ("toy", "probe", "finetune", "compare", "attribute", "report")

_REFUSED = "refused"
"""Type of the faults that we find ourselves; their sentences end with the remedy."""
_NAME, _TOY = "<name>", "<toy>"
"""The two ways to give a model or a source, as pydantic's locations of faults have them."""
SMALLEST_SHARE = 1e-4
"""Of a CPU or GPU that Ray gives."""

_T = TypeVar("_T")


def _distinct(values: tuple[_T, ...]) -> tuple[_T, ...]:
    again, times = next(iter(Counter(values).most_common(1)), (None, 0))
    if times > 1:
        raise PydanticCustomError(_REFUSED, "{value} stands there twice; leave one out", {"value": str(again)})
    return values


def _allotted(gpus: float) -> float:
    if 0 < gpus < SMALLEST_SHARE or (gpus > 1 and gpus % 1):
        raise PydanticCustomError(
            _REFUSED, "Ray shares out whole GPUs or a part of one; give 0, 0.0001 to 1, 2, 3, ..."
        )
    return gpus


Distinct = Annotated[tuple[_T, ...], AfterValidator(_distinct)]
Several = Annotated[tuple[_T, ...], Field(min_length=1), AfterValidator(_distinct)]
Names = Several[str]
Seed = Annotated[int, Field(strict=True, ge=0, lt=SEEDS)]
Count = Annotated[int, Field(strict=True, gt=0, le=COUNT)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toy(_Part):
    """The toy community, built before everything else."""

    languages: Names
    seed: Seed = 0


class FromToy(_Part):
    """Something of the toy community."""

    toy: str


class ToyModel(FromToy):
    """A checkpoint of the toy community."""

    toy: Literal["base", "moved"]


class ToyCorpus(FromToy):
    """A corpus of the toy community."""

    toy: Literal["corpus", "corpus_other"]


_named_or_toy = Discriminator(lambda given: _TOY if isinstance(given, dict | FromToy) else _NAME)
Model = Annotated[Annotated[str, Tag(_NAME)] | Annotated[ToyModel, Tag(_TOY)], _named_or_toy]
Source = Annotated[Annotated[str, Tag(_NAME)] | Annotated[ToyCorpus, Tag(_TOY)], _named_or_toy]


class Probing(_Part):
    """What every model is asked, before and after."""

    sets: Names = ("wvs",)
    languages: Names
    dtype: Literal["float32", "bfloat16"] | None = None
    """float32 on a CPU and bfloat16 on a GPU where None."""
    neutral: bool = False
    """Also ask the options in the neutral stem of each language, for the reading `dcpmi`."""


class Block(_Part):
    """Fine-tuning runs: every model on every source, in every language and with every seed; defaults are the paper's."""

    models: Names
    """Of `models`; or other blocks, whose fine-tuned models are then fine-tuned further."""
    sources: Names
    languages: Names
    size: Count
    """Sentences before the split into train and dev."""
    training: Several[Grouping] = ("monolingual",)
    """monolingual: a run for each language. multilingual: one run, whose `size` sentences all languages share evenly."""
    seeds: Several[Seed] = (0,)
    placebo: Distinct[Seed] = ()
    """Seeds of the runs that are made on permuted tokens as well."""
    epochs: Count = 5
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-5
    batch_size: Count = 8
    accumulate: Count = 1
    lora: bool = False

    def runs(self) -> Iterator[dict[str, Any]]:
        """What differs between the runs of the block on one model and source: languages, seed, placebo."""
        groups: list[list[str]] = []
        if "monolingual" in self.training:
            groups += [[language] for language in self.languages]
        if "multilingual" in self.training:
            groups.append(list(self.languages))
        for languages in groups:
            for placebo, seeds in ((False, self.seeds), (True, self.placebo)):
                for seed in seeds:
                    yield {"languages": languages, "seed": seed, "placebo": placebo}


class Attribution(_Part):
    """Which fine-tuned models of which blocks are explained; placebo runs never are."""

    blocks: Names
    training: Several[Grouping] = ("monolingual", "multilingual")
    sources: Names | None = None
    """All of the blocks' where None."""
    seeds: Several[Seed] | None = None
    """All of the blocks' where None."""
    languages: Names | None = None
    """Whose shifted answers are explained; all that are probed where None."""
    method: Literal["ours", "paper"] = "ours"
    """ours: factorised features of a contrast. paper: TRAK as the paper says (docs/attribution.md)."""
    k: Count | None = None
    """Dimensions of the projection; the backend's default where None."""

    def takes(self, source: str, run: Mapping[str, Any]) -> bool:
        """Whether the model of a run (of `Block.runs`) on a source is explained."""
        grouping = "multilingual" if len(run["languages"]) > 1 else "monolingual"
        return (
            not run["placebo"]
            and grouping in self.training
            and (self.sources is None or source in self.sources)
            and (self.seeds is None or run["seed"] in self.seeds)
        )


class Resources(_Part):
    """What one cell needs, for an executor that shares out machines."""

    cpus: Annotated[float, Field(ge=SMALLEST_SHARE, allow_inf_nan=False)] = 1
    gpus: Annotated[float, Field(ge=0, allow_inf_nan=False), AfterValidator(_allotted)] = 0
    """Below 1, several cells share a GPU."""
    memory: Annotated[ByteSize, Field(gt=0)] | None = None
    """Of the machine, not of the GPU: `16 GB`."""


class Plan(_Part):
    """A study."""

    toy: Toy | None = None
    models: Annotated[dict[str, Model], Field(min_length=1)]
    """Name -> hub name, or folder (relative to the plan's file)."""
    sources: dict[str, Source] = Field(default_factory=dict)
    """Name -> name of an imported corpus, or Parquet file (relative to the plan's file)."""
    probe: Probing
    finetune: dict[str, Block] = Field(default_factory=dict)
    compare: bool = True
    attribute: dict[str, Attribution] = Field(default_factory=dict)
    report: bool = True
    resources: dict[Stage, Resources] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The plan in a YAML file, its paths made absolute.

        Raises:
            ValueshiftError: the file is no such plan, or what it asks for cannot be had. Names line, field and remedy.
        """
        document = Document(path)
        try:
            plan = cls.model_validate(document.content)
        except ValidationError as error:
            raise _explained(document, error) from error
        for location, message in plan._faults(path.resolve().parent):
            raise document.fault(location, message)
        models = {name: _absolute(given, path, folder=True) for name, given in plan.models.items()}
        sources = {name: _absolute(given, path, folder=False) for name, given in plan.sources.items()}
        plan = plan.model_copy(update={"models": models, "sources": sources})
        from .inputs import impossible

        for location, message in impossible(plan):
            raise document.fault(location, message)
        return plan

    def in_order(self) -> list[str]:
        """Names of blocks, those before that others go on from.

        Raises:
            graphlib.CycleError: blocks go on from each other.
        """
        edges = {
            name: [model for model in block.models if model in self.finetune] for name, block in self.finetune.items()
        }
        return list(TopologicalSorter(edges).static_order())

    def _faults(self, folder: Path) -> Iterator[tuple[Location, str]]:
        """What is wrong beyond the form of each field, with its remedy."""
        yield from self._toy_faults(folder)
        yield from self._probe_faults()
        for name, block in self.finetune.items():
            yield from self._block_faults(name, block)
        try:
            self.in_order()
        except CycleError as error:
            cycle = error.args[1]
            yield (
                ("finetune", cycle[0], "models"),
                f"goes round in a circle: {' -> '.join(cycle)}; let one begin from a model",
            )
        else:
            yield from self._size_faults()
        for name, attribution in self.attribute.items():
            yield from _unknown(("attribute", name, "blocks"), attribution.blocks, self.finetune, "block")
            yield from _unknown(("attribute", name, "sources"), attribution.sources or (), self.sources, "source")
            asked = self.probe.languages
            yield from _unknown(("attribute", name, "languages"), attribution.languages or (), asked, "probed language")
            blocks = [self.finetune[block] for block in attribution.blocks]
            if not any(
                attribution.takes(source, run) for block in blocks for source in block.sources for run in block.runs()
            ):
                yield (
                    ("attribute", name),
                    "selects none of the runs of its blocks; widen its training, sources or seeds",
                )

    def _size_faults(self) -> Iterator[tuple[Location, str]]:
        """Whether there are more cells than anything could do; counted, as making them would already take too long."""
        tuned: dict[str, int] = {}
        runs = 0
        for name in self.in_order():
            block = self.finetune[name]
            bases = sum(tuned.get(model, 1) for model in block.models) * len(block.sources)
            groups = ("monolingual" in block.training) * len(block.languages) + ("multilingual" in block.training)
            tuned[name] = bases * groups * len(block.seeds)
            runs += bases * groups * (len(block.seeds) + len(block.placebo))
            each = 1 + len(self.probe.sets) * (1 + self.compare + len(self.attribute))
            if runs * each > CELLS:
                yield (
                    ("finetune", name),
                    f"comes with what it goes on from to {runs:,} runs of {each} cells, at most {CELLS:,} cells are "
                    "planned; split the plan",
                )
                return

    def _toy_faults(self, folder: Path) -> Iterator[tuple[Location, str]]:
        for field, named in (("models", self.models), ("sources", self.sources)):
            for name, given in named.items():
                if isinstance(given, FromToy):
                    if not self.toy:
                        yield (
                            (field, name),
                            "is of the toy community, which the plan lacks; add `toy: {languages: [...]}`",
                        )
                elif _is_path(given) and not (path := _place(given, folder)).exists():
                    yield (field, name), f"{path} does not exist; paths are relative to the plan's file"
        for name in self.models.keys() & self.finetune.keys():
            yield ("finetune", name), "is the name of a model too; give the block another"
        if self.toy:
            yield from _unknown(
                ("toy", "languages"), self.toy.languages, _languages_of("wvs"), "language of the probe set wvs"
            )

    def _probe_faults(self) -> Iterator[tuple[Location, str]]:
        for position, name in enumerate(self.probe.sets):
            try:
                known = _languages_of(name)
            except ValueshiftError as error:
                yield ("probe", "sets", position), str(error)
                continue
            yield from _unknown(
                ("probe", "languages"), self.probe.languages, known, f"language of the probe set {name}"
            )

    def _block_faults(self, name: str, block: Block) -> Iterator[tuple[Location, str]]:
        yield from _unknown(("finetune", name, "models"), block.models, [*self.models, *self.finetune], "model")
        yield from _unknown(("finetune", name, "sources"), block.sources, self.sources, "source")
        shared = len(block.languages)
        if "multilingual" in block.training and block.size % shared:
            yield (
                ("finetune", name, "size"),
                f"{block.size} sentences cannot be shared evenly by {shared} languages; give a multiple of {shared}",
            )
        if "multilingual" in block.training and shared == 1:
            yield ("finetune", name, "training"), "multilingual training needs two languages or more; add one"
        if block.batch_size % block.accumulate:
            yield (
                ("finetune", name, "accumulate"),
                f"a batch of {block.batch_size} cannot be computed in {block.accumulate} equal parts; give a divisor of it",
            )


def find_plan(name: str) -> Path:
    """The file of a plan: a path, or the name of a packaged plan (`toy`, `paper`, `control`).

    Raises:
        ValueshiftError: it is neither.
    """
    packaged = {path.stem: path for path in sorted((PACKAGE / "experiments").glob("*.yaml"))}
    path = Path(name)
    if path.is_file() or name not in packaged:
        if not path.is_file():
            raise ValueshiftError(f"{name} is no file, nor a packaged plan; those are {', '.join(packaged)}")
        return path
    return packaged[name]


def _languages_of(probe_set: str) -> Sequence[str]:
    from ..core.probes import probe_set as find_probe_set

    return find_probe_set(probe_set).languages


def _unknown(
    location: Location, given: Sequence[str], known: Sequence[str] | Mapping[str, Any], what: str
) -> Iterator[tuple[Location, str]]:
    for position, name in enumerate(given):
        if name not in known:
            yield (*location, position), f"'{name}' is no {what}; {_choices(name, list(known))}"


def _choices(name: str, known: Sequence[str]) -> str:
    if close := get_close_matches(name, known, n=1):
        return f"did you mean '{close[0]}'?"
    return f"there are {', '.join(known)}" if known else "there is none"


def _is_path(given: str) -> bool:
    return given.startswith(("/", "./", "../", "~")) or given.endswith(".parquet")


def _absolute(given: str | FromToy, file: Path, *, folder: bool) -> str | FromToy:
    """A path of the plan made absolute; hub names and names of corpora as they are."""
    if isinstance(given, FromToy):
        return given
    path = _place(given, file.resolve().parent).resolve()
    return str(path) if _is_path(given) or (folder and path.is_dir()) else given


def _place(given: str, folder: Path) -> Path:
    return folder / os.path.expanduser(given)  # noqa: PTH111 pathlib raises for a ~user that there is not


def _explained(document: Document, error: ValidationError) -> ValueshiftError:
    """The first fault that pydantic found, in a sentence with its line."""
    first = min(
        error.errors(), key=lambda found: found["type"] != "extra_forbidden"
    )  # a slip of a key makes others missing
    location = [part for part in first["loc"] if part not in (_NAME, _TOY)]
    if first["type"] == "extra_forbidden":
        known = list(_model_at(location[:-1]).model_fields)
        return document.fault(location, f"unknown key; {_choices(str(location[-1]), known)}")
    if first["type"] == "missing":
        return document.fault(location, "is missing; add it")
    if first["type"] == _REFUSED:
        return document.fault(location, first["msg"])
    given = first["input"]
    shown = f", not {given!r}" if isinstance(given, (str, int, float, bool)) else ""
    message = first["msg"][:1].lower() + first["msg"][1:]
    return document.fault(location, f"{message}{shown}; mend it (docs/grid.md lists the fields)")


def _model_at(location: Location) -> type[BaseModel]:
    """The part of the plan that a location is in."""
    if not location:
        return Plan
    single: dict[str | int, type[BaseModel]] = {"toy": Toy, "probe": Probing}
    named: dict[str | int, type[BaseModel]] = {
        "models": FromToy,
        "sources": FromToy,
        "finetune": Block,
        "attribute": Attribution,
        "resources": Resources,
    }
    return single.get(location[0]) or named[location[0]]
