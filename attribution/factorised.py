"""Features of whole models in one batched backward: every weight matrix's gradient, projected on both of its sides.

The gradient of a linear layer's weight is a sum over positions of output gradient times input, so its projection needs neither
the gradient nor a large random matrix (LoGra: Choe et al. 2024, arXiv:2405.13954, section 3.1):

    R' (sum_t g_t x_t') C = sum_t (R' g_t) (C' x_t)'        R: rows x k, C: columns x k

Projections are orthonormal columns scaled by sqrt(size / k), so inner products are right in expectation and vary less than with
independent entries; a side of k or fewer dimensions is kept as it is. Linear layers, the embedding (whose input is one-hot) and
the head are covered; a tied head shares the embedding's block. Norms and position biases, under 0.1% of mT5, are left out.
With a LoRA adapter, its matrices alone are covered.

The head is the largest part of mT5: its gradient is computed by hand, at counted positions only and some at a time, as
c (onehot(label) - softmax over the others), where c is 1 for the margin and 1 - p for the log-probability. No gradient of a
weight is computed anywhere; padding has gradient 0.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ValueshiftError
from .features import Batch, Floats, adapter_only, batched, finite, frozen, mean_by_item
from .measurement import Item, Output

K = 64
"""Dimensions of a side where the budget allows them."""
BUDGET = 163_840
"""Numbers in a vector (0.66 MB in float32; 10,000 sentences 6.6 GB) that k is chosen by: 64 for the toy, 32 for mT5-small."""
_TOKENS = {"cpu": 1 << 11, "accelerator": 1 << 15}
"""Padded input tokens of a pass; their activations in mT5-small take about 1 GB on a processor."""
_LOGITS = 1 << 25
"""Elements of logits that are held at a time: 128 MB in float32."""
_ROWS = 1 << 10
"""Rows of the head that a processor multiplies at a time: they stay in its cache, which takes a fifth off the whole product."""


@dataclass(frozen=True)
class Block:
    """A weight matrix and how its sides are projected."""

    name: str
    rows: Tensor
    """Shape (rows, k), float32 or the matrix's precision; rows are a linear layer's outputs or an embedding's tokens."""
    columns: Tensor
    """Shape (columns, k)."""

    @property
    def dimension(self) -> int:
        """Numbers that it adds to a vector."""
        return self.rows.shape[1] * self.columns.shape[1]


