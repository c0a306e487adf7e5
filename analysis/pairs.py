"""The join of model profiles and survey profiles by question."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..core.errors import ValueshiftError
from ..core.probes import Item
from .bootstrap import Floats, Groups, batteries
from .correlations import constant
from .profiles import Selection, selected

MINIMUM = 10
"""Fewer common questions than this carry no statistic."""


@dataclass(frozen=True)
class Block:
    """Languages and countries all of whose pairs have the same common questions.

    `models` holds one (questions, languages) array a model, `truth` is (questions, countries). `dropped` counts the
    questions that one side of these pairs has and the other lacks.
    """

    questions: list[str]
    languages: list[str]
    countries: list[str]
    places: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Of the languages among those of all models, and of the countries among the survey's."""
    models: list[Floats]
    truth: Floats
    groups: Groups
    dropped: int

    @property
    def n(self) -> int:
        """Common questions."""
        return len(self.questions)

    @property
    def reasons(self) -> NDArray[np.object_]:
        """Why the correlation of each pair is not defined, (languages, countries); "" where it is."""
        flat = np.any([constant(model) for model in self.models], axis=0)[:, None] | constant(self.truth)
        few = f"fewer than {MINIMUM} common questions" if self.n < MINIMUM else ""
        reasons: NDArray[np.object_] = np.where(flat & (few == ""), "constant profile", few).astype(object)
        return reasons


def blocks(
    models: Sequence[pd.DataFrame], truth: pd.DataFrame, items: Mapping[str, Item], selection: Selection
) -> Iterator[Block]:
    """All pairs of a language of the models and a country, as few blocks as their missing questions allow.

    A question is common to a pair when every model has it in that language and the survey has it in that country.

    Raises:
        ValueshiftError: a question appears twice, or models and survey share none at all.
    """
    for table in (*models, truth):
        if (doubled := table.index[table.index.duplicated()]).size:
            raise ValueshiftError(f"question {doubled[0]} appears twice in a profile; give each question once")
    questions = selected(items, selection)
    languages = list(dict.fromkeys(language for model in models for language in model.columns))
    values = [model.reindex(index=questions, columns=languages).to_numpy(dtype=np.float64) for model in models]
    shares = truth.reindex(index=questions).to_numpy(dtype=np.float64)
    present = ~np.isnan(np.stack(values))
    if not (present.any(axis=(0, 2)) & ~np.isnan(shares).all(axis=1)).any():
        raise ValueshiftError("the profiles and the survey share no question; take survey shares of the same items")
    for asked, some in alike(np.concatenate([present.any(axis=0), present.all(axis=0)])):
        by_any, by_all = asked[: len(questions)], asked[len(questions) :]
        for surveyed, others in alike(~np.isnan(shares)):
            common = by_all & surveyed
            names = [question for question, kept in zip(questions, common, strict=True) if kept]
            yield Block(
                questions=names,
                languages=[languages[place] for place in some],
                countries=[str(truth.columns[place]) for place in others],
                places=(some, others),
                models=[model[common][:, some] for model in values],
                truth=shares[common][:, others],
                groups=batteries(names, items),
                dropped=int((by_any | surveyed).sum() - common.sum()),
            )


def alike(present: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.intp]]]:
    """The distinct columns of (questions, k), each with the places where it stands."""
    places: dict[bytes, list[int]] = {}
    for place, column in enumerate(present.T):
        places.setdefault(column.tobytes(), []).append(place)
    for same in places.values():
        yield present[:, same[0]], np.array(same, dtype=np.intp)


def in_order(table: pd.DataFrame, **orders: Iterable[object]) -> pd.DataFrame:
    """The table sorted by columns whose values have a given order, the first column first."""
    places = {name: {value: place for place, value in enumerate(order)} for name, order in orders.items()}
    keys = list(places)
    return table.sort_values(keys, key=lambda column: column.map(places[str(column.name)]), ignore_index=True)
