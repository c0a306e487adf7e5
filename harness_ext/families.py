"""Which model is asked: its family decides the format, its identity the cache keys.

The harness hands a task no model. `asking(lm)` (set by the hook around `lm_eval.evaluate`) tells it; without the hook the
task reads `pretrained` from the metadata that `simple_evaluate` and the command line make of `model_args`.
"""

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from contextvars import ContextVar
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from ..core.digests import digest, model_digest
from ..core.errors import ValueshiftError
from . import heads
from .adapters import base_of
from .formats import FORMATS, Format
from .hub import checkpoint_folder
from .patches import head_is_kept

log = logging.getLogger(__name__)

_HOW = "pass the format: --metadata format=encoder-decoder, causal or masked"
_WEIGHTS = ("pretrained", "model_path", "model")
_ADAPTERS = ("peft", "delta", "subfolder", "lora_local_path")
_VARIANTS = ("revision", *_ADAPTERS)


@dataclass(frozen=True)
class _Call:
    """One evaluation: the `LM` that it asks, and what was said in it."""

    lm: Any
    said: set[str] = field(default_factory=set)
    unnamed: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Stands for a model that nothing names: the same in all tasks of a call, and in no other call."""


_current: ContextVar[_Call | None] = ContextVar("valueshift_call", default=None)


@dataclass(frozen=True)
class Asked:
    """The model that a task is about to ask."""

    format: Format
    name: str
    """Path or hub name as the user gave it."""
    digest: str
    """Content digest of a checkpoint, or of the arguments where the weights cannot be seen."""
    tokenizer: Any = None
    rows: int | None = None
    """Rows of the input embedding, where known."""
    dtype: str = "unknown"
    positions: int | None = None
    """Tokens that the harness gives this model at most; it would cut what is longer."""
    engine: str = ""
    """What computes, and with which arguments: engines do not give the same log-probabilities."""

    @property
    def key(self) -> str:
        """What has to be the same for cached requests and responses to be used again."""
        return f"{self.format}-{self.digest}-{digest([self.dtype, self.engine])}"


@contextmanager
def asking(lm: Any) -> Iterator[None]:
    """While active, tasks built or run in this context ask `lm` (a harness `LM`, possibly inside its `CachingLM`)."""
    token = _current.set(_Call(getattr(lm, "lm", lm)))
    try:
        yield
    finally:
        _current.reset(token)


def say_once(message: str, about: str = "") -> None:
    """Warn of what holds for several tasks of a call once in that call; `about` stands before the first."""
    call = _current.get()
    if call is None or message not in call.said:
        log.warning("%s%s", about, message)
    if call is not None:
        call.said.add(message)


def family(config: Any) -> Format:
    """The format for a Hugging Face configuration.

    Raises:
        ValueshiftError: nothing in it tells the family.
    """
    stated = getattr(config, "architectures", None)
    architectures = tuple(map(str, stated)) if isinstance(stated, list | tuple) else ()
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    if any(name.endswith("ForMaskedLM") for name in architectures):
        return "masked"
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

    causal = type(config) in AutoModelForCausalLM._model_mapping
    masked = type(config) in AutoModelForMaskedLM._model_mapping
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures) or (causal and not masked):
        return "causal"
    if masked and not causal:
        return "masked"
    raise ValueshiftError(f"cannot tell the family of {config.model_type} with architectures {architectures}; {_HOW}")


def current(metadata: Mapping[str, Any]) -> Asked:
    """The model being asked: the active one, else the one that `metadata` names.

    Raises:
        ValueshiftError: neither tells, or the family cannot be asked this way.
    """
    stated = _stated(metadata)
    call = _current.get()
    if call is not None:
        return _from_call(call, metadata, stated)
    return _from_metadata(metadata, stated)


def _stated(metadata: Mapping[str, Any]) -> Format | None:
    stated: Format | None = metadata.get("format")
    if stated is not None and stated not in FORMATS:
        raise ValueshiftError(f"unknown format '{stated}' in the metadata; {_HOW}")
    return stated


def refuse_from_arguments(model: Any, metadata: Mapping[str, Any]) -> None:
    """Refuse what the arguments of a call tell already: a format that is none, a masked model in front of `--model hf`.

    Args:
        model: the harness's name of the model class, or an `LM`.
        metadata: with the model's arguments, as the tasks get it.

    Raises:
        ValueshiftError: says which it is.
    """
    name = metadata.get("pretrained")
    if _stated(metadata) or model != "hf" or not isinstance(name, str):
        return
    from .models import load_config

    try:
        config = load_config(
            name, revision=metadata.get("revision"), trust_remote_code=bool(metadata.get("trust_remote_code"))
        )
        masked = family(config) == "masked"
    except Exception as error:  # noqa: BLE001  (the harness may know better what to make of it)
        log.debug("%s tells no family before it is loaded: %s", name, error)
        return
    if masked:
        raise _masked(config)


def _masked(config: Any) -> ValueshiftError:
    return ValueshiftError(
        f"{config.model_type} is a masked model; --model hf would score it as a left-to-right one: use --model hf-mlm"
    )


def _from_call(call: _Call, metadata: Mapping[str, Any], stated: Format | None) -> Asked:
    lm = call.lm
    _refuse_without_log_probabilities(lm)
    kind = stated or getattr(lm, "cloze_format", None) or _family_of_lm(lm)
    model = getattr(lm, "model", None)
    embedding = model.get_input_embeddings() if model is not None and hasattr(model, "get_input_embeddings") else None
    in_memory = hasattr(model, "state_dict") and not isinstance(getattr(lm, "pretrained", None), str)
    named = {} if in_memory else _named(lm, metadata)
    if kind == "encoder-decoder" and (lost := heads.tied_on_the_way(model, _loaded_from(model, named))):
        raise ValueshiftError(lost)
    arguments = sorted(f"{name}={value}" for name, value in metadata.items())
    return Asked(
        format=kind,
        name=next((named[name] for name in _WEIGHTS if name in named), type(lm).__name__),
        digest=_state_digest(model) if in_memory else _digest(named or {"unnamed": call.unnamed}),
        tokenizer=_tokenizer(lm),
        rows=embedding.weight.shape[0] if embedding is not None else None,
        dtype=str(getattr(model, "dtype", "unknown")).removeprefix("torch."),
        positions=getattr(lm, "max_length", None),
        engine=" ".join([type(lm).__name__, *arguments]),
    )


def _refuse_without_log_probabilities(lm: Any) -> None:
    """A model behind an API, which has no weights here, is given an empty list: where that is refused, so is every request."""
    if hasattr(lm, "loglikelihood") and isinstance(getattr(lm, "model", None), str | None):
        try:
            with redirect_stderr(StringIO()):  # bars of no progress
                lm.loglikelihood([])
        except (NotImplementedError, AssertionError) as error:
            raise ValueshiftError(
                f"{type(lm).__name__} gives no log-probabilities, by which a cloze statement is answered "
                f"({str(error).partition('. ')[0]}); use an API that does, such as --model local-completions"
            ) from error
        except Exception as error:  # noqa: BLE001  (no list of requests is empty: this one says nothing)
            log.debug("%s cannot take an empty list: %s", type(lm).__name__, error)


def _tokenizer(lm: Any) -> Any:
    """The tokenizer of an `LM`; None where it has none, or would look for it where it cannot be had (`--model dummy`)."""
    try:
        return getattr(lm, "tokenizer", None)
    except Exception as error:  # noqa: BLE001  (a property of anybody's class)
        log.info("%s has no tokenizer here: %s", type(lm).__name__, error)
        return None


def _loaded_from(model: Any, named: Mapping[str, str]) -> Path | None:
    """The folder with the weights under all adapters, by what names the model or by where it says that it came from."""
    name = next((named[key] for key in _WEIGHTS if key in named), None) or getattr(model, "name_or_path", None)
    revision = named.get("revision") or getattr(getattr(model, "config", None), "_commit_hash", None)
    folder = checkpoint_folder(name, revision) if name else None
    while folder is not None and (base := base_of(str(folder))):
        folder = checkpoint_folder(*base)
    return folder and folder / named.get("subfolder", "")


def _named(lm: Any, metadata: Mapping[str, Any]) -> dict[str, str]:
    """What names the model: attributes of the `LM`, the arguments of its engine (vLLM, SGLang), else the command line's."""
    engine = getattr(lm, "model_args", None)
    arguments = engine if isinstance(engine, Mapping) else {}
    found = {}
    for name in (*_WEIGHTS, *_VARIANTS, "base_url"):
        values = (getattr(lm, name, None), arguments.get(name), metadata.get(name))
        if (value := next((value for value in values if isinstance(value, str) and value), None)) is not None:
            found[name] = value
    return found


