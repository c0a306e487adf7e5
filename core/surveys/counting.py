"""One survey file as counts of answers by country and variable; rows that cannot be trusted are refused by name."""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from .. import limits
from ..errors import ValueshiftError
from ..shown import piece
from .countries import country_code
from .labels import normalised, number
from .tables import SurveyFile, survey_file

WEIGHT = "W_WEIGHT"
_COUNTRY = ("B_COUNTRY_ALPHA", "B_COUNTRY")
_RESPONDENT = "D_INTERVIEW"
_WAVE = "A_WAVE"
_YEAR = "A_YEAR"
_YEARS = range(2017, 2024)  # fieldwork of wave 7, India's in 2023 included

Problems = Counter[tuple[str, str]]
"""Number of rows by column and by what is wrong with them."""


@dataclass(frozen=True)
class Counts:
    """What one file holds, nothing decoded yet."""

    file: str
    weighted: bool
    respondents: Counter[str]
    """Rows by country (alpha-3)."""
    answers: dict[tuple[str, str, str], npt.NDArray[np.float64]]
    """By country, variable and answer as written: respondents, sum of weights, sum of squared weights."""
    absent: tuple[str, ...]
    """Variables asked for that the file does not have."""
    notes: tuple[str, ...]


def refuse(file: str, problems: Problems, remedy: str) -> None:
    """Raise a `ValueshiftError` that names file, column and count of the most frequent problems, if there are any."""
    if problems:
        named = "; ".join(f"column {column}: {count} rows {what}" for (column, what), count in problems.most_common(4))
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise ValueshiftError(f"{file}, {named}{more}: {remedy}")


def count(path: Path, variables: Sequence[str], *, weighted: bool = True) -> Counts:
    """Count the answers to `variables` in one file, a block of rows at a time.

    Raises:
        ValueshiftError: the file is no survey or of another wave; rows have an unknown country, a weight that is
            negative, empty or no number, or repeat a respondent.
    """
    with survey_file(path) as file:
        present = [variable for variable in variables if variable in file.variables]
        country = _country_column(file, present)
        weight = WEIGHT if weighted and WEIGHT in file.variables else None
        when = next((column for column in (_WAVE, _YEAR) if column in file.variables), None)
        respondent = _RESPONDENT if _RESPONDENT in file.variables else None
        columns = [column for column in (country, weight, when, respondent, *present) if column]

        problems: Problems = Counter()
        respondents: Counter[str] = Counter()
        masses: dict[str, float] = defaultdict(float)
        seen: Counter[tuple[str, str]] = Counter()
        answers: dict[tuple[str, str, str], npt.NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))
        converted = 0
        with tqdm(desc=file.name, unit=" respondents", disable=None) as progress:
            for block in file.blocks(columns):
                known, places, where = _countries(block[country], problems)
                block = block[known]
                where = where[known]
                weights = np.ones(len(block))
                if weight:
                    weights, texts = _weights(block[weight], file.typed, problems)
                    converted += texts
                if when:
                    _check_wave(block[when], problems)
                if respondent:
                    seen.update(zip(places[where], _texts(block[respondent]), strict=True))
                respondents.update(places[where])
                for place, mass in zip(places, np.bincount(where, weights, len(places)), strict=True):
                    masses[place] += mass
                for variable in present:
                    _add(answers, variable, block[variable], places, where, weights)
                progress.update(len(block))

        for place, rows in respondents.items():
            if not masses[place]:
                problems[WEIGHT, f"of {place} weigh nothing, which are all of it"] += rows
        _check_repeats(seen, problems)
        remedy = "correct or remove these rows, or download the file again"
        if any(column == WEIGHT for column, _ in problems):
            remedy += "; an unweighted import does without the weights"
        refuse(file.name, problems, remedy)
        if not respondents:
            raise ValueshiftError(f"{file.name} has a header and no rows; download it again")
        notes = _notes(file, variables, weight, weighted, converted, respondent)
        absent = tuple(variable for variable in variables if variable not in file.variables)
        return Counts(file.name, weight is not None, respondents, dict(answers), absent, notes)


def _country_column(file: SurveyFile, present: Sequence[str]) -> str:
    country = next((column for column in _COUNTRY if column in file.variables), None)
    if country and present:
        return country
    for pattern, kind in (
        (r"V\d+[A-Z]?", "names its variables V1, V2, ...: it is of wave 5 or 6"),
        (r"[A-H]\d{3}\w*", "names its variables A001, B001, ...: it is a time series or joint file"),
        (r"Q\d+P", "has the recoded variables Q1P, Q2P, ... only"),
    ):
        if not present and sum(bool(re.fullmatch(pattern, variable)) for variable in file.variables) >= 3:
            raise ValueshiftError(f"{file.name} {kind}; WVS wave 7 (Q1 to Q259) is needed")
    lacking = f"column {' or '.join(_COUNTRY)}" if present else "variable of the registry (Q1, Q2, ...)"
    raise ValueshiftError(f"{file.name} is no WVS wave 7 file: it has no {lacking}; give the file as it was downloaded")


