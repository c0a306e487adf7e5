"""Features: one vector for each item, whose inner products stand for those of the items' gradients."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..core.errors import ValueshiftError
from .measurement import Item, Output, Row

Backend = Literal["factorised", "exact", "traker"]
Floats = npt.NDArray[np.float32]


class FeatureBackend(Protocol):
    """How features are made. One is bound to a model, an output, a projection and its seed."""

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
        """Features of some items in one batch.

        Returns:
            Vectors, shape (items, dimension), and of each item the weighted mean of 1 - p over its counted targets, shape
            (items,): TRAK's Q.

        Raises:
            ValueshiftError: a value is no finite number.
        """


@dataclass(frozen=True)
class Batch:
    """Rows of some items, padded. Shapes: (rows, longest input) and (rows, longest target)."""

    inputs: Tensor
    mask: Tensor
    decoder_inputs: Tensor
    labels: Tensor
    """0 where padded."""
    weights: Tensor
    """float32; 0 where padded or not counted."""
    items: Tensor
    """The item of each row, shape (rows,)."""

    @property
    def counted(self) -> Tensor:
        """Which positions are counted, shape (rows, longest target)."""
        return self.weights != 0


def batched(items: Sequence[Item], model: Any) -> Batch:
    """The rows of some items as the model takes them, on its device. Targets that end uncounted are cut off."""
    rows = [(number, _needed(row)) for number, item in enumerate(items) for row in item.rows]
    start, pad = int(model.config.decoder_start_token_id), int(model.config.pad_token_id or 0)

    def padded(sequences: Sequence[Sequence[int | float]], value: int, dtype: torch.dtype) -> Tensor:
        longest = max(map(len, sequences))
        filled = [[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences]
        return torch.tensor(filled, dtype=dtype, device=model.device)

    return Batch(
        inputs=padded([row.encoder for _, row in rows], pad, torch.long),
        mask=padded([[1] * len(row.encoder) for _, row in rows], 0, torch.long),
        decoder_inputs=padded([(start, *row.labels[:-1]) for _, row in rows], pad, torch.long),
        labels=padded([row.labels for _, row in rows], 0, torch.long),
        weights=padded([row.weights for _, row in rows], 0, torch.float32),
        items=torch.tensor([number for number, _ in rows], device=model.device),
    )


def _needed(row: Row) -> Row:
    """A row up to the last target that is counted, at least one."""
    length = max((place + 1 for place, weight in enumerate(row.weights) if weight), default=1)
    return Row(row.encoder, row.labels[:length], row.weights[:length])


def mean_by_item(values: Tensor, batch: Batch, items: int) -> Tensor:
    """The weighted mean of a value at each counted position over the positions of each item, 0 where none is counted.

    Args:
        values: shape (positions,), in the order of `batch.counted`.
        batch: the rows.
        items: how many items the rows belong to.

    Returns:
        Shape (items,).
    """
    weights = batch.weights[batch.counted].abs()
    owners = batch.items[:, None].expand_as(batch.weights)[batch.counted]
    sums, totals = (values.new_zeros(items).index_add_(0, owners, part) for part in (values * weights, weights))
    return sums / totals.clamp(min=torch.finfo(totals.dtype).tiny)


def finite(values: Floats, items: Sequence[Item]) -> Floats:
    """The values.

    Raises:
        ValueshiftError: one is not finite; names its item.
    """
    if not (good := np.isfinite(values).all(1)).all():
        name = items[int(np.argmin(good))].name
        raise ValueshiftError(
            f"the gradient of {name} is no number; check that the checkpoint's weights are finite, and use float32"
        )
    return values


def adapter_only(model: Any) -> bool:
    """Whether the model carries a LoRA adapter, whose weights alone were trained and are attributed."""
    return any("lora_A" in name for name, _ in model.named_modules())


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No gradients of weights; evaluation mode. Both are as before afterwards."""
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = model.training
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for parameter, was in wanted:
            parameter.requires_grad_(was)
        model.train(training)


def token_outputs(logits: Tensor, labels: Tensor, output: Output) -> tuple[Tensor, Tensor]:
    """The output at each position, and 1 - p, both differentiable.

    log p / (1 - p) is the label's logit minus the log of the sum of all others, exact also where p is nearly 1.

    Args:
        logits: shape (..., vocabulary).
        labels: shape (...).
        output: which.
    """
    label = torch.arange(logits.shape[-1], device=logits.device) == labels[..., None]  # one_hot has no vmap
    margin = logits.gather(-1, labels[..., None])[..., 0] - logits.masked_fill(label, -torch.inf).logsumexp(-1)
    wrong = torch.sigmoid(-margin)
    return (margin if output == "margin" else torch.nn.functional.logsigmoid(margin)), wrong