def _family_of_lm(lm: Any) -> Format:
    config = getattr(getattr(lm, "model", None), "config", None) or getattr(lm, "config", None)
    backend = getattr(lm, "backend", None)
    if backend == "seq2seq":
        return "encoder-decoder"
    if config is not None and hasattr(config, "model_type"):
        found = family(config)
        if found == "masked":
            raise _masked(config)
        return found
    # Models of the harness that state no backend (gguf, dummy, textsynth ...) are left-to-right ones.
    if backend == "causal" or (backend is None and type(lm).__module__.startswith("lm_eval.models.")):
        return "causal"
    raise ValueshiftError(f"cannot tell the family of {type(lm).__name__}; {_HOW}")


def _from_metadata(metadata: Mapping[str, Any], stated: Format | None) -> Asked:
    name = metadata.get("pretrained") or metadata.get("model")
    if not isinstance(name, str):
        raise ValueshiftError(
            "this task cannot see which model it asks; "
            f"call lm_eval.simple_evaluate with model_args, leave the hook on, or {_HOW}"
        )
    from .models import load_config, load_tokenizer

    revision = metadata.get("revision") or "main"
    trust = bool(metadata.get("trust_remote_code", False))
    config = load_config(name, revision=revision, trust_remote_code=trust)
    tokenizer = load_tokenizer(metadata.get("tokenizer") or name, revision=revision, trust_remote_code=trust)
    named = {key: str(metadata[key]) for key in (*_WEIGHTS, *_VARIANTS) if metadata.get(key)}
    kind = stated or family(config)
    if kind == "encoder-decoder" and getattr(config, "tie_word_embeddings", False) and not head_is_kept():
        # The harness will tie what this version of transformers calls tied; the weights may know better.
        folder = _loaded_from(None, named)
        if folder is not None and heads.has_own_head(folder):
            raise ValueshiftError(heads.lost(folder))
    return Asked(
        format=kind,
        name=name,
        digest=_digest(named),
        tokenizer=tokenizer,
        rows=getattr(config, "vocab_size", None),
        dtype=str(metadata.get("dtype", "auto")),
    )


