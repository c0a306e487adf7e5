"""`valueshift attribute`: which training sentences pushed the answers that shifted, as a run record.

The record's tables: `queries` (language, question, category, answer_base, answer_tuned, stability, token_overlap,
random_overlap), one row a shifted probe; `influence` (language, question, side, rank, example, train_language, score), the
sentences that pushed most towards the new answer (`top`) and against it (`bottom`); `shares` as
`analysis.influences.language_shares`. Sentences are named by id and their text is not copied.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from peft import PeftModel

from ..analysis.profiles import default_selection
from ..analysis.shifts import flipped
from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import from_root, inside, writable
from ..core.languages import parse_languages
from ..core.limits import DIMENSIONS, PROJECTIONS
from ..core.probes import Probe, probe_set, probes_digest
from ..core.records import RunRecord, find_records, read_record, record_folder, write_record
from ..finetune.finetuning import examples_of
from ..harness_ext.adapters import base_of
from ..harness_ext.models import device_named, float32_products, load_model, load_tokenizer
from ..harness_ext.probe_record import kept_probe_record
from ..harness_ext.probing import DTYPES, model_of, run_of
from ..harness_ext.results import ProbeRun
from .features import Backend
from .measurement import Example, Query, masked_examples, query
from .results import metrics_of, notes_of, tables_of
from .scoring import Method, Parts, parts, refuse_impossible

_OURS = Method(seeds=(0, 1))


@dataclass(frozen=True)
class Attributing:
    """What is attributed and how; the defaults are ours, over two projections, so that stability is known."""

    method: Method = field(default=_OURS)
    languages: str | None = None
    """Comma-separated test languages; all that both models were asked in where None."""
    questions: str | None = None
    """Comma-separated questions; all where None."""
    probe_set: str = "wvs"
    """Where models are given, and not probe records."""
    also: tuple[str, ...] = ()
    """Further checkpoints tuned on the same sentences, by other seeds: their scores are averaged, as TRAK does."""
    device: str | None = None
    """A GPU where there is one if None."""


@dataclass(frozen=True)
class Trained:
    """A fine-tuned checkpoint with its finetune record and the sentences it was trained on."""

    record: RunRecord
    checkpoint: Path
    rows: pd.DataFrame
    """As `finetune.finetuning.examples_of`."""
    examples: list[Example]


@dataclass(frozen=True)
class Prepared:
    """What an attribution is of: both models' answers, the checkpoints to attribute, and the shifted probes."""

    base: ProbeRun
    tuned: ProbeRun
    members: tuple[Trained, ...]
    shifts: pd.DataFrame
    """One row a shifted probe: language, question, category, answer_base, answer_tuned."""
    probes: list[Probe]
    """Of the same rows."""

    def queries(self, tokenizer: Any, rows: int) -> list[Query]:
        """The shifted probes as queries, for a model's tokenizer and the rows of its input embedding."""
        pairs = zip(self.probes, self.shifts["answer_tuned"], strict=True)
        return [query(probe, new, tokenizer, rows) for probe, new in pairs]


def attribute(base: str, tuned: str, root: Path, how: Attributing | None = None) -> Path | None:
    """Attribute the answers that fine-tuning changed; return the folder of the record, None where no answer changed.

    Features are kept in `<root>/features/`: what was stopped goes on, and the same again reads them.

    Args:
        base: probe record or checkpoint of the model that was fine-tuned.
        tuned: the same of the fine-tuned one, whose finetune record is in `root`.
        root: folder of run records.
        how: settings.

    Raises:
        ValueshiftError: a checkpoint has no finetune record here, was tuned from another model or on other sentences, a
            language or question was not asked, or the features cannot be computed or kept.
    """
    how = how or Attributing()
    device_named(how.device)
    writable(root)
    began = time.monotonic()
    ready = prepare(base, tuned, root, how)
    base_run, tuned_run, members, shifts, probes = ready.base, ready.tuned, ready.members, ready.shifts, ready.probes
    if shifts.empty:
        return None
    # a report joins by these records; what was asked just now, or lies elsewhere, has none here yet
    base_record, tuned_record = (kept_probe_record(root, run).name for run in (base_run, tuned_run))
    computed = [part for member in members for part in _parts(member, ready, root, how)]
    rows = members[0].rows.sort_values("example", ignore_index=True)
    tokenizer = load_tokenizer(str(members[0].checkpoint))
    tables = tables_of(shifts, probes, rows, tokenizer, computed, len(how.method.seeds))
    inputs = {
        "base": base_run.inputs["model"],
        "tuned": [member.record.settings["checkpoint_digest"] for member in members],
        "finetune": [member.record.digest for member in members],
        "probe_set": tuned_run.inputs["probe_set"],
        "probes": {language: tuned_run.inputs["probes"][language] for language in shifts["language"].unique()},
        "queries": digest(shifts[["language", "question", "answer_base", "answer_tuned"]].to_numpy().tolist()),
        "method": how.method.model_dump(mode="json", exclude={"batch_size", "stored"}),
        "kept": int(tables["influence"]["rank"].max()),
        **float32_products(),
    }
    return write_record(
        root,
        "attribution",
        inputs,
        tables,
        settings={
            "base": base_record,
            "tuned": tuned_record,
            "finetune": members[0].record.name,
            "also": [member.record.name for member in members[1:]],
            "output": from_root(root, page_folder(record_folder(root, "attribution", inputs))),
            "sentences": len(rows),
            "device": device_named(how.device),
            "batch_size": how.method.batch_size,
        },
        metrics=metrics_of(tables),
        notes=(*notes_of(tables, len(rows), how.method), *_member_notes(members)),
        seconds=time.monotonic() - began,
    )


