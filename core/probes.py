"""Items (what is asked), probes (how it is worded) and probe sets (one wording in several languages)."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from . import limits
from .digests import text_digest
from .errors import ValueshiftError
from .languages import LANGUAGES
from .names import PROBE_SET, SURVEY, checked
from .outside import regular_file
from .paths import TASKS, own_sets
from .shown import piece

MASK = "[MASK]"
PROBE_HEADER = ("question", "text", "first", "second", "reviewed", "note")
REGISTRIES = {"wvs_arora": "wvs"}
"""Probe sets that ask the items of another set."""

_REMEDY = "give a CSV file in UTF-8"
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


def _codes(text: object) -> object:
    return tuple(int(code) for code in text.split(";")) if isinstance(text, str) and text else text or ()


Whole = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Codes = Annotated[tuple[Whole, ...], BeforeValidator(_codes)]
Name = Annotated[str, Field(pattern=r"^\S{1,80}$")]


class Item(BaseModel):
    """One question of a survey: which of its variable's codes stand at which pole (row of `items.csv`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: Name
    survey: Annotated[str, Field(pattern=f"^{SURVEY.pattern.pattern}$", max_length=80)]
    variable: Annotated[str, Field(max_length=80)]
    category: Annotated[Whole | None, BeforeValidator(lambda value: value or None)]
    category_name: str
    first_codes: Codes
    second_codes: Codes
    middle_codes: Codes
    excluded_codes: Codes
    measures: str
    first_pole: str
    second_pole: str
    paper: bool
    note: str

    @model_validator(mode="after")
    def _codes_are_disjoint(self) -> "Item":
        codes = [*self.first_codes, *self.second_codes, *self.middle_codes, *self.excluded_codes]
        if len(codes) != len(set(codes)):
            raise ValueError("a code is listed twice")
        return self


