"""The output head of an encoder-decoder model: whether it is its own, that it stays so, and what it is given."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("valueshift.hook")


def is_untied(model: Any) -> bool:
    """Whether an encoder-decoder model has a head of its own: its output embedding is not its input embedding."""
    inner = getattr(model, "base_model", model) if hasattr(model, "peft_config") else model
    if not getattr(getattr(inner, "config", None), "is_encoder_decoder", False):
        return False
    head, embedding = inner.get_output_embeddings(), inner.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is not embedding.weight


def keep_untied_head(model: Any) -> None:
    """Correct the configuration of an untied encoder-decoder model that claims to be tied; `tie_weights` then keeps its head."""
    if is_untied(model) and getattr(model.config, "tie_word_embeddings", False):
        model.config.tie_word_embeddings = False
        log.warning(
            "the output head of this %s is not tied to its embedding, but its configuration says so; the head is kept as loaded",
            model.config.model_type,
        )


@contextmanager
def head_input(head: Any) -> Iterator[list[Any]]:
    """Keep what the model gives its head (rows x steps x width, scaled as the model scales it); the head projects nothing.

    Yields:
        A list, to which every pass through the model adds one tensor.
    """
    states: list[Any] = []

    def keep(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        states.append(inputs[0])
        return (inputs[0][:0],)

    hook = head.register_forward_pre_hook(keep)
    try:
        yield states
    finally:
        hook.remove()
