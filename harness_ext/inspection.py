"""What the files of a checkpoint say, looked at before anything of it is loaded: others may have written or damaged them.

A model is built as its configuration says and only then filled: a wrong number there costs all memory or time before a library
says what is wrong. So what it asks for is counted first, and compared with what the weights hold.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..core.digests import read_config
from ..core.errors import ValueshiftError
from ..core.limits import CONFIG_COUNT, CONFIG_LAYERS, PARAMETERS_PER_BYTE
from ..core.tensors import REMEDY, Stated, stated_tensors

PICKLED = (".bin", ".pt", ".pth")
_COUNTED = re.compile(r"(layers?|heads?|labels|experts|groups|blocks|stages|extra_ids)$")
_AT_LEAST_ONE = ("num_layers", "num_hidden_layers", "n_layer")
_INDEX = "model.safetensors.index.json"
_LEAST = 1 << 22
"""Bytes of weights below which buffers, such as masks of all positions, may be larger than the model."""
_RANKS = ("r", "init_r", "n_frequency", "num_vectors", "vector_length")


def inspect_files(folder: Path) -> None:
    """Refuse a checkpoint whose files cannot be read as files, or whose configurations ask for the absurd.

    Raises:
        ValueshiftError: names the file, the field and the remedy.
    """
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise ValueshiftError(f"{path} is no file (a pipe or a device); {REMEDY}")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            for field, number in _numbers(read_config(folder / name)):
                least = 1 if field in _AT_LEAST_ONE else 0
                most = CONFIG_LAYERS if "layer" in field else CONFIG_COUNT
                if _COUNTED.search(field) and not least <= number <= most:
                    raise ValueshiftError(
                        f"{folder / name}, {field}: {number} is absurd, {least} to {most:,} are taken; correct it or {REMEDY}"
                    )


def inspect_weights(folder: Path) -> dict[str, Stated]:
    """The tensors that the safetensors files of a checkpoint or adapter state, by name; none where its weights are pickled.

    Raises:
        ValueshiftError: a file is damaged, the index and its files disagree, or there are no weights.
    """
    files = {path.name: stated_tensors(path) for path in sorted(folder.glob("*.safetensors"))}
    if (index := folder / _INDEX).is_file() and "model.safetensors" not in files:
        places = read_config(index).get("weight_map")
        if not isinstance(places, dict):
            raise ValueshiftError(f"{index} is damaged (its weight_map is no object); {REMEDY}")
        for tensor, file in places.items():
            if not isinstance(file, str) or tensor not in files.get(file, {}):
                raise ValueshiftError(f"{index} names {file} for tensor '{tensor}', which is not there; {REMEDY}")
    if not files and not any(path.suffix in PICKLED for path in folder.iterdir()):
        raise ValueshiftError(f"{folder} has no weights (*.safetensors or *.bin); {REMEDY}")
    return {name: stated for tensors in files.values() for name, stated in tensors.items()}


def refuse_other_sizes(folder: Path, build: Callable[[], Any]) -> None:
    """Refuse a model that would be built larger than its weights.

    Args:
        folder: of the checkpoint.
        build: gives the model that its configuration describes; called where nothing is allocated.

    Raises:
        ValueshiftError: names the tensor, or the number of parameters.
    """
    stated = inspect_weights(folder)
    with torch.device("meta"):
        model = build()
    quantised = getattr(model.config, "quantization_config", None) is not None
    for name, parameter in model.named_parameters():
        if not quantised and name in stated and stated[name].size != parameter.numel():
            raise ValueshiftError(
                f"{folder / 'config.json'} makes {name} {tuple(parameter.shape)}, its weights have it as {stated[name].shape}; "
                f"put the configuration back that belongs to them"
            )
    wanted = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    held = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", *PICKLED))
    if wanted > PARAMETERS_PER_BYTE * max(held, _LEAST):
        raise ValueshiftError(
            f"{folder / 'config.json'} describes {wanted:,} parameters, but the weights have {held:,} bytes; put the "
            f"configuration back that belongs to them"
        )


def inspect_adapter(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse an adapter of higher rank than its weights have, or that repeats layers without end.

    Raises:
        ValueshiftError: names the field, or the damaged file.
    """
    inspect_files(folder)
    stated = inspect_weights(folder)
    largest = max((dimension for one in stated.values() for dimension in one.shape), default=CONFIG_COUNT)
    for field, number in _numbers(config):
        most = CONFIG_LAYERS if "layer" in field else largest
        if (field in _RANKS or field.startswith(("rank_pattern.", "layer_replication"))) and number > most:
            raise ValueshiftError(
                f"{folder / 'adapter_config.json'}, {field}: {number} is more than its weights have ({most}); put the "
                f"configuration back that belongs to them"
            )


def _numbers(value: Any, field: str = "") -> Iterator[tuple[str, float]]:
    """All numbers in a configuration with the names of their fields, `text_config.num_layers`; of a list that of the list."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _numbers(inner, f"{field}.{name}" if field else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, field)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield field, value