class Probe(BaseModel):
    """One question as a statement with one `[MASK]` and two options, `first` and `second` in the pole order of its item."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    probe_set: str
    question: str
    category: Whole | None
    language: str
    text: str
    first: str
    second: str

    @model_validator(mode="after")
    def _can_be_asked(self) -> "Probe":
        if reason := defect(self.text, self.first, self.second):
            raise ValueError(reason)
        return self

    @property
    def prefix(self) -> str:
        """The text before the mask, whitespace included."""
        return self.text.partition(MASK)[0]

    @property
    def suffix(self) -> str:
        """The text after the mask, whitespace included."""
        return self.text.partition(MASK)[2]

    def filled(self, pole: Literal["first", "second"]) -> str:
        """The statement with one of its options in place of the mask."""
        return self.text.replace(MASK, self.first if pole == "first" else self.second)


def defect(text: str, first: str, second: str) -> str | None:
    """Why a row cannot be asked, or None: exactly one mask and two distinct, non-empty options are needed."""
    if (masks := text.count(MASK)) != 1:
        return f"{masks or 'no'} {MASK} in the text, one is needed"
    if not first.strip() or not second.strip():
        return f"{'first' if not first.strip() else 'second'} option is empty"
    if first.strip() == second.strip():
        return "the two options are equal"
    return None


def read_rows(path: Path, header: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Rows of a UTF-8 CSV file with exactly these columns, each with its line number.

    Raises:
        ValueshiftError: the file is missing, is not UTF-8 CSV, or a column is missing or unknown.
    """
    try:
        stream = io.StringIO(regular_file(path, _REMEDY, limits.CSV_BYTES).read_bytes().decode("utf-8-sig"), newline="")
        reader = csv.DictReader(stream, strict=True)
        found = tuple(reader.fieldnames or ())
        if sorted(found) != sorted(header):
            raise ValueshiftError(f"{path}: the columns are {piece(','.join(found))}; they must be {','.join(header)}")
        rows = []
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise ValueshiftError(f"{where}: {len(header)} fields are needed")
            if unreadable := [column for column in header if _CONTROL.search(row[column])]:
                raise ValueshiftError(f"{where}, {unreadable[0]}: there is a control character; remove it")
            rows.append((reader.line_num, row))
        return rows
    except OSError as error:
        raise ValueshiftError(f"{path} cannot be read ({error.strerror or error}); {_REMEDY}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueshiftError(f"{path} is no UTF-8 CSV file: {error}; {_REMEDY}") from error


def read_items(path: Path) -> dict[str, Item]:
    """The items of a registry file, by question, in file order.

    Raises:
        ValueshiftError: there is no row, one is malformed, or a question appears twice.
    """
    items: dict[str, Item] = {}
    for line, row in read_rows(path, tuple(Item.model_fields)):
        try:
            item = Item.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = first["loc"][0] if first["loc"] else "row"
            raise ValueshiftError(f"{path}, line {line}, {field}: {piece(first['msg'])}") from error
        if item.question in items:
            raise ValueshiftError(f"{path}, line {line}: question {item.question} appears twice")
        items[item.question] = item
    if not items:
        raise ValueshiftError(f"{path} has a header and no question; add a row for each")
    return items


@dataclass(frozen=True)
class ProbeSet:
    """One wording of a survey's items: a folder with one `<language>.csv` for each language."""

    name: str
    folder: Path

    @property
    def items(self) -> dict[str, Item]:
        """The registry of this set, by question."""
        return _items(registry_folder(self.name) / "items.csv")

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes of the languages that the folder holds, in the project's order, others after them."""
        present = sorted(file.stem for file in self.folder.glob("*.csv"))
        return tuple(
            sorted(present, key=lambda code: list(LANGUAGES).index(code) if code in LANGUAGES else len(LANGUAGES))
        )

    def probes(self, language: str) -> list[Probe]:
        """All probes of one language, in file order.

        Raises:
            ValueshiftError: the language is not in the set, or a row cannot be asked.
        """
        if language not in self.languages:
            raise ValueshiftError(
                f"probe set {self.name} has no language '{language}'; it has {', '.join(self.languages) or 'none'}"
            )
        return read_probes(self.folder / f"{language}.csv", self.name, language, self.items)

    def digest(self, language: str) -> str:
        """Digest of what is asked in one language: question, text and options of every probe."""
        return probes_digest(self.probes(language))


def read_probes(path: Path, probe_set: str, language: str, items: dict[str, Item]) -> list[Probe]:
    """The probes of one file, in file order.

    Raises:
        ValueshiftError: there is no row, one cannot be asked, its question is unknown to `items`, or appears twice.
    """
    probes: dict[str, Probe] = {}
    for line, row in read_rows(path, PROBE_HEADER):
        question = row["question"]
        where = f"{path}, line {line}, question {piece(question)}"
        if question not in items:
            raise ValueshiftError(f"{where}: not in the item registry")
        if question in probes:
            raise ValueshiftError(f"{where}: the question appears twice")
        if reason := defect(row["text"], row["first"], row["second"]):
            raise ValueshiftError(f"{where}: {reason}")
        probes[question] = Probe(
            probe_set=probe_set,
            question=question,
            category=items[question].category,
            language=language,
            text=row["text"],
            first=row["first"],
            second=row["second"],
        )
    if not probes:
        raise ValueshiftError(f"{path} has a header and no probe; add a row for each question")
    return list(probes.values())


def probes_digest(probes: Iterable[Probe]) -> str:
    """Digest of the wording: question, text and options of each probe, in order."""
    return text_digest("\t".join((probe.question, probe.text, probe.first, probe.second)) for probe in probes)


@cache
def _items(path: Path) -> dict[str, Item]:
    return read_items(path)


def forget_items() -> None:
    """Read registries again where they are needed next: one was replaced."""
    _items.cache_clear()


def imported_folder(name: str) -> Path:
    """Where the probe files of an imported set, or of a user's own, live."""
    return own_sets() / checked(name, PROBE_SET) / "probes"


def registry_folder(name: str) -> Path:
    """The folder with the registry (`items.csv`) that a probe set asks, and with its survey truth (`truth/`)."""
    registry = checked(REGISTRIES.get(name, name), PROBE_SET)
    return TASKS / registry if (TASKS / registry / "items.csv").is_file() else own_sets() / registry


def other_wording(name: str) -> str:
    """The set that asks the same items in other words.

    Raises:
        ValueshiftError: there is none.
    """
    registry = REGISTRIES.get(name, name)
    for other in (registry, *(other for other, asked in REGISTRIES.items() if asked == registry)):
        if other != name:
            return other
    raise ValueshiftError(f"probe set {name} has no other wording; leave --paraphrase out")


def probe_set(name: str) -> ProbeSet:
    """A probe set by name: packaged (`wvs`) or imported into the cache.

    Raises:
        ValueshiftError: there is no such set, with both ways to get it.
    """
    for folder in (TASKS / checked(name, PROBE_SET) / "probes", imported_folder(name)):
        if any(folder.glob("*.csv")):
            return ProbeSet(name, folder)
    if (TASKS / name).is_dir():
        raise ValueshiftError(
            f"probe set {name} is not on this machine: run `valueshift probes import PATH` with your copy of the "
            f"release, or `valueshift probes import --fetch` to download it once"
        )
    raise ValueshiftError(
        f"unknown probe set '{name}'; packaged is wvs, the known releases are wvs_arora and hofstede_arora"
    )
