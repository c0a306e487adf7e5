"""Train only those rows of an input embedding that the text looks up.

Of mT5's 250,112 rows a corpus of some thousand verses uses a few thousand. The others get no gradient, their AdamW moments
stay 0 and, without weight decay, so does their change: leaving them out gives the same weights, and saves the gradient and both
moments of the rest, 1.5 GB at mT5-small's shape. This holds for a head of its own only: a head has a gradient in every row.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ..harness_ext.heads import is_untied


@contextmanager
def only_used_rows(model: Any, ids: Tensor) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Put an embedding of the used rows in the place of the model's input embedding; afterwards it has all rows again.

    A tied model, or one whose embedding is not trained, is left as it is.

    Args:
        model: encoder-decoder.
        ids: of all tokens that will be looked up, shape (any number,), on the CPU.

    Yields:
        A context in which the model has all rows, as trained so far, to be saved; those that are loaded there are trained on.
    """
    full = model.get_input_embeddings()
    if not (is_untied(model) and full.weight.requires_grad):
        yield nullcontext
        return
    ids = torch.unique(ids)
    few = _Few(full.weight.data, ids)
    rows = full.weight.data

    @contextmanager
    def whole() -> Iterator[None]:
        rows[ids] = few.weight.data.to(rows.device)
        model.set_input_embeddings(full)
        try:
            yield
        finally:
            few.weight.data.copy_(rows[ids])
            model.set_input_embeddings(few)

    model.set_input_embeddings(few)
    try:
        yield whole
    finally:
        rows[ids] = few.weight.data.to(rows.device)
        model.set_input_embeddings(full.to(few.weight.device))


class _Few(nn.Module):
    def __init__(self, rows: Tensor, ids: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(rows[ids])
        place = torch.full((len(rows),), -1)  # a token that was not announced is an index error, not another row
        place[ids] = torch.arange(len(ids))
        self.place: Tensor
        self.register_buffer("place", place, persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(self.place[ids], self.weight)
