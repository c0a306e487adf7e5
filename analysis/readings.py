"""Readings: what the raw log-probabilities of two options are taken to say [paper 3.4].

Every reading is derived from the raw columns of a table of scores and gives a log-odds of the first option; its softmax
is `p_first` and its sign the answer. A reading's `repr` is its name, so that it can stand in a metric's name.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit, logsumexp

from ..core.errors import ValueshiftError
from ..core.probes import Item, probe_set
from . import intervals
from .answers import checked
from .bootstrap import batteries
from .pairs import MINIMUM
from .profiles import Selection, selected

SMALLEST_BATCH = 5
"""Fewer questions than this with one pair of options do not say which option a model prefers whatever is asked."""

LogOdds = Callable[[pd.DataFrame, Mapping[str, Item]], "pd.Series[float]"]


@dataclass(frozen=True, repr=False)
class Reading:
    """One way to compare two options: its name, formula (s is an option's score), source, and the raw columns it needs."""

    name: str
    formula: str
    citation: str
    needs: tuple[str, ...]
    log_odds: LogOdds = field(compare=False)

    def __repr__(self) -> str:
        return self.name


def _difference(scores: pd.DataFrame, column: str) -> "pd.Series[float]":
    return scores[f"{column}_first"].astype("float64") - scores[f"{column}_second"].astype("float64")


def _sum(scores: pd.DataFrame, items: Mapping[str, Item]) -> "pd.Series[float]":
    return _difference(scores, "logprob")


def _per(unit: str) -> LogOdds:
    """Log-probability per token or byte."""

    def log_odds(scores: pd.DataFrame, items: Mapping[str, Item]) -> "pd.Series[float]":
        first, second = (
            scores[f"logprob_{pole}"].astype("float64") / scores[f"{unit}_{pole}"].astype("float64")
            for pole in ("first", "second")
        )
        return first - second

    return log_odds


def _closed(scores: pd.DataFrame, items: Mapping[str, Item]) -> "pd.Series[float]":
    return _difference(scores, "logprob") + _difference(scores, "closing")


def _dcpmi(scores: pd.DataFrame, items: Mapping[str, Item]) -> "pd.Series[float]":
    return _difference(scores, "logprob") - _difference(scores, "neutral")


def _calibrated(scores: pd.DataFrame, items: Mapping[str, Item]) -> "pd.Series[float]":
    odds = _difference(scores, "logprob")
    battery = pd.Series(batteries(scores["question"].tolist(), items), index=scores.index)

    def prior(batch: "pd.Series[float]") -> float:
        values = batch.dropna().to_numpy(dtype=np.float64)
        if len(values) < SMALLEST_BATCH:
            return float("nan")
        return float(logsumexp(-np.logaddexp(0, -values)) - logsumexp(-np.logaddexp(0, values)))

    return odds - odds.groupby([scores["language"], battery]).transform(prior)


_LOGPROBS = ("logprob_first", "logprob_second")

READINGS: dict[str, Reading] = {
    reading.name: reading
    for reading in (
        Reading("sum", "s = sum of log p(token)", "paper, 3.4", _LOGPROBS, _sum),
        Reading(
            "token_mean",
            "s = sum of log p(token) / tokens",
            "Brown et al. 2020, Language Models are Few-Shot Learners, 2.4",
            (*_LOGPROBS, "tokens_first", "tokens_second"),
            _per("tokens"),
        ),
        Reading(
            "byte_mean",
            "s = sum of log p(token) / UTF-8 bytes",
            "Gao 2021, Multiple Choice Normalization in LM Evaluation",
            (*_LOGPROBS, "bytes_first", "bytes_second"),
            _per("bytes"),
        ),
        Reading(
            "closed",
            "s = sum of log p(token) + log p(next sentinel | option)",
            "[paper 3.4]; the span ends where the option ends",
            (*_LOGPROBS, "closing_first", "closing_second"),
            _closed,
        ),
        Reading(
            "dcpmi",
            "s = sum of log p(token) - the same under the neutral stem",
            "Holtzman et al. 2021, Surface Form Competition (domain-conditional PMI)",
            (*_LOGPROBS, "neutral_first", "neutral_second"),
            _dcpmi,
        ),
        Reading(
            "calibrated",
            "s = log p(option) - log mean p(option) over the questions of its battery in that language",
            "Zhou et al. 2024, Batch Calibration",
            _LOGPROBS,
            _calibrated,
        ),
    )
}


def reading_named(name: str) -> Reading:
    """The reading of a name.

    Raises:
        ValueshiftError: there is none.
    """
    if name not in READINGS:
        raise ValueshiftError(f"unknown reading '{name}'; there are {', '.join(READINGS)}")
    return READINGS[name]


def read(scores: pd.DataFrame, reading: str, items: Mapping[str, Item]) -> pd.DataFrame:
    """The scores under another reading: `p_first` and `answer` computed anew, rows it cannot read left out.

    Args:
        scores: of one model and probe set, with the raw columns.
        reading: name in `READINGS`.
        items: the registry of the probe set.

    Raises:
        ValueshiftError: there is no such reading, or the table has nothing in a column that it needs.
    """
    one = reading_named(reading)
    kept = checked(scores, one.needs)
    if absent := [name for name in one.needs if kept[name].isna().all()]:
        raise ValueshiftError(f"reading {reading} needs {absent[0]}, which was not asked for; probe again with it")
    odds = one.log_odds(kept, items).dropna()
    result = kept.loc[odds.index].copy()
    result["p_first"] = expit(odds.to_numpy(dtype=np.float64))
    result["answer"] = pd.Series(np.select([odds > 0, odds < 0], ["first", "second"], ""), odds.index, "string")
    result["answer"] = result["answer"].replace("", pd.NA)
    return result


def as_recorded(scores: pd.DataFrame, settings: Mapping[str, object]) -> pd.DataFrame:
    """The scores of one probe set as their record reads them: its metrics, its profile and the pages about it are made of this.

    Args:
        scores: the record's table.
        settings: the record's; without a `reading` it is the paper's.

    Raises:
        ValueshiftError: as `read`; the registry of the probe set is needed and not on this machine.
    """
    reading = str(settings.get("reading", "sum"))
    of_items = reading_named(reading).log_odds is _calibrated
    return read(scores, reading, probe_set(str(scores["probe_set"].iloc[0])).items if of_items else {})


def available(scores: pd.DataFrame) -> list[str]:
    """The readings whose raw columns the table has."""
    return [
        name
        for name, reading in READINGS.items()
        if all(column in scores.columns and scores[column].notna().any() for column in reading.needs)
    ]


def readings_agree(
    scores: pd.DataFrame,
    items: Mapping[str, Item],
    readings: Sequence[str] | None = None,
    selection: Selection = "paper",
) -> pd.DataFrame:
    """Share of questions on which readings give the same answer, per language.

    Args:
        scores: of one model and probe set.
        items: the registry of the probe set.
        readings: names, two or more; all that the table allows by default.
        selection: the paper's questions or all.

    Returns:
        Per language one row `all` (every reading gives one answer) and one a reading after the first (it and the first
        do): language, reading, agree, low, high (over batteries), n (questions that all could read, without a tie),
        dropped, reason.

    Raises:
        ValueshiftError: fewer than two readings, or one that the table does not allow.
    """
    names = list(readings) if readings is not None else available(scores)
    if len(names) < 2:
        raise ValueshiftError("agreement is between readings; probe with more raw columns or name two readings")
    keys = ["language", "question"]
    answers = pd.concat({name: read(scores, name, items).set_index(keys)["answer"] for name in names}, axis=1)
    asked = scores[scores["question"].isin(selected(items, selection))]
    rows = []
    for language, questions in asked.groupby("language", sort=False)["question"]:
        chosen = answers.reindex(pd.MultiIndex.from_product([[language], questions], names=keys)).dropna()
        first = (chosen.to_numpy() == "first").astype(np.float64)
        groups = batteries(chosen.index.get_level_values("question").tolist(), items)
        alike = {"all": first.mean(axis=1) % 1 == 0} | {
            name: first[:, place] == first[:, 0] for place, name in enumerate(names) if place
        }
        for name, hits in alike.items():
            row: dict[str, object] = {
                "language": language,
                "reading": name,
                "agree": np.nan,
                "low": np.nan,
                "high": np.nan,
            }
            if enough := len(hits) >= MINIMUM:
                estimate = intervals.share(hits, groups)
                row |= {"agree": estimate.value, "low": estimate.low, "high": estimate.high}
            reason = "" if enough else f"fewer than {MINIMUM} common questions"
            rows.append(row | {"n": len(hits), "dropped": len(questions) - len(hits), "reason": reason})
    return pd.DataFrame(rows)
