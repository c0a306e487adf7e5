"""Imported corpora: one Parquet each, with one row per sentence and language."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...core.errors import ValueshiftError
from ...core.files import whole_file
from ...core.languages import LANGUAGES
from ...core.names import CORPUS, checked
from ...core.parquet import read_parquet
from ...core.paths import cache_root
from ...core.sources import is_file
from .release import Release, Translation, tidy

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS: Mapping[str, Literal["text", "number"]] = {"id": "text", "language": "text", "text": "text"}
_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,30}")


@dataclass
class ImportedLanguage:
    """What became of one language of a release: numbers of sentences."""

    language: str
    source: str
    """File name."""
    kept: int = 0
    absent: int = 0
    """Sentences that another language has and this one lacks."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> number."""
    mended: Counter[str] = field(default_factory=Counter)
    """What was mended -> number."""
    noted: Counter[str] = field(default_factory=Counter)
    """What was kept as it is -> number."""


@dataclass(frozen=True)
class ImportedCorpus:
    """The summary of an import."""

    name: str
    path: Path
    languages: list[ImportedLanguage]
    parallel: int
    """Sentences that every language has."""
    notes: tuple[str, ...]
    """Sentences about what was not read."""


@dataclass(frozen=True)
class Corpus:
    """Sentences by id and language; rows are in the corpus's order, all languages of an id together."""

    name: str
    table: "pd.DataFrame"
    """Columns `id`, `language`, `text`; no pair of id and language occurs twice."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Codes, in the project's order."""
        return _in_order(self.table["language"].unique())


def corpus_path(name: str) -> Path:
    """Where an imported corpus lies.

    Raises:
        ValueshiftError: this cannot be a name.
    """
    return cache_root() / "corpora" / f"{checked(name, CORPUS)}.parquet"


def write_corpus(name: str, release: Release) -> ImportedCorpus:
    """Tidy a release and write it as one corpus, in place of an older one of that name.

    Of several translations into one language the one with most sentences is taken. Left out are sentences without a
    letter and those whose id came before.

    Raises:
        ValueshiftError: no sentence is left, a language has no usable code, or the disk is full.
    """
    import pandas as pd

    path = corpus_path(name)
    chosen, notes = _one_per_language(release.translations)
    languages, frames = [], []
    for translation in chosen:
        done, rows = _sound_rows(translation)
        languages.append(done)
        frames.append(pd.DataFrame({"id": rows.keys(), "language": translation.language, "text": rows.values()}))
    if not any(done.kept for done in languages):
        raise ValueshiftError(f"corpus {name} has no sentence: every one was empty or without a letter")

    table = pd.concat(frames, ignore_index=True)
    order = merged_order([frame["id"].tolist() for frame in frames])
    place = {sentence: position for position, sentence in enumerate(order)}
    table = table.iloc[table["id"].map(place).argsort(kind="stable")]
    for done in languages:
        done.absent = len(order) - done.kept
    with whole_file(path) as temporary:
        table.to_parquet(temporary, index=False)
    present = Counter(table["id"])
    parallel = sum(number == len(languages) for number in present.values())
    return ImportedCorpus(name, path, languages, parallel, (*release.notes, *notes))


def read_corpus(name: str) -> Corpus:
    """An imported corpus by name, or any Parquet file with its columns by path (`toy/corpus/values.parquet`).

    Raises:
        ValueshiftError: there is no such corpus, or the file is damaged or no corpus.
    """
    given = name.endswith(".parquet")
    path = Path(name) if given else corpus_path(name)
    if not is_file(path):
        raise ValueshiftError(
            f"{path} does not exist"
            if given
            else f"corpus {name} is not on this machine, which has {', '.join(corpora()) or 'none'}; import your copy: "
            f"valueshift corpus import pbc|tanzil|flores|news|text PATH"
        )
    table = read_parquet(path, "corpus with id, language and text", _COLUMNS, "import it again")
    if (again := table.duplicated(["id", "language"])).any():
        first = table[again].iloc[0]
        raise ValueshiftError(
            f"{path} has sentence {first['id']} in {first['language']} more than once; import it again"
        )
    return Corpus(path.stem, table)


def corpora() -> list[str]:
    """Names of the imported corpora."""
    return sorted(path.stem for path in (cache_root() / "corpora").glob("*.parquet"))


def merged_order(sequences: Iterable[Sequence[str]]) -> list[str]:
    """One order of all ids: that of the longest sequence, and what only others have after its predecessor there."""
    order: list[str] = []
    for sequence in sorted(sequences, key=len, reverse=True):
        known = set(order)
        after: dict[str | None, list[str]] = {}
        predecessor: str | None = None
        for sentence in sequence:
            if sentence in known:
                predecessor = sentence
            else:
                after.setdefault(predecessor, []).append(sentence)
        order = [*after.get(None, ()), *(one for sentence in order for one in (sentence, *after.get(sentence, ())))]
    return order


def _in_order(codes: Iterable[str]) -> tuple[str, ...]:
    places = {code: place for place, code in enumerate(LANGUAGES)}
    return tuple(sorted(codes, key=lambda code: (places.get(code, len(places)), code)))


def _one_per_language(translations: Sequence[Translation]) -> tuple[list[Translation], list[str]]:
    """In the project's order, with a note on each that was not taken; of equals the one with the shortest name."""
    by_language: dict[str, list[Translation]] = {}
    for translation in translations:
        if not _LANGUAGE.fullmatch(translation.language):
            raise ValueshiftError(f"{translation.source}: '{translation.language}' is no language code")
        by_language.setdefault(translation.language, []).append(translation)
    chosen, notes = [], []
    for language in _in_order(by_language):
        first, *others = sorted(by_language[language], key=lambda one: (-len(one.rows), len(one.source), one.source))
        chosen.append(first)
        notes += [f"{other.source} was left out: {language} is taken from {first.source}" for other in others]
    return chosen, notes


def _sound_rows(translation: Translation) -> tuple[ImportedLanguage, dict[str, str]]:
    """The summary of a language, and its sentences by id."""
    done = ImportedLanguage(translation.language, translation.source, left_out=translation.left_out)
    rows: dict[str, str] = {}
    for sentence, written in translation.rows:
        text, mended = tidy(written)
        if not any(mark.isalpha() for mark in text):
            done.left_out["without a letter" if text else "empty"] += 1
        elif sentence in rows:
            done.left_out["id came before"] += 1
        else:
            rows[sentence] = text
            done.mended.update([mended] if mended else [])
            done.noted["with a gloss in brackets"] += "[" in text
    done.kept = len(rows)
    done.noted["same text as an earlier one"] = len(rows) - len(set(rows.values()))
    done.noted = +done.noted  # without zeros
    return done, rows
