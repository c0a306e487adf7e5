"""Direction of change: profiles before and after fine-tuning in the plane of their two principal components [Fig. 4, 11]."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA

from ..core.errors import ValueshiftError
from ..core.probes import Item
from . import intervals
from .bootstrap import Floats, batteries
from .pairs import MINIMUM
from .profiles import Selection
from .similarity import common_questions


@dataclass(frozen=True)
class Plane:
    """Profiles in the plane of the two principal components that were fitted on all of them.

    `points` has the columns model, language, x, y. `explained` is the share of variance on each axis, `n` the number
    of questions that every profile answers, and `dropped` how many others were left out.
    """

    points: pd.DataFrame
    explained: tuple[float, float]
    n: int
    dropped: int


def plane(models: Mapping[str, pd.DataFrame], items: Mapping[str, Item], selection: Selection = "paper") -> Plane:
    """Project the columns of several profiles on their two principal components.

    An arrow of a language leads from its point in the base model to its point in a tuned one; a survey's profiles may
    stand among the models, and alone they give Fig. 13. Both axes are turned so that their largest loading is positive.

    Args:
        models: name to profile; index question, columns language or country.
        items: the registry.
        selection: the paper's questions or all.

    Raises:
        ValueshiftError: fewer than three profiles, fewer than ten questions that all of them answer, or no difference
            between them.
    """
    columns = [(name, column) for name, table in models.items() for column in table.columns]
    if len(columns) < 3:
        raise ValueshiftError("two principal components need at least three profiles; give more models or languages")
    values, questions, dropped = common_questions(list(models.values()), items, selection, every_column=True)
    if len(questions) < MINIMUM:
        raise ValueshiftError(
            f"only {len(questions)} questions are answered in every profile; at least {MINIMUM} are needed"
        )
    together = np.concatenate(values, axis=1).T
    if (together == together[0]).all():
        raise ValueshiftError("all profiles are the same, so that there is no plane; check what the models were asked")
    fitted = PCA(n_components=2, svd_solver="full")
    points = fitted.fit_transform(together)
    largest = np.abs(fitted.components_).argmax(axis=1)
    points = points * np.sign(fitted.components_[[0, 1], largest])
    first, second = (float(share) for share in fitted.explained_variance_ratio_)
    table = pd.DataFrame(columns, columns=["model", "language"]).assign(x=points[:, 0], y=points[:, 1])
    return Plane(table, (first, second), len(questions), dropped)


def parallelism(
    base: pd.DataFrame, tuned: pd.DataFrame, items: Mapping[str, Item], selection: Selection = "paper"
) -> dict[str, object]:
    """How far the languages change in one direction: the mean cosine between their changes, all questions counted.

    The plane shows two dimensions only; this is the figure's claim in all of them. 1 means that every language changed
    alike, 0 that their changes have nothing in common.

    Returns:
        cosine, low, high (over batteries), languages (whose answers changed at all), n, dropped, reason.

    Raises:
        ValueshiftError: base and tuned share no question.
    """
    languages = [language for language in base.columns if language in tuned.columns]
    tables = [base[languages], tuned[languages]]
    (before, after), questions, dropped = common_questions(tables, items, selection, every_column=True)
    change = (after - before)[:, (after != before).any(axis=0)]
    count = change.shape[1]
    upper = np.triu_indices(count, 1)

    def statistic(weights: Floats) -> Floats:
        products = np.matmul(weights[:, None, :] * change.T, change)
        lengths = np.sqrt(products[:, np.arange(count), np.arange(count)])
        cosines = products / (lengths[:, :, None] * lengths[:, None, :])
        result: Floats = cosines[:, *upper].mean(axis=1)
        return result

    counts: dict[str, object] = {"languages": count, "n": len(questions), "dropped": dropped}
    missing = {name: float("nan") for name in ("cosine", "low", "high")}
    if len(questions) < MINIMUM:
        return missing | counts | {"reason": f"fewer than {MINIMUM} common questions"}
    if count < 2:
        return missing | counts | {"reason": "fewer than two languages changed"}
    value, low, high = intervals.symmetric(statistic, batteries(questions, items))
    return {"cosine": float(value), "low": float(low), "high": float(high)} | counts | {"reason": ""}
