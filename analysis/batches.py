"""Many comparisons with one survey at once: profiles side by side, as if their languages were those of one model."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from ..core.probes import Item
from .bootstrap import batteries
from .poles import TURNS
from .significance import signs

_ROOM = 4_000_000  # numbers of an array, at most


def each_case(
    make: Callable[[Sequence[pd.DataFrame]], pd.DataFrame],
    cases: Sequence[Sequence[pd.DataFrame]],
    truth: pd.DataFrame,
    items: Mapping[str, Item],
) -> list[pd.DataFrame]:
    """What `make` gives of each case, many of which it is given at once.

    Args:
        make: of profiles whose columns are numbers; gives a table by `language`, in the order of the columns.
        cases: each one profile or several (a base model and its tuned ones).
        truth: what `make` compares them with.
        items: the registry of all.

    Returns:
        One table a case, with its own languages.

    Raises:
        ValueshiftError: as `make`.
    """
    spoken = [list(dict.fromkeys(language for profile in case for language in profile)) for case in cases]
    tables: dict[int, pd.DataFrame] = {}
    for places in _batches(cases, _room(truth, items)):
        table = make(
            _side_by_side([[profile.reindex(columns=spoken[place]) for profile in cases[place]] for place in places])
        )
        ends = np.cumsum([0, *(len(spoken[place]) for place in places)])
        cuts = np.searchsorted(table["language"].to_numpy(dtype=np.intp), ends)
        for number, place in enumerate(places):
            rows = table[cuts[number] : cuts[number + 1]].reset_index(drop=True)
            own = rows["language"].to_numpy(dtype=np.intp) - ends[number]
            tables[place] = rows.assign(language=pd.Index(spoken[place]).take(own))
    return [tables[place] for place in range(len(cases))]


def _room(truth: pd.DataFrame, items: Mapping[str, Item]) -> int:
    """Numbers that a language takes in the largest array: of questions left out, of poles turned, or of batteries exchanged."""
    surveyed = [question for question in truth.index if question in items]
    exchanges = len(signs(len(set(batteries(surveyed, items)))))
    return max(len(truth) * max(len(truth), TURNS), exchanges * len(truth.columns))


def _batches(cases: Sequence[Sequence[pd.DataFrame]], room: int) -> Iterator[list[int]]:
    """Places of cases of the same questions, as many as there is room for; of other questions, resamples would differ."""
    alike: dict[tuple[tuple[str, ...], ...], list[int]] = {}
    for place, case in enumerate(cases):
        asked = tuple(tuple(profile.index[profile.notna().any(axis=1)]) for profile in case)
        alike.setdefault(asked, []).append(place)
    for places in alike.values():
        width = max(profile.shape[1] for place in places for profile in cases[place])
        at_once = max(1, _ROOM // (room * max(width, 1)))
        yield from (places[start : start + at_once] for start in range(0, len(places), at_once))


def _side_by_side(cases: Sequence[Sequence[pd.DataFrame]]) -> list[pd.DataFrame]:
    """The first profiles of all cases as one, the second ones as another ..., their columns counted from 0."""
    wide = [pd.concat(profiles, axis=1) for profiles in zip(*cases, strict=True)]
    return [table.set_axis(range(table.shape[1]), axis=1) for table in wide]
