"""Adapters, such as LoRA's: a folder with `adapter_config.json`, which names the model that the adapter was trained over."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import ValueshiftError

CONFIG = "adapter_config.json"


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
        ValueshiftError: the adapter names no base, or a path that is not there.
    """
    config = Path(name) / CONFIG
    if not config.is_file():
        return None
    try:
        stated: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueshiftError(f"{config} is damaged ({error}); copy the adapter again") from error
    base = stated.get("base_model_name_or_path")
    if not base:
        raise ValueshiftError(f"{config} names no base model; write its path to base_model_name_or_path")
    for path in (config.parent / base, Path(base)):
        if path.is_dir():
            return Base(str(path))
    if Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1:
        raise ValueshiftError(
            f"the adapter {name} was trained over {base}, which is not there; put that model back or write its new path to "
            f"base_model_name_or_path in {config}"
        )
    return Base(base, stated.get("revision"))


def merged(model: Any, folder: str) -> Any:
    """The model with the adapter in `folder` merged into its weights; `model` itself is changed.

    Raises:
        ValueshiftError: the adapter does not fit the model, or is damaged.
    """
    from peft import PeftModel
    from safetensors import SafetensorError

    try:
        whole = PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueshiftError(f"cannot load the adapter {folder} over {model.name_or_path}: {reason}") from error
    # An adapter that is trained over the whole names it as its base.
    whole.name_or_path = whole.config.name_or_path = folder
    return whole
