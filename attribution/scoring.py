"""Influence of every training sentence on every query: features of both, and the solver between them."""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from ..core.digests import digest, text_digest
from ..core.errors import ValueshiftError
from ..core.records import library_versions
from .exact import ExactFeatures
from .factorised import FactorisedFeatures
from .features import Backend, FeatureBackend, Floats
from .measurement import (
    Example,
    Item,
    Masks,
    Measurement,
    Query,
    Targets,
    output_of,
    query_items,
    training_items,
)
from .solver import Solver, objection, solved
from .store import InMemory, OnDisk, Stored, in_memory, on_disk
from .traker_backend import TrakerFeatures


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
    damping: float = Field(default=1.0, ge=0)
    """Lambda, relative to the mean eigenvalue of the training sentences' kernel."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the model's weights, in which gradients are computed; features are float32."""
    stored: Stored = "float32"
    """Of features on disk; float16 halves them, each vector scaled by its largest entry."""
    batch_size: int = Field(default=32, gt=0)
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
    """What one checkpoint and one projection seed give; arguments and errors as `influence`."""
    if not examples or not queries:
        raise ValueshiftError("influence needs at least one training sentence and one query")
    backend = made(model, method, seed)
    _refuse_wrong(method, len(examples), backend.dimension)
    rows = model.get_input_embeddings().weight.shape[0]
    stated = _stated(model, tokenizer, method, seed) if store else {}

    def vectors(side: str, items: Sequence[Item]) -> InMemory | OnDisk:
        if store is None:
            return in_memory(backend, items, method.batch_size, side)
        data = _data_digest(items)
        manifest = {**stated, "side": side, "count": len(items), "data": data}
        name = side if side == "sentences" else f"{side}-{data}"  # other queries do not ask for the sentences again
        return on_disk(store / f"{name}-seed{seed}", manifest, backend, items, method.batch_size, side, method.stored)

    train = vectors("sentences", training_items(examples, method, tokenizer, rows))
    asked = vectors("queries", query_items(queries, method, tokenizer, rows))
    scores = solved(train, asked, method.solver, method.damping)
    return Parts(scores, train.wrong if output_of(method) == "margin" else np.ones_like(train.wrong))


def combined(members: Sequence[Parts]) -> Floats:
    """The scores of several checkpoints or projections: the mean of their scores times the mean of their Q.

    This is TRAK's ensemble (Park et al. 2023, section 3.2) as its library computes it; the members are independently trained
    models there, and may be epochs or seeds of the projection.

    Raises:
        ValueshiftError: there is none, or they are not of the same numbers of sentences and queries.
    """
    if len({member.scores.shape for member in members}) != 1:
        shapes = ", ".join(str(member.scores.shape) for member in members) or "none"
        raise ValueshiftError(f"scores of different sentences or queries cannot be averaged (shapes: {shapes})")
    scores, wrong = members[0].scores, members[0].wrong.astype(np.float64)
    for member in members[1:]:
        scores, wrong = scores + member.scores, wrong + member.wrong
    result: Floats = (scores * wrong[:, None] / len(members) ** 2).astype(np.float32)
    return result


def made(model: Any, method: Method, seed: int) -> FeatureBackend:
    """The backend of a method, bound to a model.

    Raises:
        ValueshiftError: the model has another dtype than the method says, or the backend cannot be used with it.
    """
    if str(model.dtype) != f"torch.{method.dtype}":
        raise ValueshiftError(f"the model is in {model.dtype}, the method says {method.dtype}; load it in that dtype")
    output = output_of(method)
    if method.backend == "exact":
        if method.k is not None:
            raise ValueshiftError("the exact backend projects nothing; leave k out")
        return ExactFeatures(model, output)
    if method.backend == "traker":
        return TrakerFeatures(model, output, method.k, seed)
    return FactorisedFeatures(model, output, method.k, seed)


def refuse_impossible(method: Method, sentences: int) -> None:
    """Refuse a projection that cannot be right for so many training sentences, where its size is known before it is computed.

    Raises:
        ValueshiftError: as `influence`.
    """
    from .traker_backend import DIMENSION

    if method.backend == "traker" and not method.paper_strict:
        _refuse_wrong(method, sentences, method.k or DIMENSION)


def _refuse_wrong(method: Method, n: int, dimension: int) -> None:
    """Refuse what cannot be right, or warn of it where it is asked for."""
    if (reason := objection(method.solver, method.damping, n, dimension)) is None:
        return
    if not method.paper_strict:
        raise ValueshiftError(
            f"{reason}; give a damping such as 1 or fewer dimensions, or ask for it as it is (--paper-strict)"
        )
    warnings.warn(f"{reason}: the scores mean nothing", stacklevel=3)


def _stated(model: Any, tokenizer: Any, method: Method, seed: int) -> dict[str, Any]:
    """What features are of, for a store's manifest."""
    return {
        "model": weights_digest(model),
        "tokenizer": digest(tokenizer.get_vocab()),
        **method.model_dump(include={"measurement", "targets", "masks", "backend", "k", "dtype"}),
        "seed": seed,
        "versions": library_versions(),
    }


def weights_digest(model: Any) -> str:
    """Digest of a model's parameters as they are in memory: names, formats, shapes and bytes."""
    whole = hashlib.sha256()
    for name, parameter in model.named_parameters():
        whole.update(f"{name}|{parameter.dtype}|{tuple(parameter.shape)}|".encode())
        whole.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return whole.hexdigest()[:16]


def _data_digest(items: Sequence[Item]) -> str:
    """Digest of the items: ids, tokens and weights."""
    return text_digest(repr(item) for item in items)
