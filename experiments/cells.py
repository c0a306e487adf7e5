"""The cells of a plan: the smallest pieces of work, each with what it needs and a digest of what determines it.

Digests hold the digests of what is needed, and of content instead of paths: two grids that share a cell share its result,
wherever their plans and runs lie. Languages stand in them in one order, as no result depends on theirs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..core.digests import digest, file_sha256
from ..core.errors import ValueshiftError
from ..core.probes import probe_set
from .plan import Attribution, Block, FromToy, Plan, Resources, Stage


@dataclass(frozen=True)
class Cell:
    """One piece of work."""

    stage: Stage
    action: str
    """What does it, as `module:function`; called with the cell, the runs root and the results of `needs`."""
    label: str
    """What it is, in a few words for people."""
    spec: Mapping[str, Any]
    """What determines the result, besides the results of `needs`."""
    needs: tuple[str, ...] = ()
    """Digests of the cells whose results it takes."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What is used besides: where models and corpora lie on this machine."""
    tolerant: bool = False
    """It is made of what there is, should some of `needs` have failed."""
    units: float = 1
    """Of work: sentences trained on, questions asked, ... (see `estimates`)."""
    model: str = ""
    """The pretrained model at the root of it, as the plan has it."""
    resources: Resources = field(default_factory=Resources)

    @cached_property
    def digest(self) -> str:
        """Of all that determines the result."""
        return digest({"stage": self.stage, "spec": self.spec, "needs": self.needs})


@dataclass(frozen=True)
class _Model:
    """A model that cells can be made of: pretrained, or what a cell makes."""

    name: str
    root: str
    """The pretrained model, as the plan has it."""
    spec: Any
    """What stands for it in a digest."""
    given: str = ""
    """Where it lies, unless a cell makes it."""
    maker: str | None = None
    """Digest of the cell that makes it."""


class _Run(NamedTuple):
    """One fine-tuning run of a block."""

    base: _Model
    tuned: _Model
    block: Block
    what: Mapping[str, Any]
    """Source, languages, seed, placebo."""


def expand(plan: Plan) -> list[Cell]:
    """All cells of a plan, each once, after those that it needs.

    Raises:
        ValueshiftError: a model folder of the plan holds no model, or probes or survey truth are damaged.
    """
    return list(_Expansion(plan).cells())


