"""One model's answers as arrays of questions by languages, on which shares, shifts and profiles are counted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from sys import intern

import numpy as np
import pandas as pd

from ..core.errors import ValueshiftError
from ..core.scores import KEYS
from .bootstrap import Floats


@dataclass(frozen=True, eq=False)
class Answers:
    """The scores of one model and one probe set; arrays are (questions, languages), NaN where a question was not asked."""

    probe_set: str | None
    """None where there are no scores."""
    questions: list[str]
    """In the order in which they were asked, as `languages`."""
    languages: list[str]
    choices: Floats
    """1 the first option, -1 the second, 0 neither (a tie)."""
    p_first: Floats
    log_odds: Floats
    """log p(first) - log p(second), of raw log-probabilities; NaN too where the table has none."""

    def on(self, values: Floats, questions: Sequence[str], languages: Sequence[str]) -> Floats:
        """One of the arrays with the rows and columns of other questions and languages."""
        places = ({name: place for place, name in enumerate(own)} for own in (self.questions, self.languages))
        row, column = (
            [place.get(name, -1) for name in wanted]
            for place, wanted in zip(places, (questions, languages), strict=True)
        )
        padded: Floats = np.pad(values, (0, 1), constant_values=np.nan)  # place -1 is of what was not asked
        return padded[np.ix_(row, column)]


Scores = pd.DataFrame | Answers
"""A table of scores, or what `answers_of` made of it: who compares one model with many lays it out once."""


def answers_of(scores: Scores) -> Answers:
    """A table with the columns of `core.scores.COLUMNS` laid out by question and language.

    Raises:
        ValueshiftError: it is no table of scores of one model and one probe set.
    """
    if isinstance(scores, Answers):
        return scores
    sets = checked(scores)["probe_set"].unique()
    (row, questions), (column, languages) = (pd.factorize(scores[name]) for name in ("question", "language"))

    def laid_out(values: Floats) -> Floats:
        wide = np.full((len(questions), len(languages)), np.nan)
        wide[row, column] = values
        return wide

    def numbers(column: str) -> Floats:
        if column not in scores.columns:
            return np.full(len(scores), np.nan)
        return scores[column].to_numpy(dtype=np.float64, na_value=np.nan)

    answer = scores["answer"].to_numpy(dtype=object, na_value="")
    return Answers(
        probe_set=str(sets[0]) if len(sets) else None,
        questions=[intern(question) for question in questions],  # hundreds of models were asked the same
        languages=languages.tolist(),
        choices=laid_out(np.select([answer == "first", answer == "second"], [1.0, -1.0])),
        p_first=laid_out(numbers("p_first")),
        log_odds=laid_out(numbers("logprob_first") - numbers("logprob_second")),
    )


def checked(scores: pd.DataFrame, columns: Iterable[str] = ("p_first", "answer")) -> pd.DataFrame:
    """`scores` itself, once it is known to hold one row per language and question of one probe set.

    Raises:
        ValueshiftError: a column is missing, a row is doubled, or several probe sets are mixed.
    """
    if missing := [name for name in (*KEYS, *columns) if name not in scores.columns]:
        raise ValueshiftError(f"the table of scores has no column {missing[0]}; give the scores of a probe record")
    if len(names := scores["probe_set"].unique()) > 1:
        raise ValueshiftError(
            f"the scores mix the probe sets {' and '.join(sorted(names))}; analyse one probe set at a time"
        )
    if (doubled := scores.duplicated(["language", "question"])).any():
        row = scores[doubled].iloc[0]
        raise ValueshiftError(
            f"question {row['question']} in language {row['language']} is scored twice; give the scores of one model"
        )
    return scores
