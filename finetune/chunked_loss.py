"""Cross-entropy over a large vocabulary without holding all logits.

mT5's head has 250,112 rows, so the logits of one target token are 1 MB in float32, those of 8 targets of 114 tokens 0.9 GB, and
a stock step holds them and two more tensors of that size. Here the logits of some targets at a time exist: their gradient is
known at once (softmax minus one-hot), so the gradients of hidden states and head are made in the forward pass, as in Liger
Kernel (Hsu et al., 2024), and the logits given up. Padding is not projected. Loss and gradients are the stock ones.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.modeling_outputs import Seq2SeqLMOutput

from ..harness_ext.heads import head_input
from .span_corruption import IGNORED

_LOGITS = {"cpu": 1 << 25, "other": 1 << 28}
"""Logits at a time: 128 MB and 1 GB in float32. Fewer would pass more often over the head's gradient, which is 0.5 GB."""


@contextmanager
def chunked_loss(model: Any) -> Iterator[None]:
    """While active, an encoder-decoder model that is given `labels` computes its loss in chunks and returns no logits.

    Args:
        model: of transformers, or of peft over one.
    """
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    forward, head = inner.forward, inner.get_output_embeddings()

    @functools.wraps(forward)
    def computed(
        *args: Any, labels: Tensor | None = None, decoder_input_ids: Tensor | None = None, **kwargs: Any
    ) -> Any:
        if labels is None:
            return forward(*args, decoder_input_ids=decoder_input_ids, **kwargs)
        if decoder_input_ids is None:
            decoder_input_ids = inner.prepare_decoder_input_ids_from_labels(labels)
        with head_input(head) as states:
            forward(*args, decoder_input_ids=decoder_input_ids, **kwargs)
        asked = labels != IGNORED
        return Seq2SeqLMOutput(loss=cross_entropy(states[0][asked], head.weight, labels[asked]))

    inner.forward = computed
    try:
        yield
    finally:
        inner.__dict__.pop("forward", None)


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (nats) of labels under `softmax(hidden @ weight.T)`; the softmax is in float32.

    Args:
        hidden: what the head is given, shape (targets, width).
        weight: of the head, shape (vocabulary, width).
        labels: shape (targets,).
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    loss: Tensor = _ChunkedCrossEntropy.apply(hidden, weight, labels)  # type: ignore[no-untyped-call]
    return loss


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        device = hidden.device.type
        low = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        with torch.autocast(device, enabled=False):
            loss, ctx.gradients = _loss_and_gradients(hidden, weight, labels, low, *ctx.needs_input_grad[:2])
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (of_hidden, of_weight), ctx.gradients = ctx.gradients, None
        if outer != 1:
            of_hidden, of_weight = (None if one is None else one.mul_(outer) for one in (of_hidden, of_weight))
        return of_hidden, of_weight, None


def _loss_and_gradients(
    hidden: Tensor, weight: Tensor, labels: Tensor, dtype: torch.dtype, wants_hidden: bool, wants_weight: bool
) -> tuple[Tensor, tuple[Tensor | None, Tensor | None]]:
    """The mean loss, and its gradients where wanted; products are computed in `dtype`."""
    loss = hidden.new_zeros((), dtype=torch.float32)
    of_hidden = torch.empty_like(hidden) if wants_hidden else None
    of_weight: Tensor | None = None
    head, share = weight.to(dtype), 1 / len(labels)
    size = max(1, _LOGITS.get(hidden.device.type, _LOGITS["other"]) // len(weight))
    for start in range(0, len(labels), size):
        chunk, targets = hidden[start : start + size].to(dtype), labels[start : start + size, None]
        logits = (chunk @ head.T).float()
        normalisers = logits.logsumexp(1, keepdim=True)
        loss += (normalisers - logits.gather(1, targets)).sum() * share
        if not (wants_hidden or wants_weight):
            continue
        logits.sub_(normalisers).exp_()  # now probabilities, and with the next line their gradient
        logits.scatter_add_(1, targets, logits.new_full(targets.shape, -1))
        gradient = logits.to(dtype)
        if of_hidden is not None:
            of_hidden[start : start + size] = gradient @ head * share
        if wants_weight:
            of_weight = _added(of_weight, gradient.T, chunk * share, weight.dtype)
    return loss, (of_hidden, of_weight)


def _added(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """`total + left @ right` in place, or the product where there is no total yet."""
    if total is None:
        return (left @ right).to(dtype)
    return total.addmm_(left, right) if left.dtype == dtype else total.add_(left @ right)
