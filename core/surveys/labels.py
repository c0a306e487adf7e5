"""Answers as survey files write them, codes or value labels, as codes of the survey."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from ..errors import ValueshiftError
from ..probes import read_rows

MISSING = -5
"""The code of an empty field: missing, whatever the reason."""

_APOSTROPHES = re.compile("['’‘´`\ufffd]")


def normalised(text: str) -> str:
    """Lower case, no apostrophes, all else that is no letter or digit one space: releases differ in these.

    >>> normalised("Don´t  know."), normalised("A: Protect environment")
    ('dont know', 'a protect environment')
    """
    return re.sub(r"[\W_]+", " ", _APOSTROPHES.sub("", text.casefold())).strip()


def number(text: str) -> float | None:
    """A number with a decimal point or comma, else None."""
    plain = text.strip().replace(",", ".", 1)
    return float(plain) if re.fullmatch(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?|[-+]?\.\d+", plain) else None


def _variables(text: str) -> Iterator[str]:
    """`Q1-Q3;Q9` as Q1, Q2, Q3, Q9."""
    for part in text.split(";"):
        first, _, last = part.partition("-")
        yield from (f"Q{number}" for number in range(int(first[1:]), int((last or first)[1:]) + 1)) if last else (part,)


class Labels:
    """A registry's value labels: shell patterns over normalised text, per variable, `*` for all variables."""

    def __init__(self, path: Path) -> None:
        self._patterns: dict[str, list[tuple[str, int]]] = {}
        for line, row in read_rows(path, ("variables", "code", "labels")):
            try:
                code = int(row["code"])
                variables = list(_variables(row["variables"]))
            except ValueError:
                raise ValueshiftError(f"{path}, line {line}: variables are Q1-Q3;Q9 or *, a code is a number") from None
            for variable in variables:
                patterns = self._patterns.setdefault(variable, [])
                patterns.extend((pattern, code) for pattern in row["labels"].split("|"))

    def code(self, variable: str, answer: str) -> int | None:
        """The code of an answer given as a code or a label; `MISSING` when empty, None when it is neither.

        A label is looked up among those of its variable first: "Don't mind" is an answer to one question only.
        """
        if not answer.strip():
            return MISSING
        if (value := number(answer)) is not None:
            return int(value) if value.is_integer() and abs(value) < 2**31 else None
        text = normalised(answer)
        for scope in (variable, "*"):
            found = {code for pattern, code in self._patterns.get(scope, ()) if fnmatchcase(text, pattern)}
            if found:
                return found.pop() if len(found) == 1 else None
        return None


@cache
def labels(path: Path) -> Labels:
    """The value labels of a file, read once."""
    return Labels(path)
