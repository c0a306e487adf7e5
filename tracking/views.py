"""Saved views of MLflow's runs page, seeded as tags of our experiment.

MLflow documents no format for them. Ours is that of the page's own "share" button in MLflow 3; a release that reads another
falls back to its own columns, and a test looks for the words of the format in the pages' code.
"""

import json
from dataclasses import dataclass
from typing import Any

from ..core.languages import LANGUAGES, TEST_LANGUAGES
from .schema import FAMILIES, KIND, OVERVIEW

LAYOUT = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment whose pages are laid out for training runs, not for generative AI."""
_TAG = "mlflow.sharedViewState."
_COMPARISONS = f"tags.`{KIND}` = 'comparison'"
_TUNED_ON = tuple(f"params.`tuned_on.{name}`" for name in ("languages", "corpus", "size", "seed", "placebo"))


@dataclass(frozen=True)
class View:
    """What the runs page shows under `viewStateShareKey=<key>`."""

    key: str
    title: str
    shown: str | None = None
    """Search filter; all runs where None."""
    columns: tuple[str, ...] = ()
    grouped_by: tuple[str, ...] = ()
    """Params whose groups are averaged."""

    def tag(self) -> tuple[str, str]:
        """Name and value of the experiment's tag."""
        state: dict[str, Any] = {"selectedColumns": list(self.columns)}
        if self.shown:
            state["searchFilter"] = self.shown
        if self.grouped_by:
            keys = [{"mode": "param", "groupByData": name} for name in self.grouped_by]
            state["groupBy"] = {"aggregateFunction": "average", "groupByKeys": keys}
        return f"{_TAG}{self.key}", json.dumps(state)


def _overview(*names: str) -> tuple[str, ...]:
    return tuple(f"metrics.`{OVERVIEW}{name}`" for name in names)


VIEWS = (
    View(
        "valueshift",
        "all runs",
        columns=(
            *_overview(*(name for name, family in FAMILIES.items() if family.overview == "mean")),
            f"tags.`{KIND}`",
        ),
    ),
    View(
        "shifts",
        "shifts by fine-tuning language",
        f"{_COMPARISONS} and params.`tuned_on.placebo` = 'false'",
        (
            *_TUNED_ON,
            *_overview("kept", "shifted"),
            *(f"metrics.`kept/{code}`" for code in TEST_LANGUAGES),
        ),
        ("tuned_on.languages",),
    ),
    View(
        "alignment",
        "alignment",
        _COMPARISONS,
        (
            *_TUNED_ON,
            *_overview("rho_change", "similarity", "parallelism"),
            *(f"metrics.`rho_change/{code}.{LANGUAGES[code].country}`" for code in TEST_LANGUAGES),
        ),
    ),
    View(
        "seeds",
        "seeds",
        _COMPARISONS,
        (*_TUNED_ON, *_overview("kept", "shifted", "rho_change", "similarity", "parallelism")),
        ("tuned_on.languages", "tuned_on.corpus", "tuned_on.size", "tuned_on.placebo"),
    ),
)
