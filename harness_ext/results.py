"""From what lm-eval returns or saves to the scores table and run records."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.languages import parse_languages
from ..core.limits import WORK_SECONDS
from ..core.probes import Probe, probes_digest
from ..core.records import find_records, read_record, read_scores
from ..core.scores import answer, p_first, scores_frame
from ..core.shown import shown
from .formats import Format, scored_texts
from .samples import Sample, read_sample
from .saved import read_saved, results_files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProbeRun:
    """One model's answers to one probe set, wherever they were stored."""

    name: str
    """The model as its user named it."""
    inputs: dict[str, Any]
    settings: dict[str, Any]
    scores: pd.DataFrame
    source: Path | None = None
    """Where it was read."""
    asked: Sequence[Probe] | None = None
    """What was asked, in its wording, where the source has it; a record has its digest."""
    seconds: float | None = None
    """How long it took to ask, where that is known."""


def probe_inputs(
    model: str, probe_set: str, probes: Mapping[str, Sequence[Probe]], format: str, dtype: str
) -> dict[str, Any]:
    """What determines the scores of a probe run, whoever computed them.

    Args:
        model: content digest of the checkpoint.
        probe_set: its name.
        probes: the probes that were asked, by language; their wording enters by digest.
        format: how they were put.
        dtype: of the weights.
    """
    return {
        "model": model,
        "probe_set": probe_set,
        "probes": {language: probes_digest(asked) for language, asked in probes.items()},
        "format": format,
        "dtype": dtype.removeprefix("torch."),
    }


def score_row(
    probe: Probe, format: Format, logprob_first: float, logprob_second: float, **columns: float | None
) -> dict[str, object]:
    """One row of the scores table; `columns` are its optional raw columns. Lengths are of what was scored."""
    first, second = scored_texts(probe, format)
    return {
        "probe_set": probe.probe_set,
        "language": probe.language,
        "question": probe.question,
        "category": probe.category,
        "logprob_first": logprob_first,
        "logprob_second": logprob_second,
        "bytes_first": len(first.encode()),
        "bytes_second": len(second.encode()),
        "p_first": p_first(logprob_first, logprob_second),
        "answer": answer(logprob_first, logprob_second),
        **columns,
    }


def runs_from_samples(config: Mapping[str, Any], samples: Iterable[Any], where: str) -> list[ProbeRun]:
    """The probe runs in samples of our tasks: one per probe set, model and format.

    Args:
        config: `config` of the harness's results, with `chat_template` and `system_instruction` where there were any.
        samples: sample dictionaries as in memory or as saved.
        where: names the source in errors.

    Raises:
        ValueshiftError: a sample is not of a cloze task, or a question has two samples that differ.
    """
    return _runs(config, [read_sample(one, f"{where}, sample {place}") for place, one in enumerate(samples)], where)


def _runs(
    config: Mapping[str, Any], samples: Sequence[Sample], where: str, source: Path | None = None
) -> list[ProbeRun]:
    found: dict[tuple[str, str, Format], dict[tuple[str, str], Sample]] = defaultdict(dict)
    for sample in sorted(samples, key=lambda one: one.doc_id):  # several processes leave theirs one after another
        doc = sample.doc
        asked = found[doc.probe_set, doc.model_digest, doc.format]
        kept = asked.setdefault((doc.language, doc.question), sample)
        if repr((kept.doc, kept.resps)) != repr((doc, sample.resps)):  # NaN equals itself in writing alone
            raise ValueshiftError(
                f"{where} has two samples of question {doc.question} in {doc.language} of {doc.probe_set}, which differ; "
                "run its tasks in calls of their own"
            )
    settings = _settings(config, samples)
    dtype = str(config.get("model_dtype", "unknown"))
    runs = []
    for (probe_set, model, format), asked in found.items():
        by_language: dict[str, list[Sample]] = defaultdict(list)
        for sample in asked.values():
            by_language[sample.doc.language].append(sample)
        probes = {language: [sample.probe for sample in group] for language, group in by_language.items()}
        rows = [_row(sample) for group in by_language.values() for sample in group]
        inputs = probe_inputs(model, probe_set, probes, format, dtype)
        wording = [probe for group in probes.values() for probe in group]
        runs.append(
            ProbeRun(settings["model"], inputs, settings, scores_frame(rows), source, wording, _seconds(config))
        )
    return runs


def _row(sample: Sample) -> dict[str, object]:
    doc = sample.doc
    return score_row(
        sample.probe, doc.format, *sample.logprobs, tokens_first=doc.tokens_first, tokens_second=doc.tokens_second
    )


