"""What a reader of a release hands over: sentences with ids by language; and how a sentence is tidied."""

import re
from collections import Counter
from dataclasses import dataclass, field

_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff]")
"""Control characters that are no whitespace, and byte order marks."""


@dataclass
class Translation:
    """The sentences of one language in one place of a release, as they are written there."""

    language: str
    """ISO 639-1 code, or the release's own code of a language outside the project."""
    source: str
    """File name."""
    rows: list[tuple[str, str]] = field(default_factory=list)
    """(id, text), in the release's order. The same sentence has the same id in every language."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number of sentences that the reader left out."""


@dataclass
class Release:
    """All translations of a release, and sentences about what was not read."""

    translations: list[Translation]
    notes: list[str] = field(default_factory=list)


def tidy(text: str) -> tuple[str, str | None]:
    """The sentence without control characters and surplus whitespace, and what was mended, if anything.

    Joiners and direction marks (category Cf) belong to the orthography of Persian, Hindi and others, and stay.
    """
    printable = _CONTROL.sub("", text)
    plain = " ".join(printable.split())
    if plain == text:
        return plain, None
    return plain, "spaces" if printable == text else "control characters"