class _Expansion:
    """Collects cells; equal ones fall together by their digests."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.found: dict[str, Cell] = {}
        self.toy: str | None = None
        self.runs: dict[str, list[_Run]] = {}
        """By block."""
        self.probes = {
            name: {language: probe_set(name).digest(language) for language in sorted(plan.probe.languages)}
            for name in plan.probe.sets
        }
        """By probe set and language, digests of what is asked."""
        self.questions = {name: len(probe_set(name).items) for name in plan.probe.sets}
        self.surveys = {name: _survey(name) for name in plan.probe.sets}

    def cells(self) -> Iterable[Cell]:
        plan = self.plan
        if plan.toy:
            languages = list(plan.toy.languages)
            self.toy = self._add(
                Cell(
                    "toy",
                    _action("toy"),
                    f"toy community, {', '.join(languages)}",
                    {"languages": languages, "seed": plan.toy.seed},
                    units=len(languages),
                )
            )
        models = {name: self._pretrained(name, given) for name, given in plan.models.items()}
        for model in models.values():
            self._probe(model)
        for name in plan.in_order():
            self.runs[name] = list(self._finetune(plan.finetune[name], models))
        for attribution in plan.attribute.values():
            self._attribute(attribution)
        if plan.report:
            self._report()
        return self.found.values()

    def _add(self, cell: Cell) -> str:
        cell = _with_resources(cell, self.plan.resources.get(cell.stage))
        return self.found.setdefault(cell.digest, cell).digest

    def _pretrained(self, name: str, given: str | FromToy) -> _Model:
        if isinstance(given, FromToy):
            return _Model(name, f"toy {given.toy}", {"toy": given.toy}, maker=self.toy)
        if Path(given).is_dir():
            return _Model(name, given, {"content": _content_of_model(given)}, given)
        return _Model(name, given, {"hub": given}, given)

    def _probe(self, model: _Model) -> list[str]:
        """Cells that ask a model, one a probe set."""
        how = self.plan.probe
        asked = {"dtype": how.dtype, "neutral": how.neutral}
        return [
            self._add(
                Cell(
                    "probe",
                    _action("probe"),
                    f"{model.name}: {name}",
                    {"model": model.spec, "set": name, "probes": probes, **asked},
                    _made(model),
                    {"model": model.given},
                    units=len(probes) * self.questions[name],
                    model=model.root,
                )
            )
            for name, probes in self.probes.items()
        ]

    def _finetune(self, block: Block, models: Mapping[str, _Model]) -> Iterator[_Run]:
        """Cells of a block, with the probes and comparisons of what they make."""
        bases = [
            base for name in block.models for base in ([models[name]] if name in models else self._results_of(name))
        ]
        for base in bases:
            for source in block.sources:
                for run in block.runs():
                    tuned = self._tune(base, source, block, run)
                    before, after = self._probe(base), self._probe(tuned)
                    if self.plan.compare:
                        for asked, first, second in zip(self.plan.probe.sets, before, after, strict=True):
                            self._add(
                                Cell(
                                    "compare",
                                    _action("compare"),
                                    f"{tuned.name}: {asked}",
                                    {"set": asked, "survey": self.surveys[asked]},
                                    (first, second),
                                    model=tuned.root,
                                )
                            )
                    yield _Run(base, tuned, block, {"source": source, **run})

    def _results_of(self, block: str) -> list[_Model]:
        return [run.tuned for run in self.runs[block] if not run.what["placebo"]]

    def _tune(self, base: _Model, source: str, block: Block, run: Mapping[str, Any]) -> _Model:
        given = self.plan.sources[source]
        training = {
            "epochs": block.epochs,
            "learning_rate": block.learning_rate,
            "batch_size": block.batch_size,
            "accumulate": block.accumulate,
            "lora": block.lora,
        }
        spec = {
            "model": base.spec,
            "corpus": _corpus_spec(given),
            "size": block.size,
            **run,
            "languages": sorted(run["languages"]),
            **training,
        }
        usual = Block.model_fields
        unusual = [
            f"{name} {training[name]:g}"
            for name in ("epochs", "learning_rate", "batch_size")
            if training[name] != usual[name].default
        ]
        words = [base.name, source, "+".join(run["languages"]), f"{block.size:,}", f"seed {run['seed']}", *unusual]
        words += [word for word, wanted in (("lora", block.lora), ("placebo", run["placebo"])) if wanted]
        needs = _made(base)
        if isinstance(given, FromToy) and self.toy not in needs:
            needs = (*needs, str(self.toy))
        cell = Cell(
            "finetune",
            _action("finetune"),
            " ".join(words),
            spec,
            needs,
            {"model": base.given, "corpus": "" if isinstance(given, FromToy) else given},
            units=block.epochs * block.size,
            model=base.root,
        )
        return _Model(cell.label, base.root, {"part": "model"}, maker=self._add(cell))

    def _attribute(self, wanted: Attribution) -> None:
        for name in wanted.blocks:
            for base, tuned, block, run in self.runs[name]:
                if not wanted.takes(run["source"], run):
                    continue
                how = {"method": wanted.method, "k": wanted.k, "languages": sorted(wanted.languages or ())}
                before, after = self._probe(base), self._probe(tuned)
                for asked, first, second in zip(self.plan.probe.sets, before, after, strict=True):
                    self._add(
                        Cell(
                            "attribute",
                            _action("attribute"),
                            f"{tuned.name}: {asked}",
                            {"set": asked, **how},
                            (first, second, str(tuned.maker)),
                            units=block.size,
                            model=tuned.root,
                        )
                    )

    def _report(self) -> None:
        needs = tuple(cell.digest for cell in self.found.values())
        self._add(
            Cell(
                "report",
                _action("report"),
                "every table and figure",
                {"surveys": self.surveys},
                needs,
                tolerant=True,
                units=len(needs),
            )
        )


def with_ancestors(cells: Sequence[Cell], wanted: str) -> list[Cell]:
    """The cell of a digest and all that it needs, in order.

    Raises:
        ValueshiftError: no cell has this digest, or several begin with it.
    """
    matching = [cell.digest for cell in cells if cell.digest.startswith(wanted)]
    if len(matching) != 1:
        found = f"{len(matching)} cells have digests that begin with" if matching else "no cell has the digest"
        raise ValueshiftError(f"{found} '{wanted}'; `valueshift grid plan FILE --list` shows all")
    needed = set(matching)
    for cell in reversed(cells):
        if cell.digest in needed:
            needed.update(cell.needs)
    return [cell for cell in cells if cell.digest in needed]


def _action(stage: Stage) -> str:
    return f"valueshift.experiments.actions:{stage}"


def _made(model: _Model) -> tuple[str, ...]:
    return (model.maker,) if model.maker else ()


def _with_resources(cell: Cell, resources: Resources | None) -> Cell:
    return replace(cell, resources=resources) if resources else cell


@cache
def _content_of_model(folder: str) -> str:
    from ..harness_ext.families import pretrained_digest

    return pretrained_digest(folder)


@cache
def _corpus_spec(given: str | FromToy) -> Any:
    """What stands for a corpus in a digest: its content, or its name where it is not on this machine."""
    from ..finetune.corpora.store import corpus_path

    if isinstance(given, FromToy):
        return {"toy": given.toy}
    path = Path(given) if given.endswith(".parquet") else corpus_path(given)
    return {"name": path.stem, "content": file_sha256(path) if path.is_file() else None}


def _survey(probe_set: str) -> str | None:
    """Digest of the people's answers that a probe set is compared with; None where none are known."""
    from ..core.surveys import has_survey_truth, survey_truth
    from ..harness_ext.alignment import survey_identity

    return survey_identity(survey_truth(probe_set))["digest"] if has_survey_truth(probe_set) else None
