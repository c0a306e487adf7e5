"""The run records of a harness run: all that was answered is written first, and compared after.

What fails is kept as an outcome; nothing here takes results from whoever called the harness.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..core.errors import ValueshiftError
from ..core.outcomes import Outcomes
from .comparison import compare, kept_metrics
from .probe_record import write_probe_record
from .results import ProbeRun, in_languages, read_probe_runs, runs_from_samples, single_run

Samples = Mapping[str, Sequence[Mapping[str, Any]]]


def write_records(
    root: Path, results: Mapping[str, Any], samples: Samples, base: Path | None, outcomes: Outcomes
) -> list[Path]:
    """Write a probe record for each probe set that was answered, then a comparison of each with the base.

    Args:
        root: the runs root.
        results: of `simple_evaluate`.
        samples: those of our tasks, by task.
        base: where the runs to compare with are; None for no comparison.
        outcomes: gets what failed.

    Returns:
        The records' folders, those of probe runs first.
    """
    by_set: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in (row for rows in samples.values() for row in rows if "unanswered" not in row["doc"]):
        by_set[row["doc"]["probe_set"]].append(row)
    notes = _unanswered(results, samples)
    config = results["config"]
    if began := results.get("date"):
        config = {**config, "total_evaluation_time_seconds": time.time() - began}
    bases: list[ProbeRun] = []
    if base is not None:
        with outcomes.attempt("there is no comparison"):
            bases = read_probe_runs(base)
    written: list[tuple[ProbeRun, Path]] = []
    for name, rows in by_set.items():
        with outcomes.attempt(f"there is no record of {name}"):
            ignored = any(row["doc"].get("template") == "ignored" for row in rows)
            for run in map(_answered, runs_from_samples(config, rows, "this run")):
                if run is not None:
                    if ignored:
                        run = replace(run, settings={**run.settings, "template": "ignored"})
                    kept = _kept(run, bases, base, outcomes)
                    write = partial(write_probe_record, root, run, extra_metrics=kept, notes=notes[name])
                    record = outcomes.insist(write)
                    written.append((run, record))
    records = [record for _, record in written]
    for run, record in written if bases else ():
        if not outcomes.stopped:
            with outcomes.attempt(f"{record} is not compared (later: valueshift compare {base} {record})"):
                records.append(compare(_base_of(run, bases, base), run, root)[0])
    return records


def _kept(run: ProbeRun, bases: list[ProbeRun], path: Path | None, outcomes: Outcomes) -> dict[str, float]:
    """What the record of a run says of its base; nothing where that fails, which the comparison then says."""
    kept: dict[str, float] = {}
    tried = Outcomes()
    with tried.attempt("kept"):
        kept = kept_metrics(_base_of(run, bases, path), run) if bases else {}
    outcomes.stopped |= tried.stopped
    return kept


def _base_of(run: ProbeRun, bases: list[ProbeRun], path: Path | None) -> ProbeRun:
    assert path is not None
    return single_run(bases, path, str(run.inputs["probe_set"]))


def _answered(run: ProbeRun) -> ProbeRun | None:
    """The languages of a run with an answer to any question; None where there is no such language."""
    answered = run.scores["p_first"].notna().groupby(run.scores["language"], sort=False).any()
    codes = [str(code) for code, any_answer in answered.items() if any_answer]
    return in_languages(run, ",".join(codes)) if codes else None


def _unanswered(results: Mapping[str, Any], samples: Samples) -> dict[str, list[str]]:
    """By probe set, what a reader must know of its tasks that have no number."""
    notes: dict[str, list[str]] = defaultdict(list)
    for config in (results["configs"][name] for name in samples if name in results["configs"]):
        if reason := (config.get("metadata") or {}).get("unanswered"):
            task = config["dataset_kwargs"]
            notes[task["probe_set"]].append(f"No answers in {task['language']}: {reason}")
    return notes


def base_faults(path: Path, tasks: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What keeps tasks from being compared with the runs at a path: probe set to reason.

    Args:
        path: `VALUESHIFT_BASE`.
        tasks: `dataset_kwargs` of those that are going to be asked.
    """
    asked: dict[str, set[str]] = defaultdict(set)
    for task in tasks:
        asked[task["probe_set"]].add(task["language"])
    try:
        bases = read_probe_runs(path)
    except ValueshiftError as error:
        return dict.fromkeys(asked, f"VALUESHIFT_BASE: {error}")
    faults = {}
    for name, languages in asked.items():
        try:
            there = single_run(bases, path, name).inputs["probes"]
        except ValueshiftError as error:
            faults[name] = f"VALUESHIFT_BASE: {error}"
            continue
        if not languages & set(there):
            faults[name] = (
                f"VALUESHIFT_BASE: {path} was asked {name} in {', '.join(there)}, not in {', '.join(sorted(languages))}; give a "
                "run in one of these languages, or unset it"
            )
    return faults
