"""Items (what is asked), probes (how it is worded) and probe sets (one wording in several languages)."""

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator

from .digests import text_digest
from .errors import ValueshiftError
from .languages import LANGUAGES
from .paths import TASKS, own_sets

MASK = "[MASK]"
PROBE_HEADER = ("question", "text", "first", "second", "reviewed", "note")
REGISTRIES = {"wvs_arora": "wvs"}
"""Probe sets that ask the items of another set."""


def _codes(text: object) -> object:
    return tuple(int(code) for code in text.split(";")) if isinstance(text, str) and text else text or ()


Codes = Annotated[tuple[int, ...], BeforeValidator(_codes)]


class Item(BaseModel):
    """One question of a survey: which of its variable's codes stand at which pole (row of `items.csv`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    survey: str
    variable: str
    category: Annotated[int | None, BeforeValidator(lambda value: value or None)]
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
    category: int | None
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
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            found = tuple(reader.fieldnames or ())
            if set(found) != set(header):
                raise ValueshiftError(f"{path}: the columns are {','.join(found)}; they must be {','.join(header)}")
            rows = []
            for row in reader:
                if None in row or None in row.values():
                    raise ValueshiftError(f"{path}, line {reader.line_num}: {len(header)} fields are needed")
                rows.append((reader.line_num, row))
            return rows
    except FileNotFoundError:
        raise ValueshiftError(f"{path} does not exist") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueshiftError(f"{path} is no UTF-8 CSV file: {error}") from error


def read_items(path: Path) -> dict[str, Item]:
    """The items of a registry file, by question, in file order.

    Raises:
        ValueshiftError: a row is malformed or a question appears twice.
    """
    items: dict[str, Item] = {}
    for line, row in read_rows(path, tuple(Item.model_fields)):
        try:
            item = Item.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = first["loc"][0] if first["loc"] else "row"
            raise ValueshiftError(f"{path}, line {line}, {field}: {first['msg']}") from error
        if item.question in items:
            raise ValueshiftError(f"{path}, line {line}: question {item.question} appears twice")
        items[item.question] = item
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
        path = self.folder / f"{language}.csv"
        if not path.is_file():
            raise ValueshiftError(
                f"probe set {self.name} has no language '{language}'; it has {', '.join(self.languages) or 'none'}"
            )
        return read_probes(path, self.name, language, self.items)

    def digest(self, language: str) -> str:
        """Digest of what is asked in one language: question, text and options of every probe."""
        return probes_digest(self.probes(language))


def read_probes(path: Path, probe_set: str, language: str, items: dict[str, Item]) -> list[Probe]:
    """The probes of one file, in file order.

    Raises:
        ValueshiftError: a row cannot be asked, its question is unknown to `items`, or appears twice.
    """
    probes: dict[str, Probe] = {}
    for line, row in read_rows(path, PROBE_HEADER):
        question = row["question"]
        where = f"{path}, line {line}, question {question}"
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
    return list(probes.values())


def probes_digest(probes: Iterable[Probe]) -> str:
    """Digest of the wording: question, text and options of each probe, in order."""
    return text_digest("\t".join((probe.question, probe.text, probe.first, probe.second)) for probe in probes)


@cache
def _items(path: Path) -> dict[str, Item]:
    return read_items(path)


def imported_folder(name: str) -> Path:
    """Where the probe files of an imported set, or of a user's own, live."""
    return own_sets() / name / "probes"


def registry_folder(name: str) -> Path:
    """The folder with the registry (`items.csv`) that a probe set asks, and with its survey truth (`truth/`)."""
    registry = REGISTRIES.get(name, name)
    return TASKS / registry if (TASKS / registry / "items.csv").is_file() else own_sets() / registry


def probe_set(name: str) -> ProbeSet:
    """A probe set by name: packaged (`wvs`) or imported into the cache.

    Raises:
        ValueshiftError: there is no such set, with both ways to get it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ValueshiftError(f"'{name}' is no name of a probe set; names are lower-case letters, digits and _")
    for folder in (TASKS / name / "probes", imported_folder(name)):
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
