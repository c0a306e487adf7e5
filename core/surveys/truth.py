"""Survey truth for analysis: the survey that was imported on this machine, else the packaged table of figures."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from ... import __version__
from .. import limits
from ..errors import ValueshiftError
from ..files import whole_folder
from ..names import COUNTRY, SURVEY, checked
from ..outside import read_json, regular_file
from ..parquet import read_parquet
from ..paths import TASKS, cache_root
from ..probes import Item, read_items, registry_folder
from ..shown import piece
from .importer import SurveyImport
from .poles import Middle, collapse

_SHARES: Mapping[str, Literal["text", "number"]] = {
    **dict.fromkeys(("country", "question", "weight"), "text"),
    **dict.fromkeys(("code", "share", "n", "n_effective"), "number"),
}
_CITATION = "shares computed from WVS wave 7 (Haerpfer et al. 2022, doi:10.14281/18241.20), secondary table"


@dataclass(frozen=True)
class SurveyTruth:
    """What people answered: the survey side of every alignment."""

    profile: pd.DataFrame
    """Index `question` in registry order, one column per country (ISO 3166-1 alpha-3), values p_first in [0, 1]; NaN
    where a country has no answers."""
    source: Literal["imported", "packaged", "own"]
    provenance: str
    """One sentence for reports: source, citation, weights, middle codes, and for how many questions it holds."""


def survey_folder(survey: str) -> Path:
    """Where an imported survey lives."""
    return cache_root() / "surveys" / checked(survey, SURVEY)


def write_survey(imported: SurveyImport) -> Path:
    """Write an import whole (`shares.parquet`, `report.parquet`, `import.json`), replacing an older one; its folder.

    Raises:
        ValueshiftError: the cache cannot be written; nothing is left behind.
    """
    folder = survey_folder(imported.survey)
    description = {
        "survey": imported.survey,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "valueshift": __version__,
        "files": dict(imported.files),
        "notes": imported.notes,
    }
    with whole_folder(folder) as temporary:
        imported.shares.to_parquet(temporary / "shares.parquet", index=False)
        imported.report.to_parquet(temporary / "report.parquet", index=False)
        (temporary / "import.json").write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
    return folder


def survey_truth(name: str = "wvs", *, middle: Middle = "split", weighted: bool = True) -> SurveyTruth:
    """The survey profile of a probe set or registry, such as `wvs` or `wvs_arora`.

    Raises:
        ValueshiftError: the registry is unknown or has no survey truth; the import is damaged; unweighted shares are
            wanted and only the packaged table, which is weighted, is there.
    """
    registry = registry_folder(name)
    if not has_survey_truth(name):
        raise ValueshiftError(f"there is no survey truth for '{name}'; choose a probe set of the WVS, such as wvs")
    items = read_items(registry / "items.csv")
    folder = survey_folder(next(iter(items.values())).survey)
    if folder.is_dir():
        return _imported(folder, items, middle, weighted)
    return _packaged(registry / "truth" / "shares.csv", items, weighted)


def _imported(folder: Path, items: Mapping[str, Item], middle: Middle, weighted: bool) -> SurveyTruth:
    remedy = "run `valueshift survey import` again"
    shares = read_parquet(folder / "shares.parquet", "table of shares", _SHARES, remedy)
    description = read_json(folder / "import.json", remedy)
    try:
        files = sorted(map(str, description["files"].values()))
        survey, created = str(description["survey"]), str(description["created"])[:10]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueshiftError(f"{folder / 'import.json'} is damaged ({error!r}); {remedy}") from error
    if not shares["share"].between(0, 1).all():
        raise ValueshiftError(f"{folder / 'shares.parquet'}, share: one is not between 0 and 1; {remedy}")
    table = collapse(shares, items, middle=middle, weighted=weighted)
    profile = table.pivot(index="question", columns="country", values="p_first")
    profile = profile.reindex([question for question in items if question in profile.index])
    weights = ", ".join(
        f"{kind} ({count} countries)" for kind, count in table.groupby("weight")["country"].nunique().items()
    )
    named = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if files[3:] else "")
    source = f"{survey}, imported on {created} from {named}"
    middles = "split evenly" if middle == "split" else "dropped"
    return SurveyTruth(
        profile, "imported", f"{source}; weights {weights}; middle codes {middles}; {_extent(profile, items)}"
    )


def _packaged(path: Path, items: Mapping[str, Item], weighted: bool) -> SurveyTruth:
    if not path.is_file():
        raise ValueshiftError(f"{path} is missing; run `valueshift survey import FILE` with your copy of the survey")
    if not weighted:
        raise ValueshiftError(
            f"{path} holds weighted shares only; run `valueshift survey import FILE` with your copy of the survey"
        )
    if not path.is_relative_to(TASKS):  # see `core.own_set`
        profile = read_shares(path, items)
        return SurveyTruth(profile, "own", f"your shares in {path}; {_extent(profile, items)}")
    table = pd.read_csv(path, index_col="question")
    asked = [name for name in items if name in table.index]
    # A row made by another rule than the registry's is another quantity.
    by_rule = [name for name in asked if table["rule"][name] == rule(items[name])]
    profile = table.loc[by_rule].drop(columns="rule").astype(float).rename_axis(columns="country")
    return SurveyTruth(profile, "packaged", f"{_CITATION}; weighted, no middle codes; {_extent(profile, items)}")


def read_shares(path: Path, items: Mapping[str, Item]) -> pd.DataFrame:
    """The shares of a user's own survey, `question,<ISO3>,...`, as a profile in the order of the registry.

    Raises:
        ValueshiftError: it is no such table, has no share, or holds one that is not in [0, 1], or twice.
    """
    remedy = "its columns are question and countries, such as question,DEU"
    try:
        content = regular_file(path, remedy, limits.CSV_BYTES).read_bytes()
        table = pd.read_csv(io.BytesIO(content), header=None, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"{path} is no table of shares ({piece(error)}); {remedy}") from error
    first, *countries = table.iloc[0].fillna("")
    if first != "question":
        raise ValueshiftError(f"{path} is no table of shares: its first column is '{piece(first)}'; {remedy}")
    for place, country in enumerate(countries):
        if not COUNTRY.pattern.fullmatch(country):
            raise ValueshiftError(f"{path}: column '{piece(country)}' is no country; {COUNTRY.rule}")
        if country in countries[:place]:
            raise ValueshiftError(f"{path}: column {country} is there twice; remove one")
    table = table.iloc[1:].set_axis(table.iloc[0], axis=1).set_index("question").rename_axis(columns="country")
    if unknown := [question for question in table.index if question not in items]:
        raise ValueshiftError(f"{path}: question {piece(unknown[0])} is not in the registry")
    if table.index.has_duplicates:
        raise ValueshiftError(f"{path}: question {table.index[table.index.duplicated()][0]} is there twice; remove one")
    shares = table.apply(pd.to_numeric, errors="coerce")
    wrong = (shares.isna() & table.notna()) | (shares < 0) | (shares > 1)
    for row, column in np.argwhere(wrong.to_numpy()):
        question, country = table.index[row], table.columns[column]
        raise ValueshiftError(
            f"{path}, question {question}, {country}: {table.iloc[row, column]} is no share from 0 to 1"
        )
    if shares.notna().to_numpy().sum() == 0:
        raise ValueshiftError(f"{path} holds no share; {remedy}")
    return pd.DataFrame(shares.loc[[question for question in items if question in shares.index]].astype(float))


def rule(item: Item) -> str:
    """An item's rule as the packaged table writes it: codes at the first pole, codes at the second."""
    return f"{';'.join(map(str, item.first_codes))}|{';'.join(map(str, item.second_codes))}"


def _extent(profile: pd.DataFrame, items: Mapping[str, Item]) -> str:
    """For how many questions and countries a profile holds."""
    return f"{len(profile)} of {len(items)} questions, {profile.shape[1]} countries"


def has_survey_truth(name: str) -> bool:
    """Whether a probe set asks a survey whose answers can be known here."""
    return (registry_folder(name) / "truth").is_dir()