def _digest(named: Mapping[str, str]) -> str:
    """Content digest where the weights can be seen, else a digest of what names the model."""
    pretrained = next((named[name] for name in _WEIGHTS if name in named), None)
    if pretrained is None:
        return digest(dict(named))
    folder = checkpoint_folder(pretrained, named.get("revision", "main"))
    if folder is None:
        return digest(dict(named))
    base = base_of(str(folder))
    whole = model_digest(folder, None if base is None else pretrained_digest(*base))
    adapters = {key: value for key, value in named.items() if key in _ADAPTERS}
    if not adapters:
        return whole
    if adapters.keys() == {"peft"} and Path(adapters["peft"]).is_dir():  # the same as the adapter's folder by itself
        return model_digest(Path(adapters["peft"]), whole)
    parts = {key: model_digest(Path(value)) if Path(value).is_dir() else value for key, value in adapters.items()}
    return digest({"base": whole, **parts})


def pretrained_digest(name: str, revision: str | None = None) -> str:
    """Content digest of a checkpoint by path or hub name; of its name and revision where it is not on this machine.

    That of an adapter's folder covers the model under it, wherever that lies.

    Raises:
        ValueshiftError: the folder is no checkpoint, or the model under its adapter is not there.
    """
    return _digest({"pretrained": name, "revision": revision or "main"})


def _state_digest(model: Any) -> str:
    """Digest of a model that exists in memory only."""
    import hashlib

    import torch

    whole = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        whole.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        whole.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]
