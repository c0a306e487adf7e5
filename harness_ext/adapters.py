"""Adapters, such as LoRA's: a folder with `adapter_config.json`, which names the model that the adapter was trained over."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ..core.digests import read_config
from ..core.errors import ValueshiftError
from ..core.limits import ADAPTERS_DEEP
from .inspection import inspect_adapter

CONFIG = "adapter_config.json"
MERGED_TO = 1e-3
"""Of the spread of the logits: float32 sums in another order, over some dozen layers, keep 1e-4 of it."""


class Base(NamedTuple):
    """The model under an adapter."""

    name: str
    """Path or hub name."""
    revision: str | None = None
    """Of a hub model."""


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter."""
    return any((folder / name).is_file() for name in ("config.json", CONFIG))


def base_of(name: str) -> Base | None:
    """The model under the adapter in folder `name`; None where that is no adapter.

    A relative path is looked for beside the adapter's files, then in the working directory.

    Raises:
        ValueshiftError: the adapter names no base, or a path that is not there, or lies over itself.
    """
    base = _base_of(name)
    under, deep = base, 1
    while under is not None and (under := _base_of(under.name)) is not None:
        if (deep := deep + 1) > ADAPTERS_DEEP:
            raise ValueshiftError(
                f"{name} is an adapter over more than {ADAPTERS_DEEP} others, or over itself; write the path of its base to "
                f"base_model_name_or_path in {Path(name) / CONFIG}"
            )
    return base


def _base_of(name: str) -> Base | None:
    config = Path(name) / CONFIG
    if not config.is_file():
        return None
    stated = read_config(config)
    base, revision = stated.get("base_model_name_or_path"), stated.get("revision")
    if not base or not isinstance(base, str):
        raise ValueshiftError(f"{config} names no base model; write its path to base_model_name_or_path")
    if not isinstance(revision, str | None):
        raise ValueshiftError(f"{config}, revision: {revision} is no text; name a revision of {base} or none")
    for path in (config.parent / base, Path(base)):
        if path.is_dir():
            return Base(str(path))
    if Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1:
        raise ValueshiftError(
            f"the adapter {name} was trained over {base}, which is not there; put that model back or write its new path to "
            f"base_model_name_or_path in {config}"
        )
    return Base(base, revision)


def refuse_unmerged(folder: str) -> None:
    """Refuse an adapter that is no change of weights, before its base is loaded.

    Raises:
        ValueshiftError: it is of another kind, or its files are damaged.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.tuners.tuners_utils import BaseTuner

    config = read_config(Path(folder) / CONFIG)
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        raise ValueshiftError(
            f"{Path(folder) / CONFIG}, peft_type: {kind} is not known to this peft; upgrade or correct it"
        )
    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(kind)
    if tuner is None or not issubclass(tuner, BaseTuner) or kind in _MIXTURES:
        raise ValueshiftError(
            f"the adapter {folder} is of kind {kind}, which is no change of the model's weights; give one that can be "
            f"merged into them, such as LORA"
        )
    inspect_adapter(Path(folder), config)


def merged(model: Any, folder: str) -> Any:
    """The model with the adapter in `folder` merged into its weights; `model` itself is changed.

    It answers as peft's unmerged model does, which is checked. Weights that an adapted layer shares with another one (embedding
    and head of a tied model, both embeddings of a T5) are its own before they are changed: unmerged, too, the other one keeps
    them as they are.

    Raises:
        ValueshiftError: the adapter does not fit the model, is damaged, or cannot be merged.
    """
    from peft import PeftModel

    try:
        tuned = PeftModel.from_pretrained(model, folder).eval()
        _refuse_other_weights(tuned, folder)
        wanted = trial_logits(tuned)
        _unshare(tuned)
        whole = tuned.merge_and_unload()
        found = trial_logits(whole)
    except ValueshiftError:
        raise
    except Exception as error:  # peft and torch raise whatever the adapter's files make them
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise ValueshiftError(
            f"cannot load the adapter {folder} over {model.name_or_path}, or merge it: {reason}; give one that fits and can be "
            f"merged"
        ) from error
    if not (found - wanted).abs().max() <= MERGED_TO * (wanted.max() - wanted.min()):
        raise ValueshiftError(
            f"the adapter {folder} gives other answers when it is merged into {model.name_or_path}; merge it with its own tool "
            f"and give the merged model"
        )
    # An adapter that is trained over the whole names it as its base.
    whole.name_or_path = whole.config.name_or_path = folder
    return whole


def trial_logits(model: Any) -> Any:
    """Logits of a first pass through a model, positions x vocabulary: what cannot answer says so here."""
    import torch

    config = model.config
    ids = torch.arange(4, device=model.device)[None]
    start = {"decoder_input_ids": ids[:, :1] * 0 + config.decoder_start_token_id} if config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=ids, **start).logits[0].float()


def _unshare(tuned: Any) -> None:
    """Give each adapted layer weights of its own where other modules have the same."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    held = Counter(id(one) for module in tuned.modules() for one in module._parameters.values())
    for module in tuned.modules():
        if isinstance(module, BaseTunerLayer):
            layer = module.get_base_layer()
            for name, one in layer._parameters.items():
                if one is not None and held[id(one)] > 1:
                    layer._parameters[name] = Parameter(one.detach().clone(), requires_grad=False)


def _refuse_other_weights(tuned: Any, folder: str) -> None:
    """peft leaves what an adapter's file lacks as it is drawn, and what it has besides aside."""
    from peft.utils import get_peft_model_state_dict, load_peft_weights

    held = set(load_peft_weights(folder, device="cpu"))
    needed = set(get_peft_model_state_dict(tuned, save_embedding_layers=False))
    taken = needed | {f"base_model.model.{name}" for name in tuned.get_base_model().state_dict()}
    for names, fault in ((needed - held, "lacks"), (held - taken, "has besides")):
        if names:
            raise ValueshiftError(
                f"the adapter {folder} does not fit {tuned.get_base_model().name_or_path}: its file {fault} {min(names)}; "
                f"give the model that it was trained over"
            )


_MIXTURES = ("POLY", "XLORA")
