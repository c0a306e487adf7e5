"""Saved views of MLflow's runs page, seeded as tags of our experiment.

MLflow documents no format for them. Ours is that of the page's own "share" button in MLflow 3; a release that reads another
falls back to its own columns, and a test looks for the words of the format in the pages' code.
"""

import json
from dataclasses import dataclass
from typing import Any

from ..core.languages import LANGUAGES, TEST_LANGUAGES
from .schema import FAMILIES, KIND

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


def _metrics(*names: str) -> tuple[str, ...]:
    return tuple(f"metrics.`{name}`" for name in names)


def _with_own_country(*families: str) -> tuple[str, ...]:
    pairs = [f"{code}.{LANGUAGES[code].country}" for code in TEST_LANGUAGES]
    return _metrics(*(f"{family}/{pair}" for family in families for pair in pairs))


def _of_languages(*families: str) -> tuple[str, ...]:
    return _metrics(*(f"{family}/{code}" for family in families for code in TEST_LANGUAGES))


VIEWS = (
    View(
        "valueshift",
        "all runs",
        columns=(
            f"tags.`{KIND}`",
            *_metrics(*(name for name, family in FAMILIES.items() if family.overview), "shifted"),
            *_with_own_country("rho"),
        ),
    ),
    View(
        "shifts",
        "shifts by fine-tuning language",
        f"{_COMPARISONS} and params.`tuned_on.placebo` = 'false'",
        (
            *_TUNED_ON,
            *_metrics("kept", "shifted"),
            *_of_languages("kept"),
        ),
        ("tuned_on.languages",),
    ),
    View(
        "alignment",
        "alignment",
        _COMPARISONS,
        (
            *_TUNED_ON,
            *_metrics("similarity", "parallelism"),
            *_with_own_country("rho_change"),
        ),
    ),
    View(
        "seeds",
        "seeds",
        _COMPARISONS,
        (*_TUNED_ON, *_metrics("kept", "shifted", "similarity", "parallelism"), *_with_own_country("rho_change")),
        ("tuned_on.languages", "tuned_on.corpus", "tuned_on.size", "tuned_on.placebo"),
    ),
)


def note(experiment: str) -> str:
    """The description of an experiment of ours: links to its views, since MLflow's own table shows no metric of any run."""
    links = [f"[{view.title}](#{page(experiment, view.key)})" for view in VIEWS]
    return f"Runs with their figures: {', '.join(links)}."


def page(experiment: str, key: str) -> str:
    """The part after `#` of the address of the runs page with one of our views."""
    return f"/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={key}"
