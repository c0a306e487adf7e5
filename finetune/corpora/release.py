"""What a reader of a release hands over: sentences with ids by language; and how a sentence is tidied."""

import unicodedata
from collections import Counter
from dataclasses import dataclass, field


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
    printable = "".join(
        mark for mark in text if mark.isspace() or (unicodedata.category(mark) != "Cc" and mark != "\ufeff")
    )
    plain = " ".join(printable.split())
    if plain == text:
        return plain, None
    return plain, "spaces" if printable == text else "control characters"
