"""Unprojected gradients by autograd, one item at a time: the reference that other backends are tested against, for toys."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .features import Floats, adapter_only, batched, finite, frozen, mean_by_item, token_outputs
from .measurement import Item, Output


class ExactFeatures:
    """Gradients of all parameters, of an adapter's alone where the model has one; in the order of `parameters`.

    Args:
        model: encoder-decoder, in float32.
        output: what the gradient is of.
    """

    def __init__(self, model: Any, output: Output) -> None:
        self.model, self.output = model, output
        adapter = adapter_only(model)
        self.parameters: dict[str, Tensor] = {
            name: parameter for name, parameter in model.named_parameters() if not adapter or "lora_" in name
        }

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
        """As `features.FeatureBackend.features`."""
        found = [self._gradient(item) for item in items]
        values = np.stack([vector for vector, _ in found])
        return finite(values, items), np.array([wrong for _, wrong in found], dtype=np.float32)

    def _gradient(self, item: Item) -> tuple[Floats, float]:
        batch = batched([item], self.model)
        wanted = list(self.parameters.values())
        with frozen(self.model), torch.enable_grad():
            for parameter in wanted:
                parameter.requires_grad_()
            logits = self.model(
                input_ids=batch.inputs,
                attention_mask=batch.mask,
                decoder_input_ids=batch.decoder_inputs,
                use_cache=False,
            ).logits
            outputs, wrong = token_outputs(logits[batch.counted], batch.labels[batch.counted], self.output)
            measured = (batch.weights[batch.counted] * outputs).sum()
            gradients = torch.autograd.grad(measured, wanted, materialize_grads=True)
        vector = torch.cat([gradient.flatten() for gradient in gradients])
        return vector.float().cpu().numpy(), float(mean_by_item(wrong.detach().float(), batch, 1))
