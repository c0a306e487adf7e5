"""Official survey files to shares of answers by country [paper 3.5]."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ..digests import file_sha256
from ..errors import ValueshiftError
from ..paths import TASKS
from ..probes import Item, read_items
from ..shown import piece, written_out
from .counting import WEIGHT, Counts, Problems, count, refuse
from .labels import Labels, labels

UNWEIGHTED = "none"
REGISTRY = TASKS / "wvs" / "items.csv"
TRUTH = TASKS / "wvs" / "truth"
SHARES_COLUMNS = ("country", "question", "code", "share", "n", "n_effective", "weight")
REPORT_COLUMNS = ("country", "question", "file", "respondents", "valid", "missing", "unknown", "status")


@dataclass(frozen=True)
class SurveyImport:
    """The shares of an imported survey, what was missing, and where they come from."""

    survey: str
    """Name of the survey, as in `Item.survey`."""
    shares: pd.DataFrame
    """One row per `country` (ISO 3166-1 alpha-3), `question` (survey variable), `code` and `weight` (`W_WEIGHT` or
    `none`): the `share` of the code among valid codes, in [0, 1]; `n` respondents who gave it and their Kish
    `n_effective`. Codes that nobody gave have no row."""
    report: pd.DataFrame
    """One row per country and variable of the registry: `respondents`, of whom `valid`, `missing` (negative codes,
    empty) and `unknown` (dropped on request); `status` is `answered`, `all missing` or `no column`."""
    files: Mapping[str, str]
    """Name of each file by its SHA-256."""
    notes: tuple[str, ...]
    """Sentences that a reader of the shares must know."""

    def summary(self) -> pd.DataFrame:
        """One row per country: file, respondents, weight, number of variables answered, and which were not."""
        weighted = set(self.shares.loc[self.shares["weight"] == WEIGHT, "country"])
        rows = []
        for country, group in self.report.groupby("country"):
            answered = group["status"] == "answered"
            rows.append(
                {
                    "country": country,
                    "file": group["file"].iloc[0],
                    "respondents": int(group["respondents"].iloc[0]),
                    "weight": WEIGHT if country in weighted else UNWEIGHTED,
                    "answered": int(answered.sum()),
                    "not_answered": " ".join(group.loc[~answered, "question"]),
                }
            )
        return pd.DataFrame(rows)


def import_survey(
    paths: Sequence[Path],
    items: Mapping[str, Item] | None = None,
    *,
    weighted: bool = True,
    unknown_codes: Literal["refuse", "drop"] = "refuse",
) -> SurveyImport:
    """Shares of valid codes per country and variable from WVS-7 files, pooled or of single countries.

    A code is valid when it is not negative and the registry knows it, at a pole, in the middle or as excluded; negative
    codes and empty fields leave the denominator. Weighted and unweighted shares are both kept; a file without weights
    gives only the unweighted ones. Memory is bounded by a block of rows, not by the file.

    Args:
        paths: CSV, Excel, SPSS, Stata or ZIP files; every country may be in one of them only.
        items: the registry by question; the packaged one by default.
        weighted: False ignores the weights of the files.
        unknown_codes: `drop` treats answers that the registry does not know as missing and counts them in the report.

    Raises:
        ValueshiftError: a file is no WVS-7 file, or has rows that cannot be trusted, named with column and count.
    """
    items = items or read_items(REGISTRY)
    if not paths:
        raise ValueshiftError("no survey file was given; give the WVS-7 files that you downloaded")
    codes = registry_codes(items)
    counted = [count(path, list(codes), weighted=weighted) for path in paths]
    _refuse_shared_countries(counted)

    decoded, notes = [], [note for counts in counted for note in counts.notes]
    for counts in counted:
        rows, problems = _decoded(counts, codes, labels(TRUTH / "labels.csv"))
        if unknown_codes == "refuse":
            refuse(counts.file, problems, "correct them, or import again with unknown codes dropped as missing")
        elif problems:
            notes.append(f"{counts.file}: {problems.total()} answers unknown to the registry were dropped as missing")
        decoded.append(rows)

    answers = pd.concat(decoded, ignore_index=True)
    if not (answers["kind"] == "valid").any():
        raise ValueshiftError(f"{counted[0].file} holds no valid answer to any question; download it again")
    report = _report(answers, counted, list(codes))
    if silent := _silent(report):
        notes.append(silent)
    return SurveyImport(
        survey=next(iter(items.values())).survey,
        shares=_shares(answers[answers["kind"] == "valid"], codes),
        report=report,
        files={file_sha256(path): written_out(path.name) for path in paths},
        notes=tuple(notes),
    )


def registry_codes(items: Mapping[str, Item]) -> dict[str, frozenset[int]]:
    """The codes that a registry knows, by survey variable, in registry order."""
    codes: dict[str, frozenset[int]] = {}
    for item in items.values():
        own = frozenset((*item.first_codes, *item.second_codes, *item.middle_codes, *item.excluded_codes))
        codes[item.variable] = codes.get(item.variable, frozenset()) | own
    return codes


def _refuse_shared_countries(counted: Sequence[Counts]) -> None:
    where: dict[str, str] = {}
    for counts in counted:
        for country in counts.respondents:
            if country in where:
                raise ValueshiftError(
                    f"{counts.file}: country {country} is also in {where[country]}; give each country's file once"
                )
            where[country] = counts.file


def _decoded(counts: Counts, codes: Mapping[str, frozenset[int]], labels: Labels) -> tuple[pd.DataFrame, Problems]:
    """Counts by code: country, question, code, kind (`valid`, `missing`, `unknown`), n, weight, squared weight."""
    problems: Problems = Counter()
    rows = []
    for (country, variable, answer), (n, weight, squared) in counts.answers.items():
        code = labels.code(variable, answer)
        if code is None or (code >= 0 and code not in codes[variable]):
            what = f"hold '{piece(answer)}', which is no label of its codes" if code is None else f"hold code {code}"
            problems[variable, f"{what} (known: {', '.join(map(str, sorted(codes[variable])))})"] += int(n)
            kind = "unknown"
        else:
            kind = "valid" if code >= 0 else "missing"
        rows.append((country, variable, -1 if code is None else code, kind, int(n), weight, squared, counts.weighted))
    columns = ["country", "question", "code", "kind", "n", "w", "w2", "weighted"]
    table = pd.DataFrame(rows, columns=columns)
    keys = ["country", "question", "code", "kind", "weighted"]
    return table.groupby(keys, as_index=False, sort=False)[["n", "w", "w2"]].sum(), problems


def _shares(answers: pd.DataFrame, codes: Mapping[str, frozenset[int]]) -> pd.DataFrame:
    plain = answers.assign(w=answers["n"].astype(float), w2=answers["n"].astype(float), weight=UNWEIGHTED)
    both = pd.concat([answers[answers["weighted"]].assign(weight=WEIGHT), plain], ignore_index=True)
    total = both.groupby(["weight", "country", "question"])["w"].transform("sum")
    both = both[total > 0].assign(share=both["w"] / total)
    # Kish: (sum of weights)^2 / sum of squared weights, over the respondents of this code; 0 when all weigh nothing.
    both["n_effective"] = (both["w"] ** 2 / both["w2"].where(both["w2"] > 0)).fillna(0.0)
    both["place"] = both["question"].map({variable: place for place, variable in enumerate(codes)})
    both = both.sort_values(["country", "place", "weight", "code"])
    return both[list(SHARES_COLUMNS)].reset_index(drop=True)


def _report(answers: pd.DataFrame, counted: Sequence[Counts], variables: Sequence[str]) -> pd.DataFrame:
    tallied = answers.groupby(["country", "question", "kind"])["n"].sum()
    rows = []
    for counts in counted:
        for country, respondents in sorted(counts.respondents.items()):
            for variable in variables:
                valid, missing, unknown = (
                    int(tallied.get((country, variable, kind), 0)) for kind in ("valid", "missing", "unknown")
                )
                absent = variable in counts.absent
                status = "no column" if absent else "answered" if valid else "all missing"
                rows.append((country, variable, counts.file, respondents, valid, missing, unknown, status))
    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS))


def _silent(report: pd.DataFrame) -> str | None:
    """How many countries lack an answer to which variables, in one sentence."""
    lacking = report[report["status"] != "answered"]
    if lacking.empty:
        return None
    questions, countries = lacking["question"].nunique(), lacking["country"].nunique()
    return f"{questions} variables have no answer in at least one of {countries} countries: see the report"
