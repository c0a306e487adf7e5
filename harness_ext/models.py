"""The only place that loads and saves models and tokenizers.

transformers 5 forces `tie_word_embeddings=True` on mT5 and umT5 and loads an untied head correctly all the same, but writes
that flag; transformers 4 then ties the head. So what is saved here states `tie_word_embeddings: false` whenever head and
embedding differ, which 5 ignores and 4 needs. Version 4 cannot read the list of special tokens that 5 writes either.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    __version__,
)

from ..core.errors import ValueshiftError
from ..core.files import whole_folder
from .adapters import base_of, is_checkpoint, merged
from .heads import is_untied, keep_untied_head


class MaskedModels:
    """`AutoModelForMaskedLM`, for checkpoints that have a trained head.

    The released DeBERTa checkpoints of the second and third version name the parts of their head as transformers does with
    `legacy=False` only; without it the head is random and nothing says so.
    """

    @staticmethod
    def from_pretrained(name: str, **options: Any) -> Any:
        """As `AutoModelForMaskedLM.from_pretrained`.

        Raises:
            ValueshiftError: some of the model's weights are not in the checkpoint.
        """
        wanted_info = options.pop("output_loading_info", False)
        model, found = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True, **options)
        if any(key.startswith("lm_predictions.") for key in found["unexpected_keys"]):
            model.config.legacy = False
            model.config.tie_word_embeddings = False  # transformers 4 would tie another layer of this head
            options["config"] = model.config
            model, found = AutoModelForMaskedLM.from_pretrained(name, output_loading_info=True, **options)
        _refuse_missing(name, found)
        return (model, found) if wanted_info else model


_AUTO = {"encoder-decoder": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM, "masked": MaskedModels}


def device_named(device: str | None) -> str:
    """The device asked for, else a GPU where there is one.

    Raises:
        ValueshiftError: a GPU is asked for, and torch sees none.
    """
    gpu = torch.cuda.is_available()
    if device and device.startswith("cuda") and not gpu:
        raise ValueshiftError(
            f"torch {torch.__version__} sees no GPU for device '{device}'; leave it out to use the CPU"
        )
    return device or ("cuda" if gpu else "cpu")


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Turn what transformers raises about a missing or unreadable checkpoint into one sentence."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueshiftError(
            f"cannot load {what} of '{name}': {reason}; give a checkpoint folder or a hub name"
        ) from error


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The configuration of a checkpoint by path or hub name; of an adapter's folder that of the model under it.

    Raises:
        ValueshiftError: there is none.
    """
    if base := base_of(name):
        return load_config(base.name, revision=base.revision, trust_remote_code=trust_remote_code)
    folder = Path(name)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueshiftError(f"{name} is no model: it has no config.json; give a checkpoint folder or a hub name")
    with _explained(name, "the configuration"):
        return AutoConfig.from_pretrained(name, revision=revision or "main", trust_remote_code=trust_remote_code)


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint by path or hub name; an adapter's folder without one has that of the model under it.

    Raises:
        ValueshiftError: there is none.
    """
    if (base := base_of(name)) and not (Path(name) / "tokenizer_config.json").is_file():
        return load_tokenizer(base.name, revision=base.revision, trust_remote_code=trust_remote_code)
    with _explained(name, "the tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=revision or "main", trust_remote_code=trust_remote_code
        )
    # Where there are no vocabulary files, transformers 5 makes up a tokenizer of a few pieces and says nothing.
    vocabulary = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if Path(name).is_dir() and not any((Path(name) / file).is_file() for file in vocabulary):
        raise ValueshiftError(f"{name} has no tokenizer ({', '.join(sorted(vocabulary))}); save it beside the model")
    return tokenizer


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
        name: path or hub name; an adapter's folder gives the model under it with the adapter merged (in float32).
        format: how it will be asked, which decides its head.
        dtype: of the weights.
        device: as torch names it.
        revision: of a hub model.
        trust_remote_code: run code that comes with the checkpoint.

    Raises:
        ValueshiftError: the checkpoint is missing, damaged, of another family, or lacks some of the weights.
    """
    if base := base_of(name):
        under = load_model(base.name, format, revision=base.revision, trust_remote_code=trust_remote_code)
        return merged(under, name).eval().to(device, dtype)
    options = {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        "dtype": dtype,
        "output_loading_info": True,
    }
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    with _explained(name, "the weights"):
        model, found = _from_pretrained(_AUTO[format], name, config, options)
    _refuse_missing(name, found)
    keep_untied_head(model)
    return model.eval().to(device)


def _refuse_missing(name: str, found: Mapping[str, Any]) -> None:
    if missing := sorted(found["missing_keys"]):
        raise ValueshiftError(
            f"'{name}' has no weights for {missing[0]} ({len(missing)} such tensors), which would be random; "
            f"give a checkpoint that was saved whole, with its language-model head"
        )


def _from_pretrained(auto: Any, name: str, config: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The model and what was found of its weights.

    transformers 4 believes a configuration that 5 wrote and ties a head that is not tied. There the weights decide: they are
    loaded untied first, and as the configuration says where they have no head that differs from the embedding.
    """
    if __version__.startswith("4.") and config.is_encoder_decoder and config.tie_word_embeddings:
        config.tie_word_embeddings = False
        model, found = auto.from_pretrained(name, config=config, **options)
        head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
        if "lm_head.weight" not in found["missing_keys"] and not torch.equal(head, embedding):
            return model, found
        config.tie_word_embeddings = True
    model, found = auto.from_pretrained(name, config=config, **options)
    return model, found


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model as safetensors with its tokenizer, so that both major versions of transformers read the same weights.

    Of a model with a peft adapter the adapter alone is saved, without config.json: transformers, too, then loads its base. The
    folder is written whole or not at all; an older checkpoint there is replaced.

    Raises:
        ValueshiftError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not is_checkpoint(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueshiftError(f"{folder} exists and is no checkpoint; choose another folder or remove it")
    keep_untied_head(model)
    with whole_folder(folder) as temporary:
        model.save_pretrained(temporary, safe_serialization=True)
        tokenizer.save_pretrained(temporary)
        if is_untied(model) and (config := temporary / "config.json").is_file():
            _write(config, {**_read(config), "tie_word_embeddings": False})
        _readable_by_4(temporary / "tokenizer_config.json")
        for file in temporary.iterdir():
            file.chmod(0o644)  # safetensors writes files that only their owner can read


def _readable_by_4(path: Path) -> None:
    """Name the special tokens as transformers 4 reads them and 5 still does: 5 writes a list that 4 takes for a mapping."""
    stated = _read(path)
    if isinstance(tokens := stated.get("extra_special_tokens"), list):
        del stated["extra_special_tokens"]
        _write(path, {**stated, "additional_special_tokens": tokens} if tokens else stated)


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