def method_of(
    backend: str | None = None,
    projection: int | None = None,
    seeds: int = 2,
    damping: float | None = None,
    *,
    paper: bool = False,
    paper_strict: bool = False,
) -> Method:
    """The method that a command names; what is None is ours, or the paper's.

    Args:
        backend: factorised, traker or exact.
        projection: dimensions, per side of a weight matrix or of a vector.
        seeds: number of projections; their scores are averaged and their agreement is the stability.
        damping: lambda relative to the mean eigenvalue.
        paper: TRAK as published.
        paper_strict: the same, also where it cannot be right.

    Raises:
        ValueshiftError: there is no such backend, or a number is out of range.
    """
    if backend is not None and backend not in get_args(Backend):
        raise ValueshiftError(f"unknown backend '{backend}'; choose one of {', '.join(get_args(Backend))}")
    if not 1 <= seeds <= PROJECTIONS or not 1 <= (projection or 1) <= DIMENSIONS:
        raise ValueshiftError(f"give 1 to {PROJECTIONS} seeds, and a projection to 1 to {DIMENSIONS:,} dimensions")
    if damping is not None and not 0 <= damping < math.inf:
        raise ValueshiftError(f"damping {damping} is out of range; give 0 or more")
    projections = 1 if backend == "exact" else seeds  # nothing is projected there
    given = {"backend": backend, "k": projection, "damping": damping, "seeds": tuple(range(projections))}
    changes = {name: value for name, value in given.items() if value is not None}
    if paper or paper_strict:
        return Method.paper(**changes, paper_strict=paper_strict)
    return _OURS.model_copy(update=changes)


def prepare(base: str, tuned: str, root: Path, how: Attributing) -> Prepared:
    """Find what belongs together, and refuse the impossible before anything is asked; arguments and errors as `attribute`."""
    members: list[Trained] = []
    under = model_of(base)
    for source in (tuned, *how.also):
        members.append(_trained(source, model_of(source), root, how.method))
        if under is not None:
            _refuse_other_base(base, under, members[-1])
        _refuse_other_sentences(source, members)
    refuse_impossible(how.method, len(members[0].examples))
    base_run, tuned_run = (run_of(source, how.probe_set, how.languages, root) for source in (base, tuned))
    _refuse_other_base(base, base_run.inputs["model"], members[0])
    shifts = _shifts(base_run, tuned_run, how)
    return Prepared(base_run, tuned_run, tuple(members), shifts, _probes(shifts, tuned_run))


def page_folder(record: Path) -> Path:
    """Where the page and `top100.json` of an attribution record are written, absolute."""
    return (record.parent / "pages" / record.name).absolute()


def find_finetune(model: str, checkpoint: str | None, root: Path) -> Path:
    """The finetune record in `root` of a checkpoint, by the digest of its content.

    Raises:
        ValueshiftError: there is none.
    """
    for folder in reversed(find_records(root, "finetune")):
        if checkpoint and read_record(folder).settings.get("checkpoint_digest") == checkpoint:
            return folder
    raise ValueshiftError(
        f"no finetune record in {root} made {model}, so its training sentences are not known; give a checkpoint of "
        f"`valueshift finetune --output {root}`, or the folder of its records with --output"
    )


