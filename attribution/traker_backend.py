"""Features of the TRAK authors' library (traker), as published: gradients of all parameters times one random matrix.

The library's gradient computer, projector and normalisation are used as they are; its store is left out, since it cannot be
resumed with another batch size and scores unfinished runs without a word. What it needs to work here: the device as a string,
attention masks of four dimensions, no `one_hot` under vmap, float32 (its default of half precision is for GPUs: on a processor
one block of its projection takes half a minute), and a folder of its own that is thrown away.
"""

import logging
import os
from collections.abc import Sequence
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from trak import TRAKer
from trak.modelout_functions import AbstractModelOutput

from ..core.errors import ValueshiftError
from .features import Floats, adapter_only, batched, finite, frozen, token_outputs
from .measurement import Item, Output, Row

DIMENSION = 4_096
"""Of the paper, section 5.3."""
_BLOCK = 100
"""Columns of its random matrix that the library holds at a time on a processor."""


class ItemOutput(AbstractModelOutput):  # type: ignore[misc]
    """The measured number of one item as the library calls it: rows and targets of one item at a time, under vmap."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def get_output(
        self,
        model: Any,
        weights: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        mask: Tensor,
        decoder_inputs: Tensor,
        labels: Tensor,
        counts: Tensor,
    ) -> Tensor:
        """Sum of the weighted outputs; shapes as in `Batch`, of one item's rows."""
        outputs, _ = self._outputs(model, weights, buffers, inputs, mask, decoder_inputs, labels)
        return (counts * outputs).sum()

    def get_out_to_loss_grad(
        self, model: Any, weights: dict[str, Tensor], buffers: dict[str, Tensor], batch: Sequence[Tensor]
    ) -> Tensor:
        """The weighted mean of 1 - p over the counted targets, shape (items, 1)."""
        *given, counts = (tensor.flatten(0, 1) for tensor in batch)
        with torch.no_grad():
            _, wrong = self._outputs(model, weights, buffers, *given)
        items, share = len(batch[0]), counts.abs()
        sums, totals = ((part.view(items, -1).sum(1)) for part in (wrong * share, share))
        return (sums / totals.clamp(min=torch.finfo(totals.dtype).tiny))[:, None]

    def _outputs(
        self,
        model: Any,
        weights: dict[str, Tensor],
        buffers: dict[str, Tensor],
        inputs: Tensor,
        mask: Tensor,
        decoder_inputs: Tensor,
        labels: Tensor,
    ) -> tuple[Tensor, Tensor]:
        hidden = torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask == 0, torch.finfo(torch.float32).min)
        given = {
            "input_ids": inputs,
            "attention_mask": hidden[:, None, None, :],
            "decoder_input_ids": decoder_inputs,
            "use_cache": False,
        }
        logits = torch.func.functional_call(model, (weights, buffers), args=(), kwargs=given).logits
        return token_outputs(logits, labels, self.output)


class TrakerFeatures:
    """Gradients by torch.func and their projection, both by the library.

    Args:
        model: encoder-decoder, in float32.
        output: what the gradient is of.
        k: dimensions of a vector; None: the paper's.
        seed: of the projection.

    Raises:
        ValueshiftError: one block of the projection does not fit into the machine's memory.
    """

    def __init__(self, model: Any, output: Output, k: int | None = None, seed: int = 0) -> None:
        self.model, self.output, self.dimension = model, output, k or DIMENSION
        named = dict(model.named_parameters())
        wanted = [name for name in named if "lora_" in name] if adapter_only(model) else None
        numbers = sum(named[name].numel() for name in wanted or named)
        needed = 4 * numbers * min(_BLOCK, self.dimension)
        if needed > (memory := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
            raise ValueshiftError(
                f"traker projects {numbers:,} parameters by a matrix of which one block takes {needed / 1e9:.0f} GB, and this "
                f"machine has {memory / 1e9:.0f}; use the factorised backend"
            )
        with TemporaryDirectory() as folder:
            self.traker = TRAKer(
                model=model,
                task=ItemOutput(output),
                train_set_size=1,
                save_dir=folder,
                device=str(model.device),
                proj_dim=self.dimension,
                projector_seed=seed,
                grad_wrt=wanted,
                use_half_precision=False,
                logging_level=logging.ERROR,
            )

    def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
        """As `features.FeatureBackend.features`."""
        batch = by_item(items, self.model)
        with frozen(self.model):
            computer = self.traker.gradient_computer
            computer.load_model_params(self.model)
            gradients = computer.compute_per_sample_grad(batch=batch)
            projected = self.traker.projector.project(gradients, model_id=0) / self.traker.normalize_factor
            wrong = computer.compute_loss_grad(batch)
        return finite(projected.cpu().numpy(), items), wrong[:, 0].cpu().numpy()


def by_item(items: Sequence[Item], model: Any) -> list[Tensor]:
    """The tensors of a batch with the rows of each item together, shape (items, rows of an item, length).

    Items of fewer rows than others are given rows that do not count.
    """
    most = max(len(item.rows) for item in items)
    none = [Row(item.rows[0].encoder, item.rows[0].labels, (0.0,) * len(item.rows[0].labels)) for item in items]
    even = [
        Item(item.name, (*item.rows, *[row] * (most - len(item.rows)))) for item, row in zip(items, none, strict=True)
    ]
    batch = batched(even, model)
    tensors = (batch.inputs, batch.mask, batch.decoder_inputs, batch.labels, batch.weights)
    return [tensor.reshape(len(items), most, tensor.shape[1]) for tensor in tensors]
