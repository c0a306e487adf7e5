"""Import of the probe release of Arora et al. (2023), from a user's own copy or fetched once.

The release is a zip (or its unpacked folder) with `wvs/<language>.csv` and `hofstede/<language>.csv`: tab-separated, a column
without a name, then question, text with `[MASK]`, option 1, option 2. It has defects; sound rows are kept, and what was
left out or mended is counted.
"""

import csv
import html
import io
import re
import unicodedata
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from . import limits
from .errors import ValueshiftError
from .files import whole_folder
from .languages import TEST_LANGUAGES
from .names import LANGUAGE
from .paths import cache_root
from .probes import PROBE_HEADER, defect, imported_folder
from .sources import is_file, opened

RELEASE_URL = "https://github.com/copenlu/value-probing/raw/ae5e826c664babd0170ec4511198e848e879a260/probes.zip"
RELEASE_SHA256 = "bdb368f3aea4433919a656fc6e569199f5c9d286daaaf10920d51f57bf5a411b"
RELEASE_SETS = {"wvs": "wvs_arora", "hofstede": "hofstede_arora"}
"""Folder in the release -> probe set."""

REVERSED = {"wvs_arora": {"Q128", "Q247"}, "hofstede_arora": set[str]()}
"""Questions that the release states the other way round than the survey, in all languages: their options are swapped."""


@dataclass
class ImportedLanguage:
    """What became of one file of the release."""

    probe_set: str
    language: str
    kept: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> questions."""
    mended: Counter[str] = field(default_factory=Counter)
    """What was mended -> number of rows."""


def import_release(path: Path) -> list[ImportedLanguage]:
    """Import a copy of the release (zip or folder) into the cache.

    Raises:
        ValueshiftError: the path holds no release, a language is missing, or a file is malformed.
    """
    files = _release_files(path)
    imported: dict[str, list[tuple[ImportedLanguage, list[list[str]]]]] = {}
    for folder, name in RELEASE_SETS.items():
        found = {language: text for (part, language), text in files.items() if part == folder}
        if not found and folder == "hofstede":
            continue
        if missing := [language for language in TEST_LANGUAGES if language not in found]:
            raise ValueshiftError(
                f"{path} has no {folder}/{missing[0]}.csv ({len(missing)} of {len(TEST_LANGUAGES)} languages are missing); "
                f"give the whole release: probes.zip, or the folder that it unpacks to"
            )
        imported[name] = [
            _sound_rows(name, language, text, f"{path}: {folder}/{language}.csv") for language, text in found.items()
        ]
    for name, languages in imported.items():  # only once all of the release was read
        with whole_folder(imported_folder(name)) as temporary:
            for done, rows in languages:
                with (temporary / f"{done.language}.csv").open("w", encoding="utf-8", newline="") as stream:
                    writer = csv.writer(stream, lineterminator="\n")
                    writer.writerow(PROBE_HEADER)
                    writer.writerows(rows)
    return [done for languages in imported.values() for done, _ in languages]


def fetch_release() -> Path:
    """The release's zip in the cache, downloaded once and checked against its SHA-256.

    Raises:
        ValueshiftError: it cannot be downloaded, or is not the pinned file.
    """
    import pooch

    folder = cache_root() / "downloads"
    try:
        return Path(pooch.retrieve(RELEASE_URL, f"sha256:{RELEASE_SHA256}", fname="probes.zip", path=folder))
    except (OSError, ValueError) as error:
        raise ValueshiftError(
            f"{RELEASE_URL} cannot be fetched ({error}); download probes.zip where there is network and run "
            f"`valueshift probes import PATH`"
        ) from error


def _release_files(path: Path) -> dict[tuple[str, str], str]:
    """(folder, language) -> text of the release's tables, from a zip or a folder."""
    if is_file(path) and not zipfile.is_zipfile(path):
        raise ValueshiftError(
            f"{path} is neither a folder nor a zip; give the release's probes.zip or its unpacked folder"
        )
    files: dict[tuple[str, str], str] = {}
    with opened(path) as sources:
        for source in sources:
            key = (source.name.parent.name, source.name.stem)
            if key[0] not in RELEASE_SETS or source.name.suffix != ".csv" or not LANGUAGE.pattern.fullmatch(key[1]):
                continue
            if key in files:
                raise ValueshiftError(f"{path} holds {key[0]}/{key[1]}.csv twice; give one copy of the release")
            with source.stream() as stream:
                content = stream.read(limits.CSV_BYTES + 1)
                if len(content) > limits.CSV_BYTES:
                    raise ValueshiftError(
                        f"{source.where} has more than {limits.CSV_BYTES:,} bytes; this is not the probe release"
                    )
                files[key] = content.decode("utf-8-sig")
    if not files:
        raise ValueshiftError(
            f"{path} holds no wvs/<language>.csv; give the release's probes.zip or its unpacked folder"
        )
    return files


def _sound_rows(name: str, language: str, text: str, where: str) -> tuple[ImportedLanguage, list[list[str]]]:
    done = ImportedLanguage(name, language)
    rows = []
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t"))[1:]
    except csv.Error as error:
        raise ValueshiftError(f"{where} is no sound table ({error}); unpack the release again") from error
    for number, row in enumerate(table, start=2):
        if not any(row):
            continue
        if len(row) != 5 or not re.fullmatch(r"\d+[a-z]?", row[1]):
            raise ValueshiftError(f"{where}, line {number}: an index, a question, a text and two options are needed")
        question = ("Q" if name == "wvs_arora" else "H") + row[1]
        statement, first, second = (_mended(value, done.mended) for value in row[2:])
        first, second = (_without_punctuation(option, done.mended) for option in (first, second))
        if question in REVERSED[name]:
            first, second = second, first
            done.mended["options swapped"] += 1
        if reason := defect(statement, first, second):
            done.left_out.setdefault(reason, []).append(question)
        else:
            rows.append([question, statement, first, second, "", ""])
    if not rows:
        raise ValueshiftError(f"{where} has no probe that can be asked; give the whole release")
    done.kept = len(rows)
    return done, rows


def _mended(value: str, mended: Counter[str]) -> str:
    """The cell without HTML entities, outer and doubled whitespace."""
    plain = html.unescape(value)
    mended["HTML entities"] += plain != value
    tidy = " ".join(plain.split())
    mended["spaces"] += tidy != plain
    return tidy


def _without_punctuation(option: str, mended: Counter[str]) -> str:
    """The option without final punctuation, which one option of a pair often has and the other lacks."""
    bare = option
    while bare and unicodedata.category(bare[-1])[0] == "P":
        bare = bare[:-1].rstrip()
    mended["final punctuation"] += bare != option
    return bare