def loaded(checkpoint: Path, dtype: str, device: str) -> Any:
    """The model of a checkpoint as it was trained: an adapter is not merged, since its weights alone moved."""
    if under := base_of(str(checkpoint)):
        model = load_model(under.name, dtype=DTYPES[dtype], device=device, revision=under.revision)
        return PeftModel.from_pretrained(model, checkpoint).eval().to(device, DTYPES[dtype])
    return load_model(str(checkpoint), dtype=DTYPES[dtype], device=device)


def _trained(source: str, checkpoint: str | None, root: Path, method: Method) -> Trained:
    folder = find_finetune(source, checkpoint, root)
    record = read_record(folder)
    rows, corruption = examples_of(folder)
    sentences = [{"example": name, "tokens": ids} for name, ids in zip(rows["example"], rows["tokens"], strict=True)]
    examples = masked_examples(sentences, corruption, int(record.inputs["epochs"]), method.masks)
    return Trained(record, inside(folder.parent, record.settings["checkpoint"]), rows, examples)


def _refuse_other_base(base: str, model: str, member: Trained) -> None:
    if model != member.record.inputs["model"]:
        raise ValueshiftError(
            f"{member.checkpoint} was not tuned from {base} but from {member.record.settings['model']}; give that as BASE"
        )


def _refuse_other_sentences(source: str, members: Sequence[Trained]) -> None:
    first, other = (set(member.rows["example"]) for member in (members[0], members[-1]))
    if first != other:
        raise ValueshiftError(
            f"{source} was tuned on other sentences than the first checkpoint ({len(first - other)} differ); leave it out"
        )


def _shifts(base: ProbeRun, tuned: ProbeRun, how: Attributing) -> pd.DataFrame:
    """The shifted probes that are asked for, in the order asked."""
    for run in (base, tuned):
        if run.inputs["probes"] != {**run.inputs["probes"], **_worded(run)}:
            raise ValueshiftError(f"the probes have changed since {run.name} was asked; run `valueshift probe` again")
    languages = parse_languages(how.languages, tuple(dict.fromkeys(tuned.scores["language"])))
    asked = set(tuned.scores["question"])
    questions = [name.strip() for name in (how.questions or "").split(",") if name.strip()]
    if unknown := [name for name in questions if name not in asked]:
        raise ValueshiftError(f"question {unknown[0]} was not asked of {tuned.name}")
    items = probe_set(tuned.inputs["probe_set"]).items
    shifts = flipped(base.scores, tuned.scores, items, "all" if questions else default_selection(items))
    chosen = shifts["language"].isin(languages) & shifts["question"].isin(questions or asked)
    columns = ["language", "question", "category", "answer_base", "answer_tuned"]
    return shifts.loc[chosen, columns].reset_index(drop=True)


def _worded(run: ProbeRun) -> dict[str, str]:
    """Digests of the probes that a run was asked, as they are worded now."""
    asked = probe_set(run.inputs["probe_set"])
    questions = run.scores.groupby("language")["question"].agg(set)
    return {
        str(language): probes_digest(probe for probe in asked.probes(str(language)) if probe.question in some)
        for language, some in questions.items()
    }


def _probes(shifts: pd.DataFrame, run: ProbeRun) -> list[Probe]:
    asked = probe_set(run.inputs["probe_set"])
    known = {(p.language, p.question): p for code in shifts["language"].unique() for p in asked.probes(code)}
    return [
        known[language, question] for language, question in zip(shifts["language"], shifts["question"], strict=True)
    ]


def _parts(member: Trained, ready: Prepared, root: Path, how: Attributing) -> list[Parts]:
    """What each projection of one checkpoint gives, sentences in the order of their ids."""
    model = loaded(member.checkpoint, how.method.dtype, device_named(how.device))
    tokenizer = load_tokenizer(str(member.checkpoint))
    queries = ready.queries(tokenizer, model.get_input_embeddings().weight.shape[0])
    examples = sorted(member.examples, key=lambda one: one.example)
    made_by = how.method.model_dump(
        mode="json", include={"measurement", "targets", "masks", "backend", "k", "dtype", "stored"}
    )
    store = root / "features" / digest([member.record.digest, made_by, *float32_products().values()])
    return [parts(model, tokenizer, examples, queries, how.method, seed, store) for seed in how.method.seeds]


def _member_notes(members: Sequence[Trained]) -> list[str]:
    notes = [f"Scores are averaged over {len(members)} checkpoints."] if len(members) > 1 else []
    if members[0].record.inputs["placebo"]:
        notes.append("The training text is a placebo: its tokens are permuted across all sentences.")
    return notes
