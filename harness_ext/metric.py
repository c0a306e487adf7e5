"""The two-option metric: which of two continuations a model finds likelier, and by how much.

Registered under stable names, so that any task can use it:

    output_type: multiple_choice
    process_results: !function valueshift.harness_ext.metric.two_options
    metric_list:
      - {metric: p_first, aggregation: answered_mean, higher_is_better: null}
      - {metric: first_share, aggregation: answered_mean, higher_is_better: null}
      - {metric: questions, aggregation: count, higher_is_better: null}
"""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import lm_eval.api.metrics  # noqa: F401  (fills the registry before ours is added)
from lm_eval.api.registry import aggregation_registry, metric_registry, register_aggregation, register_metric

from ..core.scores import answer, p_first

log = logging.getLogger(__name__)

METRICS = ("p_first", "first_share", "questions")


def two_options(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Per-question values from the log-probabilities of the first and the second option.

    Returns:
        `p_first` in [0, 1] [paper 3.5]; `first_share`, 1 where the first is the answer, 0 where the second is, 0.5 on an
        exact tie [paper 3.4]; `questions`, 1 where there is an answer. Where the model gives NaN there is none: NaN, NaN, 0.
    """
    (first, _), (second, _) = results
    if math.isnan(probability := p_first(first, second)):
        return {"p_first": math.nan, "first_share": math.nan, "questions": 0.0}
    share = {"first": 1.0, "second": 0.0, None: 0.5}[answer(first, second)]
    return {"p_first": probability, "first_share": share, "questions": 1.0}


def answered_mean(values: Sequence[float]) -> float:
    """Mean over the questions that were answered; NaN where none was."""
    answered = [value for value in values if not math.isnan(value)]
    return math.fsum(answered) / len(answered) if answered else math.nan


def count(values: Sequence[float]) -> float:
    """How many questions were answered; how many were not is said."""
    answered = sum(values)
    if answered < len(values):
        log.warning("%s", nan_reason(len(values) - int(answered), len(values)))
    return float(answered)


def nan_reason(unanswered: int, asked: int, questions: Sequence[str] = ()) -> str:
    """The sentence for questions that came out NaN, up to ten of them by name."""
    named = f" ({', '.join(questions[:10])}{' ...' if len(questions) > 10 else ''})" if questions else ""
    return (
        f"the model gives NaN for {unanswered} of {asked} questions{named}, which count as unanswered; load it in float32 or "
        f"bfloat16 (T5-family models overflow in float16): --model_args dtype=float32"
    )


AGGREGATIONS = {"count": count, "answered_mean": answered_mean}


def register() -> None:
    """Make the metrics and the aggregations known to the harness; again is harmless."""
    for name, aggregate in AGGREGATIONS.items():
        if name not in aggregation_registry:
            register_aggregation(name)(aggregate)
    for metric in METRICS:
        if metric not in metric_registry:
            aggregation = "count" if metric == "questions" else "answered_mean"
            register_metric(
                metric=metric, higher_is_better=None, output_type="multiple_choice", aggregation=aggregation
            )(two_options)


register()
