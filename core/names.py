"""Names that users give and that become parts of paths: checked before anything is written or looked up under them."""

import re
from typing import NamedTuple

from .errors import ValueshiftError

_MOST = 80
"""Characters of a name: with what is added to it, far below the 255 bytes of a file's name."""


class Kind(NamedTuple):
    """What is named, which names it can have, and that in words."""

    what: str
    pattern: re.Pattern[str]
    rule: str


PROBE_SET = Kind("a probe set", re.compile(r"[a-z][a-z0-9_]*"), "names are lower-case letters, digits and _")
CORPUS = Kind("a corpus", re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*"), "names are letters, digits, _ and -")
SURVEY = Kind(
    "a survey", re.compile(r"[A-Za-z0-9][^/\\\x00-\x1f]*"), "names begin with a letter or digit and have no slash"
)
LANGUAGE = Kind("a language", re.compile(r"[a-z]{2}"), "use a code of ISO 639-1, such as de")
COUNTRY = Kind("a country", re.compile(r"[A-Z]{3}"), "use a code of ISO 3166-1 alpha-3, such as DEU")


def checked(name: str, kind: Kind) -> str:
    """The name, if it can be one of this kind: one part of a path, at most 80 characters, and nothing a shell would read.

    Raises:
        ValueshiftError: it cannot.
    """
    if not kind.pattern.fullmatch(name):
        raise ValueshiftError(f"{name[:_MOST]!r} is no name of {kind.what}; {kind.rule}")
    if len(name) > _MOST:
        raise ValueshiftError(
            f"{name[:_MOST]!r}... is too long a name of {kind.what}; at most {_MOST} characters can be used"
        )
    return name
