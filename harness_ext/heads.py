"""The output head of an encoder-decoder model: whether it is its own, that it stays so, and what it is given."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ..core.outside import read_json

log = logging.getLogger("valueshift.hook")

_STORED = ("lm_head.weight", "shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""The head of models with sentinels, and names under which their embedding is stored."""
_ROWS = 4096


def is_untied(model: Any) -> bool:
    """Whether an encoder-decoder model has a head of its own: its output embedding is not its input embedding."""
    weights = _head_and_embedding(model)
    return weights is not None and weights[0] is not weights[1]


def _head_and_embedding(model: Any) -> tuple[Any, Any] | None:
    """Both weights of an encoder-decoder model; None for any other, and where it does not show them."""
    inner = getattr(model, "base_model", model) if hasattr(model, "peft_config") else model
    if not getattr(getattr(inner, "config", None), "is_encoder_decoder", False):
        return None
    try:
        return inner.get_output_embeddings().weight, inner.get_input_embeddings().weight
    except (AttributeError, NotImplementedError):  # no head, or a class of its own
        return None


def keep_untied_head(model: Any) -> None:
    """Correct the configuration of an untied encoder-decoder model that claims to be tied; `tie_weights` then keeps its head."""
    if is_untied(model) and getattr(model.config, "tie_word_embeddings", False):
        model.config.tie_word_embeddings = False
        log.warning(
            "the output head of this %s is not tied to its embedding, but its configuration says so; the head is kept as loaded",
            model.config.model_type,
        )


def tied_on_the_way(model: Any, folder: Path | None) -> str | None:
    """Why a model is not the one in its checkpoint: it has lost its head. None where it has not, or nothing shows it.

    Args:
        model: as it will be asked.
        folder: of the checkpoint that it was loaded from; None where it is not on this machine.
    """
    weights = _head_and_embedding(model)
    if weights is None or folder is None or not _are_one(*weights) or not has_own_head(folder):
        return None
    return lost(folder)


def lost(folder: Path) -> str:
    """The sentence for a model that was loaded from a folder and has lost its head."""
    return (
        f"the output head in {folder} is overwritten with the input embedding when this model is loaded, so every answer would "
        f"be another model's; load it with the hook on (VALUESHIFT_HOOK), or ask it with valueshift probe"
    )


def _are_one(head: Any, embedding: Any) -> bool:
    """Whether two weights of a model are the same tensor, or a copy of it."""
    if head is embedding:
        return True
    if head.is_meta or head.shape != embedding.shape or head.device != embedding.device:
        return False
    import torch

    return torch.equal(head[:1], embedding[:1]) and torch.equal(head, embedding)


def has_own_head(folder: Path) -> bool:
    """Whether the weights in a folder have a head that is not the embedding.

    Rows are compared only up to the first that differs. Where the weights cannot be read, a `config.json` that says untied
    decides; one that says tied is no evidence, as transformers 5 writes that of all.
    """
    import torch
    from safetensors import SafetensorError

    try:
        head, embedding = _stored(folder)
    except (OSError, ValueError, RuntimeError, EOFError, UnpicklingError, SafetensorError):
        head = embedding = None
    if embedding is None:
        config = folder / "config.json"
        stated = read_json(config, "copy the checkpoint again") if config.is_file() else None
        return isinstance(stated, dict) and stated.get("tie_word_embeddings") is False
    if head is None:
        return False
    blocks = zip(head.split(_ROWS), embedding.split(_ROWS), strict=False)
    return head.shape != embedding.shape or not all(torch.equal(*block) for block in blocks)


def _stored(folder: Path) -> tuple[Any, Any]:
    """Head and embedding as they lie in a folder, mapped into memory, not read; None for what is not there."""
    import torch
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for file in filter(Path.is_file, sorted(folder.glob("*.safetensors"))):
        with safe_open(file, framework="pt") as weights:
            found |= {name: weights.get_tensor(name) for name in weights.keys() if name in _STORED}  # noqa: SIM118
    if not found:
        for file in filter(Path.is_file, sorted(folder.glob("pytorch_model*.bin"))):
            tensors = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            found |= {name: tensor for name, tensor in tensors.items() if name in _STORED}
    embeddings = (found[name] for name in _STORED[1:] if name in found)
    return found.get(_STORED[0]), next(embeddings, None)


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