def _settings(config: Mapping[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """What a run of the harness used besides its inputs, as the record keeps it."""
    used = {name: config.get(name) for name in ("batch_size", "device", "limit")}
    settings = {"model": _model_name(config), "engine": f"lm-eval {config.get('model')}"} | {
        name: value if isinstance(value, int | float | str | None) else str(value) for name, value in used.items()
    }
    if config.get("chat_template") or config.get("system_instruction") or any(one.doc.template for one in samples):
        settings["template"] = "ignored"
    return settings


def _seconds(config: Mapping[str, Any]) -> float | None:
    """What the harness says that its evaluation took."""
    try:
        stated = float(config["total_evaluation_time_seconds"])
    except (KeyError, TypeError, ValueError):
        return None
    return stated if 0 <= stated < WORK_SECONDS else None


def _model_name(config: Mapping[str, Any]) -> str:
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        from lm_eval.utils import simple_parse_args_string

        arguments = simple_parse_args_string(arguments)
    if not isinstance(arguments, Mapping):
        arguments = {}
    named = [arguments[key] for key in ("peft", "pretrained", "model") if arguments.get(key)]
    return str(named[0] if named else config.get("model"))


def read_probe_runs(path: Path) -> list[ProbeRun]:
    """The probe runs at a path: a probe record, or what `lm_eval --output_path PATH --log_samples` wrote.

    What is of other suites is passed over, what is damaged is left out and said in the log as long as there is something
    else; of runs that were done again, the newest is taken.

    Args:
        path: a record's folder; a results file, a folder of them, or the PATH that lm_eval was given.

    Raises:
        ValueshiftError: there is neither, or none of it is whole; says why.
    """
    if (path / "record.json").is_file():
        return [_recorded_run(path)]
    files = results_files(path)
    if not files:
        beside = ", ".join(folder.name for folder in find_records(path, "probe")) if path.is_dir() else ""
        results = f"a folder that holds record.json, or what `lm_eval --output_path {path} --log_samples` writes"
        wanted = f"one of the records in it: {beside}" if beside else results
        raise ValueshiftError(f"{path} is neither a run record nor an lm-eval results folder; give {wanted}")
    runs: list[ProbeRun] = []
    faults = []
    for file in files:
        try:
            saved = read_saved(file)
            runs += _runs(saved.config, saved.samples, str(file), file)
            faults += saved.left_out
        except ValueshiftError as error:
            faults.append(str(error))
    if not runs:
        raise ValueshiftError("; ".join(faults))
    for fault in faults:
        log.warning("left out: %s", shown(fault))
    return _newest(runs)


def _recorded_run(path: Path) -> ProbeRun:
    record = read_record(path, "probe")
    name = str(record.settings.get("model", record.name))
    return ProbeRun(name, record.inputs, record.settings, read_scores(path, record), path)


def _newest(runs: Sequence[ProbeRun]) -> list[ProbeRun]:
    """Of runs of the same inputs the last one; which was taken is said in the log."""
    found: dict[str, list[ProbeRun]] = defaultdict(list)
    for run in runs:
        found[digest(run.inputs)].append(run)
    for same in found.values():
        if len(same) > 1:
            log.warning("%d results of the same run; the newest is taken: %s", len(same), shown(same[-1].source))
    return [same[-1] for same in found.values()]


def in_languages(run: ProbeRun, languages: str | None) -> ProbeRun:
    """The part of a run that was asked in these languages, comma-separated; all of it where None.

    Raises:
        ValueshiftError: the run was not asked in one of them.
    """
    if languages is None:
        return run
    chosen = parse_languages(languages, tuple(run.inputs["probes"]))
    by_language = ("probes", "neutral")
    inputs = {
        name: {code: value[code] for code in chosen} if name in by_language else value
        for name, value in run.inputs.items()
    }
    return replace(run, inputs=inputs, scores=run.scores[run.scores["language"].isin(chosen)].reset_index(drop=True))


def single_run(runs: list[ProbeRun], path: Path, probe_set_name: str | None = None) -> ProbeRun:
    """The one run at a path, chosen by probe set where a folder holds several.

    Raises:
        ValueshiftError: none or several match; lists what is there.
    """
    matching = [run for run in runs if probe_set_name in (None, run.inputs["probe_set"])]
    if len(matching) == 1:
        return matching[0]
    found = "; ".join(
        f"{run.source} ({run.name}, {run.inputs['probe_set']} in {', '.join(run.inputs['probes'])})" for run in runs
    )
    what = "of them" if matching else f"of probe set {probe_set_name}"
    raise ValueshiftError(f"{path} holds {len(runs)} probe runs, {len(matching)} {what}: give one of {found}")
