"""Content digests, so that the same work is recognised and not done twice."""

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .errors import ValueshiftError
from .limits import CONFIG_INTEGER, TENSOR_FILE_BYTES
from .outside import read_json, regular_file
from .tensors import REMEDY, stated_tensors

_CHUNK = 1 << 20
_UNHASHED_CONFIG_KEYS = {"transformers_version", "_name_or_path", "name_or_path", "_commit_hash"}
_UNHASHED_CONFIG_KEYS |= {"peft_version", "base_model_name_or_path", "revision"}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARY_SUFFIXES = (".model", ".vocab", ".txt", ".bpe")
_WEIGHT_SUFFIXES = (".bin", ".pt", ".pth")


def digest(inputs: Any) -> str:
    """First 16 hex digits of SHA-256 over the sorted-key JSON of `inputs`, in UTF-8; what that cannot say is `?`."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _whole_sha256(path: Path) -> str:
    """`file_sha256` of a file of a checkpoint that others made."""
    return file_sha256(regular_file(path, REMEDY, TENSOR_FILE_BYTES))


def text_digest(lines: Iterable[str]) -> str:
    """First 16 hex digits of SHA-256 over lines of text, order included."""
    whole = hashlib.sha256()
    for line in lines:
        whole.update(line.encode() + b"\n")
    return whole.hexdigest()[:16]


def _tensor_hashes(path: Path) -> dict[str, str]:
    """SHA-256 per tensor of a safetensors file: name, dtype and shape are hashed with the bytes."""
    hashes = {}
    found = sorted(stated_tensors(path).items())
    with path.open("rb") as stream:
        for name, stated in found:
            tensor = hashlib.sha256(f"{name}|{stated.dtype}|{list(stated.shape)}|".encode())
            stream.seek(stated.start)
            for start in range(stated.start, stated.stop, _CHUNK):
                tensor.update(stream.read(min(_CHUNK, stated.stop - start)))
            hashes[name] = tensor.hexdigest()
    return hashes


def read_config(path: Path) -> dict[str, Any]:
    """The object that a configuration file of a model, tokenizer or adapter holds.

    Raises:
        ValueshiftError: it cannot be read, or holds something else.
    """
    config = read_json(path, REMEDY, integer=CONFIG_INTEGER)
    if not isinstance(config, dict):
        raise ValueshiftError(f"{path} is damaged (it holds no object); {REMEDY}")
    return config


def _stable_config(path: Path) -> dict[str, Any]:
    config = read_config(path)
    if isinstance(modules := config.get("target_modules"), list):
        config["target_modules"] = sorted(modules, key=str)  # of an adapter: a set, written in any order
    return {key: _hashable(value) for key, value in config.items() if key not in _UNHASHED_CONFIG_KEYS}


def _hashable(value: Any) -> Any:
    """A value of a configuration, with infinities (Mamba has them) and NaN as text: JSON proper knows neither."""
    if isinstance(value, dict):
        return {key: _hashable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hashable(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def model_digest(folder: Path, base: str | None = None) -> str:
    """Digest of a checkpoint folder: its tensors, tokenizer files and configuration, or those of an adapter.

    The layout does not matter (one safetensors file or shards); paths and library versions in the configuration are
    left out. Weights in other formats enter by their bytes.

    Args:
        folder: of the checkpoint.
        base: of an adapter, the digest of the model under it, which then enters too.

    Raises:
        ValueshiftError: the folder holds no configuration or no weights, or one of its files is damaged.
    """
    configs = [folder / name for name in ("config.json", "adapter_config.json") if (folder / name).is_file()]
    if not configs:
        raise ValueshiftError(f"{folder} is no model: it has no config.json; give a checkpoint folder or a hub name")
    tensors: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= _tensor_hashes(file)
    if not tensors:
        tensors = {
            file.name: _whole_sha256(file) for file in sorted(folder.iterdir()) if file.suffix in _WEIGHT_SUFFIXES
        }
    if not tensors:
        raise ValueshiftError(f"{folder} is no model: it has no weights (*.safetensors or *.bin); {REMEDY}")
    vocabulary = {
        file.name: _whole_sha256(file)
        for file in sorted(folder.iterdir())
        if file.name in _TOKENIZER_FILES or file.suffix in _VOCABULARY_SUFFIXES
    }
    stated = {file.name: _stable_config(file) for file in configs}
    under = {} if base is None else {"base": base}
    return digest({"tensors": tensors, "tokenizer": vocabulary, "config": stated, **under})
