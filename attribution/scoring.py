"""Influence of every training sentence on every query: features of both, and the solver between them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from .features import Backend, Floats
from .measurement import Example, Masks, Measurement, Query, Targets
from .solver import Solver


class Method(BaseModel):
    """How influence is computed. The defaults are ours; `Method.paper()` is what the paper says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    measurement: Measurement = "contrast"
    targets: Targets = "content"
    """Which targets of a training sentence count."""
    masks: Masks = "all"
    """Under which masks a training sentence is measured: of every epoch, or of the first."""
    backend: Backend = "factorised"
    k: int | None = Field(default=None, gt=0)
    """Factorised: dimensions that each side of a weight matrix is projected to; None: the most that fit the backend's budget.
    traker: dimensions of a vector; None: 4,096. Exact: none."""
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Of the projections; scores of several are averaged."""
    solver: Solver = "dual"
    damping: float = Field(default=0.1, ge=0)
    """Lambda, relative to the mean eigenvalue of the training sentences' kernel."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights, in which gradients are computed; features are float32."""
    stored: Literal["float32", "float16"] = "float32"
    """Of features on disk; float16 halves them, each vector scaled by its largest entry."""
    batch_size: int = Field(default=8, gt=0)
    """Items that are computed at a time."""
    paper_strict: bool = False
    """Run what cannot be right with a warning, instead of refusing it."""

    @classmethod
    def paper(cls, **changes: Any) -> "Method":
        """TRAK as the paper says, and its library's defaults where it is silent: 4,096 dimensions, lambda 0, one mask."""
        stated: dict[str, Any] = {
            "measurement": "paper",
            "targets": "all",
            "masks": "one",
            "backend": "traker",
            "solver": "primal",
            "damping": 0.0,
        }
        return cls(**{**stated, **changes})


class Parts(NamedTuple):
    """What one checkpoint and one projection give; `combined` averages several."""

    scores: npt.NDArray[np.float64]
    """Shape (training sentences, queries), before Q."""
    wrong: Floats
    """Q, the mean 1 - p of each training sentence, shape (training sentences,); ones where the output is log_prob."""


def influence(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    queries: Sequence[Query],
    method: Method | None = None,
    store: Path | None = None,
) -> Floats:
    """Influence of each training sentence on each query, of one checkpoint.

    Positive: the sentence pushed what is measured up; with `contrast`, towards the tuned answer. Only order and relative size
    within a query mean something.

    Args:
        model: the tuned checkpoint, encoder-decoder, on its device; with a LoRA adapter, not merged.
        tokenizer: its own.
        examples: training sentences, ids unique.
        queries: probes, unique by language and question.
        method: how.
        store: folder where features are kept, so that a stopped run goes on and the next run reuses them; None keeps none.

    Returns:
        float32, shape (training sentences, queries), in the order given.

    Raises:
        ValueshiftError: the method cannot be right for so many sentences, ids repeat, the store belongs to something else, or
            the disk is full.
    """
    method = method or Method()
    return combined([parts(model, tokenizer, examples, queries, method, seed, store) for seed in method.seeds])


def parts(
    model: Any,
    tokenizer: Any,
    examples: Sequence[Example],
    queries: Sequence[Query],
    method: Method,
    seed: int,
    store: Path | None = None,
) -> Parts:
    """What one checkpoint and one projection seed give; arguments as `influence`."""
    raise NotImplementedError


def combined(members: Sequence[Parts]) -> Floats:
    """The scores of several checkpoints or projections: mean of the scores times mean of Q (Park et al. 2023, section 3.4).

    Raises:
        ValueshiftError: the members are not of the same sentences and queries.
    """
    raise NotImplementedError
