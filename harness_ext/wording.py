"""What was asked in its own words, wherever a probe run was read."""

import pandas as pd

from ..core.errors import ValueshiftError
from ..core.probes import Probe, probe_set, probes_digest
from .results import ProbeRun


def with_statements(shifts: pd.DataFrame, base: ProbeRun, tuned: ProbeRun) -> pd.DataFrame:
    """Shifts (of `analysis.shifts.flipped`) with `statement_base` and `statement_tuned`: the statement filled with each answer.

    Missing where the wording that was asked is not on this machine.
    """
    return shifts.assign(
        **{f"statement_{side}": _statements(shifts, side, run) for side, run in (("base", base), ("tuned", tuned))}
    )


def _statements(shifts: pd.DataFrame, side: str, run: ProbeRun) -> "pd.Series[str]":
    asked = {
        (language, probe.question): probe
        for language in shifts["language"].unique()
        for probe in _asked(run, str(language))
    }
    rows = zip(shifts["language"], shifts["question"], shifts[f"answer_{side}"], strict=True)
    found = [
        probe.filled(answer) if (probe := asked.get((language, question))) else None
        for language, question, answer in rows
    ]
    return pd.Series(found, shifts.index, "string")


def _asked(run: ProbeRun, language: str) -> list[Probe]:
    """What a run asked in a language: its own probes, or those on this machine if they are of the same wording."""
    if run.asked is not None:
        return [probe for probe in run.asked if probe.language == language]
    questions = run.scores.loc[run.scores["language"] == language, "question"]
    try:
        here = {probe.question: probe for probe in probe_set(str(run.inputs["probe_set"])).probes(language)}
    except ValueshiftError:
        return []
    asked = [here[question] for question in questions if question in here]
    return asked if probes_digest(asked) == run.inputs["probes"].get(language) else []
