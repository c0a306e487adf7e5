"""Plain parallel text: one file per language, aligned by line, or JSON lines with ids."""

from collections.abc import Iterator
from pathlib import Path

from ...core.errors import ValueshiftError
from ...core.outside import parse_json
from ...core.sources import Source, opened
from .codes import code_of
from .release import Release, Translation


def read_text(path: Path) -> Release:
    """Text files (`fa.txt`, `corpus.fa.txt` or `corpus.fa`; the id is the line's number) or `.jsonl` files.

    A line of JSON is an object with `id`, `language` and `text`; lines of any language may come in any order.

    Raises:
        ValueshiftError: there is no such file, both kinds are there, text files differ in length, or a line of JSON is
            malformed.
    """
    with opened(path) as sources:
        records = [source for source in sources if source.name.suffix in (".jsonl", ".ndjson")]
        texts = {source: code for source in sources if source not in records and (code := _language(source))}
        notes = [
            f"{source.name} was not read: its name tells no language"
            for source in sources
            if source not in records and source not in texts
        ]
        if bool(records) == bool(texts):
            problem = "both text and JSON files" if records else "no parallel text"
            raise ValueshiftError(
                f"{path} holds {problem}; give one file per language, named fa.txt or corpus.fa, or .jsonl files with "
                f"id, language and text"
            )
        if records:
            return Release(_by_language(records), notes)
        translations = [
            Translation(code, source.name.name, [(str(n), text) for n, text in enumerate(source.lines(), start=1)])
            for source, code in texts.items()
        ]
    first = translations[0]
    for other in translations:
        if len(other.rows) != len(first.rows):
            raise ValueshiftError(
                f"{path}: {first.source} has {len(first.rows)} lines and {other.source} {len(other.rows)}; parallel "
                f"files have the same sentence on the same line"
            )
    return Release(translations, notes)


def _language(source: Source) -> str | None:
    name = source.name.stem if source.name.suffix == ".txt" else source.name.name
    return code_of(name.rpartition(".")[2])


def _by_language(sources: list[Source]) -> list[Translation]:
    found: dict[str, Translation] = {}
    for source in sources:
        for language, key, text in _records(source):
            found.setdefault(language, Translation(language, source.name.name)).rows.append((key, text))
    return list(found.values())


def _records(source: Source) -> Iterator[tuple[str, str, str]]:
    """(language, id, text) of each line that is not blank."""
    for number, line in enumerate(source.lines(), start=1):
        if not line.strip():
            continue
        record = parse_json(line, f"{source.where}, line {number}", "save it as JSON lines again")
        fields = record if isinstance(record, dict) else {}
        language, key, text = fields.get("language"), fields.get("id"), fields.get("text")
        if not (isinstance(language, str) and isinstance(text, str) and type(key) in (str, int)):
            raise ValueshiftError(f"{source.where}, line {number}: an object with id, language and text is needed")
        yield code_of(language) or language, str(key), text
