"""The two-option metric: which of two continuations a model finds likelier, and by how much.

Registered under stable names, so that any task can use it:

    output_type: multiple_choice
    process_results: !function valueshift.harness_ext.metric.two_options
    metric_list:
      - {metric: p_first, aggregation: mean, higher_is_better: null}
      - {metric: first_share, aggregation: mean, higher_is_better: null}
      - {metric: questions, aggregation: count, higher_is_better: null}
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lm_eval.api.metrics  # noqa: F401  (fills the registry before ours is added)
from lm_eval.api.registry import aggregation_registry, metric_registry, register_aggregation, register_metric

from ..core.errors import ValueshiftError
from ..core.scores import answer, p_first

METRICS = ("p_first", "first_share", "questions")


def two_options(doc: Mapping[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Per-question values from the log-probabilities of the first and the second option.

    Returns:
        `p_first` in [0, 1] [paper 3.5]; `first_share`, 1 where the first is the answer, 0 where the second is, 0.5 on an
        exact tie [paper 3.4]; `questions`, always 1.

    Raises:
        ValueshiftError: a log-probability is NaN.
    """
    (first, _), (second, _) = results
    if math.isnan(first) or math.isnan(second):
        question = doc.get("question", doc)
        raise ValueshiftError(
            f"the model gives NaN for question {question}; load it in float32 or bfloat16 "
            f"(T5-family models overflow in float16): --model_args dtype=float32"
        )
    share = {"first": 1.0, "second": 0.0, None: 0.5}[answer(first, second)]
    return {"p_first": p_first(first, second), "first_share": share, "questions": 1.0}


def count(values: Sequence[float]) -> float:
    """How many questions were asked."""
    return float(len(values))


def register() -> None:
    """Make the metrics and the aggregation known to the harness; again is harmless."""
    if "count" not in aggregation_registry:
        register_aggregation("count")(count)
    for metric in METRICS:
        if metric not in metric_registry:
            aggregation = "count" if metric == "questions" else "mean"
            register_metric(
                metric=metric, higher_is_better=None, output_type="multiple_choice", aggregation=aggregation
            )(two_options)


register()