class FactorisedFeatures:
    """Projected gradients of the covered weights; see the module.

    Args:
        model: encoder-decoder, on its device, in float32 or bfloat16.
        output: what the gradient is of.
        k: dimensions of a side at most; None: the most, in steps of 8 up to `K`, that keep a vector within `BUDGET`.
        seed: of the projections.

    Raises:
        ValueshiftError: there is no matrix to cover.
    """

    def __init__(self, model: Any, output: Output, k: int | None = None, seed: int = 0) -> None:
        self.model, self.output = model, output
        self.head, self.embedding = model.get_output_embeddings(), model.get_input_embeddings().weight
        self.modules = dict(_covered(model))
        if not self.modules:
            raise ValueshiftError("the model has no linear layer that gradients can be projected of; give an mT5 or T5")
        matrices: dict[int, tuple[str, Tensor]] = {}
        for name, module in self.modules.items():
            matrices.setdefault(id(module.weight), (name, module.weight))
        self.k = k or _affordable([matrix.shape for _, matrix in matrices.values()])
        self.blocks = {
            key: Block(
                name,
                rows=_projection(matrix.shape[0], self.k, f"{seed} {name} rows", matrix),
                columns=_projection(matrix.shape[1], self.k, f"{seed} {name} columns", matrix),
            )
            for key, (name, matrix) in matrices.items()
        }

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return sum(block.dimension for block in self.blocks.values())

    def features(self, items: Sequence[Item]) -> tuple[Floats, Floats]:
        """As `features.FeatureBackend.features`; items are split into passes of so many tokens that memory suffices."""
        vectors = torch.zeros(len(items), self.dimension, device=self.embedding.device)
        wrong, start = [], 0
        for part in _by_tokens(items, _TOKENS[_kind(self.embedding)]):
            wrong.append(self._one_pass(part, vectors[start : start + len(part)]))
            start += len(part)
        return finite(vectors.cpu().numpy(), items), torch.cat(wrong).cpu().numpy()

    def _one_pass(self, items: Sequence[Item], vectors: Tensor) -> Tensor:
        """Add the features of some items to `vectors` by one forward and one backward; their Q, shape (items,)."""
        batch = batched(items, self.model)
        found: dict[int, Tensor] = {}
        with frozen(self.model), torch.enable_grad(), self._watched(found) as states:
            self.model(
                input_ids=batch.inputs,
                attention_mask=batch.mask,
                decoder_input_ids=batch.decoder_inputs,
                use_cache=False,
            )
            counted = states[0][batch.counted]
            gradient, wrong = self._through_head(counted.detach(), batch, found)
            torch.autograd.backward(counted, gradient)
        start = 0
        for key, block in self.blocks.items():
            if key in found:
                part = vectors[:, start : start + block.dimension]
                part.index_add_(0, batch.items, found[key].flatten(1).float())  # an item is the sum of its rows
            start += block.dimension
        return mean_by_item(wrong.float(), batch, len(items))

    @contextmanager
    def _watched(self, found: dict[int, Tensor]) -> Iterator[list[Tensor]]:
        """Collect projected gradients during a backward; yields what the head is given, which then projects nothing."""
        states: list[Tensor] = []

        def at_head(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states.append(inputs[0])
            return (inputs[0][:0],)

        hooks = [self.head.register_forward_pre_hook(at_head)]
        hooks += [
            module.register_forward_hook(lambda *_: _[2].requires_grad_())  # the graph begins here: weights are frozen
            for module in self.model.modules()
            if isinstance(module, nn.Embedding) and module.weight is self.embedding
        ]
        hooks += [
            module.register_forward_hook(self._at(module, found))
            for module in self.modules.values()
            if module is not self.head
        ]
        try:
            yield states
        finally:
            for hook in hooks:
                hook.remove()

    def _at(self, module: nn.Linear | nn.Embedding, found: dict[int, Tensor]) -> Any:
        """A forward hook that projects a module's input at once, and its output's gradient when it comes."""
        key = id(module.weight)
        block = self.blocks[key]

        def forward(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            embedding = isinstance(module, nn.Embedding)
            given = block.rows[inputs[0]] if embedding else inputs[0].detach().to(block.columns.dtype) @ block.columns

            def backward(gradient: Tensor) -> None:
                came = gradient.to(block.rows.dtype) @ (block.columns if embedding else block.rows)
                rows, columns = (given, came) if embedding else (came, given)
                _add(found, key, rows.transpose(1, 2) @ columns)

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward

    def _through_head(self, states: Tensor, batch: Batch, found: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Gradient of the weighted outputs by what the head is given at counted positions, and 1 - p there.

        Args:
            states: shape (positions, width).
            batch: the rows.
            found: the head's projected gradient is added here.
        """
        labels, weights = batch.labels[batch.counted], batch.weights[batch.counted]
        owners = torch.arange(len(batch.items), device=states.device)[:, None].expand_as(batch.labels)[batch.counted]
        matrix, block = self.head.weight, self.blocks.get(id(self.head.weight))
        precision = _precision(matrix)
        gradient, wrong = torch.empty_like(states), torch.empty_like(weights, dtype=precision)
        step = max(1, _LOGITS // len(matrix))
        for start in range(0, len(states), step):
            at = slice(start, start + step)
            logits, label = _logits(states[at], matrix).to(precision), labels[at, None]
            right = logits.gather(1, label)
            logits.scatter_(1, label, -torch.inf)
            highest = logits.amax(1, keepdim=True)
            others = logits.sub_(highest).exp_()  # in place from here on: these are 1 MB a position
            total = others.sum(1, keepdim=True)
            wrong[at] = torch.sigmoid(highest + total.log() - right)[:, 0]
            scale = weights[at, None] * (1.0 if self.output == "margin" else wrong[at, None])
            by_logit = others.mul_(-scale / total).scatter_(1, label, scale.to(precision))
            gradient[at] = by_logit.to(matrix.dtype) @ matrix
            if block is not None:
                outer = (by_logit @ block.rows)[:, :, None] * (states[at].to(precision) @ block.columns)[:, None, :]
                _add(
                    found,
                    id(matrix),
                    outer.new_zeros(len(batch.items), *outer.shape[1:]).index_add_(0, owners[at], outer),
                )
        return gradient, wrong


def _add(found: dict[int, Tensor], key: int, value: Tensor) -> None:
    found[key] = found[key] + value if key in found else value


def _covered(model: Any) -> Iterator[tuple[str, nn.Linear | nn.Embedding]]:
    """Linear layers and uses of the input embedding; of a model with an adapter, the adapter's layers."""
    adapter, embedding = adapter_only(model), model.get_input_embeddings().weight
    for name, module in model.named_modules():
        linear = isinstance(module, nn.Linear) and ("lora_" in name or not adapter)
        if linear or (isinstance(module, nn.Embedding) and module.weight is embedding and not adapter):
            yield name, module


def _affordable(shapes: Sequence[torch.Size]) -> int:
    """The most dimensions of a side that keep a vector within the budget, at least 8."""
    for k in range(K, 8, -8):
        if sum(min(k, rows) * min(k, columns) for rows, columns in shapes) <= BUDGET:
            return k
    return 8


def _kind(tensor: Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "accelerator"


def _by_tokens(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    """Consecutive items whose padded inputs have so many tokens at most together, at least one item at a time."""
    part: list[Item] = []
    for item in items:
        rows = [row for one in (*part, item) for row in one.rows]
        if part and len(rows) * max(len(row.encoder) for row in rows) > most:
            yield part
            part = []
        part.append(item)
    yield part


def _logits(states: Tensor, matrix: Tensor) -> Tensor:
    """Product of states with a head's rows, shape (positions, rows)."""
    if _kind(matrix) != "cpu":
        return nn.functional.linear(states, matrix)
    logits = states.new_empty(len(states), len(matrix))
    for start in range(0, len(matrix), _ROWS):
        torch.mm(states, matrix[start : start + _ROWS].T, out=logits[:, start : start + _ROWS])
    return logits


def _precision(matrix: Tensor) -> torch.dtype:
    return torch.promote_types(matrix.dtype, torch.float32)


def _projection(size: int, k: int, name: str, matrix: Tensor) -> Tensor:
    """Orthonormal columns times sqrt(size / k), shape (size, k), the same for the same name; the identity where k >= size."""
    if k >= size:
        return torch.eye(size, dtype=_precision(matrix), device=matrix.device)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1)
    columns, _ = torch.linalg.qr(torch.randn(size, k, generator=generator))
    projection: Tensor = columns * math.sqrt(size / k)
    return projection.to(matrix.device, _precision(matrix))
