"""The run record of a probe run, with what its answers say: summary, alignment with the survey, agreement of readings."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from ..analysis.profiles import default_selection, summary_metrics
from ..analysis.readings import as_recorded, available, readings_agree
from ..core.errors import ValueshiftError
from ..core.probes import probe_set
from ..core.records import read_record, read_scores, record_folder, write_record
from ..core.surveys import has_survey_truth, survey_truth
from .alignment import Countries, alignment_metrics, alignment_note, survey_alignment, survey_identity
from .results import ProbeRun


def write_probe_record(
    root: Path,
    run: ProbeRun,
    *,
    reading: str = "sum",
    countries: Countries | None = None,
    extra_metrics: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Path:
    """Write the run record of a probe run and return its folder.

    Tables: `scores` (raw, all readings can be made of it), `alignment` (where there is survey truth), `readings` (agreement
    between the readings that were asked for). What is missing of these is among the record's notes.

    Raises:
        ValueshiftError: the reading is unknown or its columns were not asked for; the record cannot be written.
    """
    name = str(run.inputs["probe_set"])
    items = probe_set(name).items
    settings = {**run.settings, "reading": reading}
    scores = as_recorded(run.scores, settings)
    tables = {"scores": run.scores}
    metrics = summary_metrics(scores)
    if countries:  # for whoever compares this run with another
        settings["countries"] = [f"{code}={'+'.join(chosen)}" for code, chosen in countries.items()]
    said = [f"Answers and p_first are read as `{reading}`.", *_without_answer(run.scores), *notes]
    if has_survey_truth(name):
        try:
            truth = survey_truth(name)
            tables["alignment"] = survey_alignment(scores, truth, items, countries)
        except ValueshiftError as error:  # no reason to lose the answers
            said.append(f"There is no alignment with the survey: {error}.")
        else:
            metrics |= alignment_metrics(tables["alignment"])
            settings["survey"] = survey_identity(truth)
            said.append(alignment_note(tables["alignment"], truth))
    if len(available(run.scores)) > 1:
        tables["readings"] = readings_agree(run.scores, items, selection=default_selection(items))
        metrics |= _agreement_metrics(tables["readings"])
    return write_record(
        root,
        "probe",
        run.inputs,
        tables,
        settings=settings,
        metrics={**metrics, **(extra_metrics or {})},
        notes=tuple(said),
        seconds=run.seconds,
    )


def _without_answer(scores: pd.DataFrame) -> list[str]:
    """Which questions came out NaN, by language."""
    missing = scores[scores["p_first"].isna()].groupby("language", sort=False)["question"]
    return [
        f"The model gives NaN for {len(questions)} questions in {code}, which count as unanswered: {', '.join(questions)}."
        for code, questions in missing
    ]


def kept_probe_record(root: Path, run: ProbeRun) -> Path:
    """The run record of a probe run: the one that is there, whatever reading it was written with, else a new one.

    Raises:
        ValueshiftError: as `write_probe_record`.
    """
    folder = record_folder(root, "probe", run.inputs)
    try:
        read_scores(folder, read_record(folder, "probe"))
    except ValueshiftError:  # there is none, or none that a report could use
        return write_probe_record(root, run)
    return folder


def _agreement_metrics(table: pd.DataFrame) -> dict[str, float]:
    """`readings_agree/<language>`: the share of questions on which all readings give the same answer."""
    known = table[(table["reading"] == "all") & table["agree"].notna()]
    return {
        f"readings_agree/{code}": float(share) for code, share in zip(known["language"], known["agree"], strict=True)
    }
