"""`valueshift compare`: two probe runs side by side, as a comparison record.

Two models under one wording give shifts, and what moved with them (`movement`). One model under two wordings of the same
items gives the agreement of the wordings, and the ceiling that it sets for alignment.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from ..analysis.profiles import default_selection, profile
from ..analysis.readings import read
from ..analysis.shifts import common, flipped, unchanged
from ..analysis.wordings import noise_ceiling
from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.probes import REGISTRIES, Item, probe_set
from ..core.records import write_record
from ..core.surveys import SurveyTruth, has_survey_truth, survey_truth
from .alignment import alignment_note, stated_countries, survey_identity
from .movement import movement, movement_metrics
from .results import ProbeRun
from .wording import with_statements


def compare(base: ProbeRun, tuned: ProbeRun, root: Path) -> tuple[Path, dict[str, pd.DataFrame]]:
    """Write the comparison record of two probe runs; return its folder and tables.

    Tables: `kept` (same answers by language), `kept_cat` (by category), `flipped` (the shifts, with what each side says), for
    two wordings `ceiling`, and those of `movement.movement`. Answers are read as the runs' records are, as `sum` where the two
    differ. What could not be compared is among the record's notes.

    Raises:
        ValueshiftError: the runs share no language, asked different items, or differ in both model and wording.
    """
    began = time.monotonic()
    items, selection = _items(base), default_selection(_items(base))
    reading, mixed = _reading(base, tuned)
    before, after = _read_alike(base, tuned)
    truth = _truth(base)
    tables = {
        "kept": unchanged(before, after, items, by="language", selection=selection),
        "kept_cat": unchanged(before, after, items, by="category", selection=selection),
        "flipped": with_statements(flipped(before, after, items, selection), base, tuned),
    }
    if base.inputs["probe_set"] != tuned.inputs["probe_set"]:
        tables["ceiling"] = noise_ceiling(profile(before), profile(after), items, selection)
    countries = stated_countries(tuned.settings) | stated_countries(base.settings)
    moved, not_made = movement(before, after, items, selection, truth, countries)
    notes = [*mixed, *_left_out(before, after), *not_made]
    if truth is None:
        notes.append(f"There is no survey truth for {base.inputs['probe_set']}: changes in alignment are not computed.")
    elif "alignment_change" in moved:
        notes.append(alignment_note(moved["alignment_change"], truth))
    overall = unchanged(before, after, items, by=(), selection=selection).iloc[0]
    metrics = _by_member("kept", tables["kept"], "language") | _by_member("kept_cat", tables["kept_cat"], "category")
    if pd.notna(overall["unchanged"]):
        metrics["kept"] = float(overall["unchanged"])
        metrics["shifted"] = float(round(overall["n"] * (1 - overall["unchanged"])))
    survey = survey_identity(truth) if truth else None
    folder = write_record(
        root,
        "comparison",
        {
            "base": base.inputs["model"],
            "tuned": [tuned.inputs["model"]],
            "probe_set": base.inputs["probe_set"],
            "selection": selection,
            "runs": {"base": digest(base.inputs), "tuned": digest(tuned.inputs)},
            "survey": survey["digest"] if survey else None,
            **({} if reading == "sum" else {"reading": reading}),
            **({"countries": countries} if countries else {}),
        },
        tables | moved,
        settings={"base": base.name, "tuned": [tuned.name], "survey": survey},
        metrics=metrics | movement_metrics(moved),
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )
    return folder, tables | moved


def kept_metrics(base: ProbeRun, tuned: ProbeRun) -> dict[str, float]:
    """`kept/<language>`: the share of unchanged answers per language [paper 5.2.1] between two runs of one wording."""
    items = _items(base)
    before, after = _read_alike(base, tuned)
    return _by_member("kept", unchanged(before, after, items, selection=default_selection(items)), "language")


def _read_alike(base: ProbeRun, tuned: ProbeRun) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both scores as `_reading` has them read."""
    reading, _ = _reading(base, tuned)
    before, after = (read(scores, reading, _items(base)) for scores in _joinable(base, tuned))
    return before, after


def _joinable(base: ProbeRun, tuned: ProbeRun) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both scores, under one name where two wordings of the same items are compared."""
    names = [str(run.inputs["probe_set"]) for run in (base, tuned)]
    if names[0] == names[1]:
        return base.scores, tuned.scores
    registries = {REGISTRIES.get(name, name) for name in names}
    if len(registries) > 1:
        raise ValueshiftError(f"{names[0]} and {names[1]} ask different questions; compare runs of one survey")
    if base.inputs["model"] != tuned.inputs["model"]:
        raise ValueshiftError(
            f"the runs differ in model and in wording ({names[0]}, {names[1]}); probe both models with one, or compare "
            "the two wordings on one model"
        )
    (registry,) = registries
    return base.scores.assign(probe_set=registry), tuned.scores.assign(probe_set=registry)


def _reading(base: ProbeRun, tuned: ProbeRun) -> tuple[str, list[str]]:
    """The reading of both runs, the paper's where they differ, and what is to be said of that."""
    first, second = (str(run.settings.get("reading", "sum")) for run in (base, tuned))
    if first == second:
        return first, [] if first == "sum" else [f"Answers and p_first are read as `{first}`."]
    return "sum", [f"The runs are read as {first} and {second}; here both are read as sum."]


def _left_out(before: pd.DataFrame, after: pd.DataFrame) -> list[str]:
    """What only one of the two was asked, in sentences."""
    notes = []
    sides = {"base": before["language"].unique(), "tuned": after["language"].unique()}
    for side, other in (("base", "tuned"), ("tuned", "base")):
        if alone := [language for language in sides[side] if language not in sides[other]]:
            notes.append(f"Only the {side} run was asked in {', '.join(alone)}; there is nothing to compare.")
    rows = common(before, after)
    shared = rows["language"].isin(sides["base"]) & rows["language"].isin(sides["tuned"])
    if dropped := int((shared & (rows["in"] != "both")).sum()):
        notes.append(f"{dropped} questions of shared languages were asked in one run only and are left out.")
    return notes


def _truth(run: ProbeRun) -> SurveyTruth | None:
    name = str(run.inputs["probe_set"])
    return survey_truth(name) if has_survey_truth(name) else None


def _items(run: ProbeRun) -> Mapping[str, Item]:
    return probe_set(str(run.inputs["probe_set"])).items


def _by_member(family: str, table: pd.DataFrame, column: str) -> dict[str, float]:
    known = table.dropna(subset=["unchanged"])
    return {f"{family}/{name}": float(value) for name, value in zip(known[column], known["unchanged"], strict=True)}
