"""The only place that loads and saves models and tokenizers.

transformers 5 forces `tie_word_embeddings=True` on mT5 and umT5 and loads an untied head correctly all the same, but writes
that flag; transformers 4 then ties the head. So what is saved here states `tie_word_embeddings: false` whenever head and
embedding differ, which 5 ignores and 4 needs.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from ..core.errors import ValueshiftError
from .patches import is_untied, keep_untied_head

_AUTO = {"encoder-decoder": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Turn what transformers raises about a missing or unreadable checkpoint into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueshiftError(f"cannot load {what} of '{name}': {reason}; give a checkpoint folder or a hub name") from error


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The configuration of a checkpoint by path or hub name.

    Raises:
        ValueshiftError: there is none.
    """
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueshiftError(f"{name} is no model: it has no config.json; give a checkpoint folder or a hub name")
    with _explained(name, "the configuration"):
        return AutoConfig.from_pretrained(name, revision=revision or "main", trust_remote_code=trust_remote_code)


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint by path or hub name.

    Raises:
        ValueshiftError: there is none.
    """
    with _explained(name, "the tokenizer"):
        return AutoTokenizer.from_pretrained(name, revision=revision or "main", trust_remote_code=trust_remote_code)


def load_model(
    name: str,
    format: str = "encoder-decoder",
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """A model in evaluation mode on its device, its head tied or untied as the checkpoint has it.

    Args:
        name: path or hub name.
        format: how it will be asked, which decides its head.
        dtype: of the weights.
        device: as torch names it.
        revision: of a hub model.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        ValueshiftError: the checkpoint is missing, damaged, or of another family.
    """
    with _explained(name, "the weights"):
        model = _AUTO[format].from_pretrained(
            name, revision=revision or "main", trust_remote_code=trust_remote_code, dtype=dtype
        )
    keep_untied_head(model)
    return model.eval().to(device)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model as safetensors with its tokenizer, so that both major versions of transformers read the same weights."""
    untied = is_untied(model)
    keep_untied_head(model)
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    if untied:
        path = folder / "config.json"
        config = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**config, "tie_word_embeddings": False}, indent=2) + "\n", encoding="utf-8")
