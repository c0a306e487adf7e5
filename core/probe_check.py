"""`valueshift probes check`: what a machine can see of a wording."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ValueshiftError
from .languages import LANGUAGES, Language
from .probes import MASK, PROBE_HEADER, Item, defect, read_rows

MOST_WORDS = 3
"""An option of more words is no short pole."""
SCRIPT_SHARE = 0.7
"""Least share of a statement's letters in the language's script; names and abbreviations may be in another."""

_MARKUP = ("<", ">", "&#", "&amp;", "\ufeff", "\u200e", "\u200f", "�")
_REVIEWS = ("", "ok", "mended", "doubt")


@dataclass(frozen=True)
class Finding:
    """One fault of a probe file."""

    language: str
    question: str
    fault: str


def check_file(path: Path, items: dict[str, Item], code: str) -> list[Finding]:
    """Faults of one probe file: wording, script, markup, coverage and order of the registry.

    Raises:
        ValueshiftError: the file cannot be read or the language is unknown.
    """
    if code not in LANGUAGES:
        raise ValueshiftError(f"{path}: '{code}' is no language known here; name the file <ISO 639-1 code>.csv")
    rows = [row for _, row in read_rows(path, PROBE_HEADER)]
    findings = [Finding(code, row["question"], fault) for row in rows for fault in row_faults(row, LANGUAGES[code])]
    findings += [
        Finding(code, question, fault) for question, fault in _coverage([row["question"] for row in rows], items)
    ]
    seen: dict[str, str] = {}
    for row in rows:
        if (other := seen.setdefault(row["text"], row["question"])) != row["question"]:
            findings.append(Finding(code, row["question"], f"has the same text as {other}"))
    return findings


def row_faults(row: dict[str, str], language: Language) -> list[str]:
    """Faults of one row, as phrases."""
    text, options = row["text"], (row["first"], row["second"])
    if reason := defect(text, *options):
        return [reason]
    faults = []
    for option in options:
        if option != option.strip() or unicodedata.category(option[-1])[0] == "P":
            faults.append(f"option '{option}' has outer space or final punctuation")
        if len(option.split()) > MOST_WORDS:
            faults.append(f"option '{option}' has more than {MOST_WORDS} words")
        if _script_share(option, language) < 1:
            faults.append(f"option '{option}' is not in the script of {language.english}")
    short, long = sorted(map(len, options))
    if long > 2.2 * short + 3:
        faults.append(f"the options '{options[0]}' and '{options[1]}' differ too much in length")
    if text != " ".join(text.split()):
        faults.append("outer or doubled spaces")
    before, _, after = text.partition(MASK)
    if (before and _wordlike(before[-1])) or (after and _wordlike(after[0])):
        faults.append("the mask is glued to a word")
    if _script_share(text.replace(MASK, ""), language) < SCRIPT_SHARE:
        faults.append(f"the text is not in the script of {language.english}")
    faults += [f"markup {mark!r}" for mark in _MARKUP if mark in text + row["first"] + row["second"]]
    if row["reviewed"] not in _REVIEWS:
        faults.append(f"reviewed is '{row['reviewed']}'; it must be empty, ok, mended or doubt")
    return faults


def _coverage(questions: Sequence[str], items: dict[str, Item]) -> list[tuple[str, str]]:
    times = Counter(questions)
    faults = [(question, "is missing") for question in items if question not in times]
    faults += [(question, "is not in the item registry") for question in questions if question not in items]
    faults += [(question, "appears twice") for question, count in times.items() if count > 1]
    if not faults and list(questions) != list(items):
        faults.append(
            (next(q for q, i in zip(questions, items, strict=True) if q != i), "is out of the registry's order")
        )
    return faults


def _wordlike(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"


def _script_share(text: str, language: Language) -> float:
    """Share of letters whose Unicode name begins with one of the language's scripts; 0 without letters."""
    letters = [character for character in text if unicodedata.category(character)[0] == "L"]
    known = [letter for letter in letters if unicodedata.name(letter, "").startswith(language.scripts)]
    return len(known) / len(letters) if letters else 0.0
