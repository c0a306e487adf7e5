"""What safetensors files say they hold, checked before anything is read, allocated or hashed by it."""

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .errors import ValueshiftError
from .limits import JSON_BYTES, TENSOR_FILE_BYTES
from .outside import parse_json, regular_file

REMEDY = "copy or download it again"


@dataclass(frozen=True)
class Stated:
    """One tensor as the header of its file states it."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    """Of its bytes in the file."""
    stop: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def stated_tensors(path: Path) -> dict[str, Stated]:
    """The tensors of a safetensors file by name, from its header alone.

    The library decides whether types, shapes and offsets agree with each other and fill the file; the header's length is
    bounded before.

    Raises:
        ValueshiftError: the file is missing, no regular file, or damaged.
    """
    from safetensors import SafetensorError, safe_open

    regular_file(path, REMEDY, TENSOR_FILE_BYTES)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > JSON_BYTES:
                raise ValueshiftError(
                    f"{path} is damaged (a header of {length:,} bytes, at most {JSON_BYTES:,} are read); {REMEDY}"
                )
            with safe_open(path, "numpy"):
                header: dict[str, Any] = parse_json(stream.read(length), str(path), REMEDY)
    except (OSError, SafetensorError) as error:
        raise ValueshiftError(f"{path} is damaged or truncated ({error}); {REMEDY}") from error
    return {
        name: Stated(entry["dtype"], tuple(entry["shape"]), *(8 + length + offset for offset in entry["data_offsets"]))
        for name, entry in header.items()
        if name != "__metadata__"
    }
