"""The only place that loads and saves models and tokenizers.

transformers 5 forces `tie_word_embeddings=True` on mT5 and umT5 and loads an untied head correctly all the same, but writes
that flag; transformers 4 then ties the head. So what is saved here states `tie_word_embeddings: false` whenever head and
embedding differ, which 5 ignores and 4 needs. Version 4 cannot read the list of special tokens that 5 writes either.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
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
from ..core.paths import float32_overrides
from .adapters import base_of, is_checkpoint, merged, refuse_unmerged, trial_logits
from .heads import is_untied, keep_untied_head
from .hub import checkpoint_folder, hub_trouble
from .inspection import inspect_files, refuse_other_sizes


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
        _refuse_other_weights(name, model, found)
        return (model, found) if wanted_info else model


_NUMBER = re.compile(r"\.\d+\.")
_BUILT = {"encoder-decoder": AutoModelForSeq2SeqLM, "causal": AutoModelForCausalLM, "masked": AutoModelForMaskedLM}
_AUTO = {**_BUILT, "masked": MaskedModels}


def device_named(device: str | None) -> str:
    """The device asked for, else a GPU where there is one.

    Raises:
        ValueshiftError: torch does not know that device, or it holds no values here.
    """
    gpu = torch.cuda.is_available()
    if device and device.startswith("cuda") and not gpu:
        raise ValueshiftError(
            f"torch {torch.__version__} sees no GPU for device '{device}'; leave it out to use the CPU"
        )
    device = device or ("cuda" if gpu else "cpu")
    try:
        torch.zeros(1, device=device).item()
    except Exception as error:  # each backend has errors of its own
        raise ValueshiftError(
            f"torch {torch.__version__} cannot compute on device '{device}' ({_reason(error)}); use cpu, cuda or cuda:N"
        ) from error
    return device


def float32_products() -> dict[str, str]:
    """How products of float32 are computed, where torch or the environment has them rounded further; else nothing.

    It belongs to what determines a result: TF32 keeps ten bits of each factor.
    """
    stated = {"torch": torch.get_float32_matmul_precision(), **float32_overrides()}
    settings = ", ".join(f"{name} {value}" for name, value in stated.items() if value != "highest")
    return {"float32": settings} if settings else {}


def _reason(error: Exception) -> str:
    """What an exception of a library says, in one line."""
    if isinstance(error, UnpicklingError):
        return "its weights are pickled objects that could run code; have them saved as safetensors"
    said = " ".join(str(error).split())[:300].rstrip(".")
    return said if isinstance(error, OSError | ValueError) and said else f"{type(error).__name__} {said}".strip()


@contextmanager
def _explained(name: str, what: str) -> Iterator[None]:
    """Turn what libraries raise about a missing or unreadable checkpoint into one sentence."""
    try:
        yield
    except ValueshiftError:
        raise
    except Exception as error:  # whatever its files make transformers, tokenizers, torch or its own code raise
        raise ValueshiftError(
            f"cannot load {what} of {name!r}: {_reason(error)}; give a checkpoint folder or a hub name"
        ) from error


def _loaded(what: str, load: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Any:
    """What `load` makes of a checkpoint.

    A hub model that is on this machine is taken as it is here, as its digest is of that; the hub is asked for what is not.
    """
    with _explained(name, what):
        if Path(name).is_dir():
            return load(name, **options)
        with suppress(OSError):
            return load(name, local_files_only=True, **options)
        if trouble := hub_trouble(name, options["revision"]):
            raise ValueshiftError(f"cannot load {what} of {name!r}: {trouble}")
        return load(name, **options)


def load_config(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The configuration of a checkpoint by path or hub name; of an adapter's folder that of the model under it.

    Raises:
        ValueshiftError: there is none, or the files of the checkpoint cannot be used.
    """
    if base := base_of(name):
        refuse_unmerged(name)
        return load_config(base.name, revision=base.revision, trust_remote_code=trust_remote_code)
    if folder := checkpoint_folder(name, revision):
        if not (folder / "config.json").is_file():
            raise ValueshiftError(f"{name} is no model: it has no config.json; give a checkpoint folder or a hub name")
        inspect_files(folder)
    options = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    return _loaded("the configuration", AutoConfig.from_pretrained, name, options)


def load_tokenizer(name: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a checkpoint by path or hub name; an adapter's folder without one has that of the model under it.

    Raises:
        ValueshiftError: there is none.
    """
    if (base := base_of(name)) and not (Path(name) / "tokenizer_config.json").is_file():
        return load_tokenizer(base.name, revision=base.revision, trust_remote_code=trust_remote_code)
    if folder := checkpoint_folder(name, revision):
        inspect_files(folder)
    options = {"revision": revision or "main", "trust_remote_code": trust_remote_code}
    return _loaded("the tokenizer", _tokenizer, name, options)


def _tokenizer(name: str, **options: Any) -> Any:
    """As `AutoTokenizer.from_pretrained`.

    Where there are no vocabulary files, transformers 5 makes up a tokenizer of a few pieces and says nothing. Those of bytes or
    characters (ByT5, CANINE) name no such files.

    Raises:
        OSError: the tokenizer names vocabulary files and none is there.
    """
    tokenizer = AutoTokenizer.from_pretrained(name, **options)
    files, folder = tokenizer.vocab_files_names, checkpoint_folder(name, options["revision"])
    vocabulary = {"tokenizer.json", *files.values()}
    if files and folder and not any((folder / file).is_file() for file in vocabulary):
        raise OSError(f"{name} has no tokenizer ({', '.join(sorted(vocabulary))}), which is saved beside the model")
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
        ValueshiftError: the checkpoint is missing, damaged, of another family, lacks some of the weights, or does not answer.
    """
    if base := base_of(name):
        refuse_unmerged(name)
        under = load_model(base.name, format, revision=base.revision, trust_remote_code=trust_remote_code)
        with _explained(name, "the model"):
            return merged(under, name).eval().to(device, dtype)
    config = load_config(name, revision=revision, trust_remote_code=trust_remote_code)
    if (folder := checkpoint_folder(name, revision)) and not trust_remote_code:
        with _explained(name, "the model"):
            refuse_other_sizes(folder, lambda: _BUILT[format].from_config(copy.deepcopy(config)))
    options = {
        "revision": revision or "main",
        "trust_remote_code": trust_remote_code,
        "dtype": dtype,
        "output_loading_info": True,
    }
    model, found = _loaded("the weights", partial(_from_pretrained, _AUTO[format], config), name, options)
    _refuse_other_weights(name, model, found)
    keep_untied_head(model)
    with _explained(name, "the model"):
        model = model.eval().to(device)
        trial_logits(model)
    return model


def _refuse_other_weights(name: str, model: Any, found: Mapping[str, Any]) -> None:
    """Refuse weights that the model lacks, and layers of the weights that it has no place for: loading passes over both."""
    if missing := sorted(found["missing_keys"]):
        raise ValueshiftError(
            f"'{name}' has no weights for {missing[0]} ({len(missing)} such tensors), which would be random; "
            f"give a checkpoint that was saved whole, with its language-model head"
        )
    names = model.state_dict().keys()
    if layers := sorted(key for key in found["unexpected_keys"] if _NUMBER.sub(".0.", key, count=1) in names):
        raise ValueshiftError(
            f"'{name}' has weights for {layers[0]} ({len(layers)} such tensors), a layer that its configuration does not have; "
            f"put the configuration back that belongs to them"
        )


def _from_pretrained(auto: Any, config: Any, name: str, **options: Any) -> tuple[Any, dict[str, Any]]:
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
