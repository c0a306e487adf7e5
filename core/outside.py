"""Reading files that others may have written, damaged or planted: regular files only, bounded, and errors in one sentence."""

import json
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from .errors import ValueshiftError
from .limits import INTEGER, JSON_BYTES, JSON_DEPTH

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def regular_file(path: Path, remedy: str, most: int) -> Path:
    """`path`, if it is a regular file of at most `most` bytes; reading a FIFO or a device might never end.

    Args:
        path: links are followed.
        remedy: what the user can do about it, for the message.
        most: in bytes.

    Raises:
        ValueshiftError: it is missing, something else, cannot be looked at, or is larger.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise ValueshiftError(f"{path} does not exist; {remedy}") from None
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"{path} cannot be read ({error}); {remedy}") from error
    if not path.is_file():
        raise ValueshiftError(f"{path} is no file; {remedy}")
    if size > most:
        raise ValueshiftError(f"{path} has {size:,} bytes, at most {most:,} are read; {remedy}")
    return path


def read_json(path: Path, remedy: str, most: int = JSON_BYTES, *, integer: int = INTEGER) -> Any:
    """The content of a UTF-8 JSON file (see `parse_json`).

    Raises:
        ValueshiftError: as `regular_file` and `parse_json`, or the file cannot be read.
    """
    try:
        content = regular_file(path, remedy, most).read_bytes()
    except OSError as error:
        raise ValueshiftError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
    return parse_json(content, str(path), remedy, integer=integer)


def parse_json(content: bytes | str, where: str, remedy: str, *, integer: int = INTEGER) -> Any:
    """The value of a JSON text that everything downstream can take: encoded as UTF-8, hashed, put into a table, walked.

    Args:
        content: of a document or of one line.
        where: names the source in errors, such as a path or `path, line 3`.
        remedy: what the user can do about it, for the message.
        integer: largest magnitude of an integer.

    Raises:
        ValueshiftError: it is no UTF-8 or no JSON, is nested deeper than `JSON_DEPTH`, or has a larger integer or text with half
            a surrogate pair.
    """
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text, parse_int=partial(_integer, largest=integer))
        if text.count("[") + text.count("{") > JSON_DEPTH and _deeper(value, JSON_DEPTH):
            raise RecursionError
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueshiftError(f"{where} is damaged (nested deeper than {JSON_DEPTH}); {remedy}") from None
    except UnicodeEncodeError:
        raise ValueshiftError(f"{where} is damaged (text with half a surrogate pair); {remedy}") from None
    except ValueError as error:  # no UTF-8, no JSON, or an integer of thousands of digits
        raise ValueshiftError(f"{where} is damaged ({error}); {remedy}") from error
    return value


def _integer(digits: str, largest: int) -> int:
    value = int(digits) if len(digits) <= 50 else largest + 1
    if abs(value) > largest:
        raise ValueError(f"an integer of {len(digits)} digits")
    return value


def _deeper(value: Any, most: int) -> bool:
    """Whether lists and objects lie within each other more than `most` times."""
    level: list[Any] = [value]
    for _ in range(most):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return False
    return any(isinstance(inner, list | dict) for inner in level)


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, list | dict)]
    return [inner for inner in value if isinstance(inner, list | dict)] if isinstance(value, list) else []