def _text(value: object) -> str:
    """An answer as written: whole numbers without a fraction, nothing for None and NaN."""
    if isinstance(value, str):
        return value.strip()
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return ""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(int(value)) if isinstance(value, bool) else str(value)


def _texts(column: "pd.Series[str]") -> list[str]:
    codes, values = pd.factorize(column)
    texts = [*map(_text, values), ""]
    return [texts[code] for code in codes]


def _countries(
    column: "pd.Series[str]", problems: Problems
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.object_], npt.NDArray[np.intp]]:
    """Which rows have a known country; the countries found; the place of each row's country among them."""
    codes, values = pd.factorize(column)
    texts = [*map(_text, values), ""]
    found = [country_code(text) for text in texts]
    for code, rows in zip(*np.unique(codes, return_counts=True), strict=True):
        if found[code] is None:
            what = f"hold '{piece(texts[code])}', which is no country" if texts[code] else "are empty"
            problems[str(column.name), what] += int(rows)
    places, inverse = np.unique(np.array([place or "" for place in found], dtype=object), return_inverse=True)
    where = inverse[codes]
    return places[where] != "", places, where


def _weights(column: "pd.Series[str]", typed: bool, problems: Problems) -> tuple[npt.NDArray[np.float64], int]:
    """The weights, and how many had to be converted from text: decimal commas, or the label of weight 1."""
    converted = 0

    def parsed(value: object) -> float:
        nonlocal converted
        if not isinstance(value, str):
            known = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max  # one of Excel may be larger
            return float(value) if known else np.nan  # type: ignore[arg-type]
        if normalised(value) == "no weighting":
            converted += 1
            return 1.0
        found = number(value)
        converted += found is not None and (typed or "," in value)
        return np.nan if found is None else found

    weights = np.array([parsed(value) for value in column], dtype=np.float64)
    for wrong, what in (
        (~np.isfinite(weights), "are empty or no number"),
        (weights < 0, "are negative"),
        (np.isfinite(weights) & (weights > limits.WEIGHT), f"are larger than {limits.WEIGHT:,.0f}"),
    ):
        if rows := int(wrong.sum()):
            example = piece(_text(column.to_numpy()[wrong][0]))
            problems[str(column.name), f"{what}{f', such as {example!r}' if example else ''}"] += rows
    return np.where(np.isfinite(weights) & (weights <= limits.WEIGHT), weights, 0.0), converted


def _check_wave(column: "pd.Series[str]", problems: Problems) -> None:
    for text, rows in Counter(_texts(column)).items():
        value = number(text)
        if column.name == _WAVE:
            right = value == 7 or "wave 7" in normalised(text)
        else:
            right = value is None or value < 0 or value in _YEARS  # a year may be missing
        if not right:
            problems[str(column.name), f"hold '{piece(text)}', which is not of wave 7"] += rows


def _check_repeats(seen: Counter[tuple[str, str]], problems: Problems) -> None:
    repeated = {key: times - 1 for key, times in seen.items() if times > 1 and key[1]}
    if repeated:
        country, respondent = next(iter(repeated))
        problems[_RESPONDENT, f"repeat a respondent, such as {respondent} of {country}"] = sum(repeated.values())


def _add(
    answers: dict[tuple[str, str, str], npt.NDArray[np.float64]],
    variable: str,
    column: "pd.Series[str]",
    places: npt.NDArray[np.object_],
    where: npt.NDArray[np.intp],
    weights: npt.NDArray[np.float64],
) -> None:
    codes, values = pd.factorize(column)
    texts = ["", *map(_text, values)]  # code -1 is empty
    cells = where * len(texts) + codes + 1
    sums = np.stack([np.bincount(cells, weights=mass) for mass in (np.ones_like(weights), weights, weights**2)], axis=1)
    for cell in np.flatnonzero(sums[:, 0]):
        place, answer = divmod(cell, len(texts))
        answers[places[place], variable, texts[answer]] += sums[cell]


def _notes(
    file: SurveyFile,
    variables: Sequence[str],
    weight: str | None,
    weighted: bool,
    converted: int,
    respondent: str | None,
) -> tuple[str, ...]:
    notes = []
    if other := [name for name in file.variables if re.fullmatch(r"Q\d\w*", name) and name not in variables]:
        notes.append(f"{file.name}: {len(other)} columns are no variables of the registry: {', '.join(other)}")
    if weighted and not weight:
        notes.append(f"{file.name} has no column {WEIGHT}: its shares are unweighted")
    if converted:
        notes.append(f"{file.name}, column {WEIGHT}: {converted} weights are text and were read as numbers")
    if not respondent:
        notes.append(f"{file.name} has no column {_RESPONDENT}: repeated respondents could not be looked for")
    return tuple(notes)
