"""Quran translations: tanzil.net's XML and plain text, and OPUS Tanzil's Moses pairs (paper, section 4.1)."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from ...core.digests import text_digest
from ...core.errors import ValueshiftError
from ...core.sources import Source, opened
from .codes import code_of
from .release import Release, Translation, tidy

_TRANSLATION = re.compile(r"(?P<language>[a-z]{2,3})\.[\w-]+\.(xml|txt)")
_MOSES = re.compile(r"(?P<pair>.+\.(?P<one>[A-Za-z_]+)-(?P<two>[A-Za-z_]+))\.(?P<side>[A-Za-z_]+)")
_NUMBERED = re.compile(r"(\d+)\|(\d+)\|(.*)")
_AYAS = (
    *(7, 286, 200, 176, 120, 165, 206, 75, 129, 109, 123, 111, 43, 52, 99, 128, 111, 110, 98, 135, 112, 78, 118, 64),
    *(77, 227, 93, 88, 69, 60, 34, 30, 73, 54, 45, 83, 182, 88, 75, 85, 54, 53, 89, 59, 37, 35, 38, 29, 18, 45, 60),
    *(49, 62, 55, 78, 96, 29, 22, 24, 13, 14, 11, 11, 18, 12, 12, 30, 52, 52, 44, 28, 28, 20, 56, 40, 31, 50, 40, 46),
    *(42, 29, 19, 36, 25, 22, 17, 19, 26, 30, 20, 15, 21, 11, 8, 8, 19, 5, 8, 8, 11, 11, 8, 3, 9, 5, 4, 7, 3, 6, 3, 5),
    *(4, 5, 6),
)
"""Verses of each of the 114 suras (Kufan count, as tanzil.net numbers them)."""


def read_tanzil(path: Path) -> Release:
    """Translations of tanzil.net (`fa.fooladvand.xml` or `.txt`), or Moses pairs of OPUS (`Tanzil.en-fa.en` and `.fa`).

    Ids of tanzil.net's verses are `<sura>.<aya>`. OPUS pairs every translation of a verse with every other, so that a
    pair has far more than the 6,236 verses; pairs are joined on identical English text, whose digest is the id.

    Raises:
        ValueshiftError: neither is there, both are there, or a file is malformed.
    """
    with opened(path) as sources:
        verses = [source for source in sources if _TRANSLATION.fullmatch(source.name.name)]
        pairs = _pairs(sources)
        if bool(verses) == bool(pairs):
            problem = "files of tanzil.net and of OPUS" if verses else "no Quran translation"
            raise ValueshiftError(
                f"{path} holds {problem}; give files of tanzil.net, named like fa.fooladvand.xml, or Moses pairs of "
                f"OPUS with English, named like Tanzil.en-fa.en and Tanzil.en-fa.fa"
            )
        return Release([_translation(source) for source in verses]) if verses else _joined(path, pairs)


def _translation(source: Source) -> Translation:
    code = source.name.name.partition(".")[0]
    rows = _xml_rows(source) if source.name.suffix == ".xml" else _text_rows(source)
    return Translation(code_of(code) or code, source.name.name, rows)


def _xml_rows(source: Source) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for sura in source.elements("sura"):
        for aya in sura.iter("aya"):
            place = (sura.get("index"), aya.get("index"))
            if None in place:
                raise ValueshiftError(
                    f"{source.where}: a verse after {len(rows)} others has no index; download it again"
                )
            rows.append((f"{place[0]}.{place[1]}", aya.get("text", "")))
    if not rows:
        raise ValueshiftError(f"{source.where} has no <sura> with <aya>; it is no translation of tanzil.net")
    return rows


def _text_rows(source: Source) -> list[tuple[str, str]]:
    """Verses of a plain text, numbered (`2|255|...`) or one a line, without the comment at its end."""
    lines = [line for line in source.lines() if line.strip() and not line.startswith("#")]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    if lines and all(numbered):
        return [(f"{match[1]}.{match[2]}", match[3]) for match in numbered if match]
    if len(lines) != sum(_AYAS):
        raise ValueshiftError(
            f"{source.where} has {len(lines)} lines, of which {sum(map(bool, numbered))} are numbered; a translation of "
            f"tanzil.net numbers every verse (2|255|...) or has one verse on each of {sum(_AYAS):,} lines"
        )
    places = (f"{sura}.{aya}" for sura, ayas in enumerate(_AYAS, start=1) for aya in range(1, ayas + 1))
    return list(zip(places, lines, strict=True))


def _pairs(sources: list[Source]) -> dict[str, dict[str, Source]]:
    """Pair -> language -> its side, of the Moses files that have both sides."""
    found: dict[str, dict[str, Source]] = {}
    for source in sources:
        match = _MOSES.fullmatch(source.name.name)
        if match and match["side"] in (match["one"], match["two"]):
            found.setdefault(match["pair"], {})[match["side"]] = source
    return {pair: sides for pair, sides in found.items() if len(sides) == 2}


def _joined(path: Path, pairs: dict[str, dict[str, Source]]) -> Release:
    """Each language's first translation of every English sentence."""
    english = Translation("en", "")
    known: set[str] = set()
    release = Release([])
    for pair, sides in sorted(pairs.items()):
        if "en" not in sides:
            release.notes.append(f"{pair} was not read: pairs are joined on their English side")
            continue
        (language,) = sides.keys() - {"en"}
        other = Translation(code_of(language) or language, sides[language].name.name)
        own: set[str] = set()
        for source_text, text in _aligned(sides["en"], sides[language]):
            key = text_digest([tidy(source_text)[0]])
            if key in own:
                other.left_out["another translation of the same English sentence"] += 1
                continue
            own.add(key)
            other.rows.append((key, text))
            if key not in known:
                known.add(key)
                english.rows.append((key, source_text))
        release.translations.append(other)
    if not release.translations:
        raise ValueshiftError(
            f"{path} holds no pair with English, on which the languages are joined; add en-fa and others"
        )
    english.source = ", ".join(sorted(sides["en"].name.name for sides in pairs.values() if "en" in sides))
    release.translations.append(english)
    return release


def _aligned(one: Source, two: Source) -> Iterator[tuple[str, str]]:
    for number, (left, right) in enumerate(zip_longest(one.lines(), two.lines()), start=1):
        if left is None or right is None:
            shorter = one if left is None else two
            raise ValueshiftError(
                f"{shorter.where} ends at line {number - 1}, its other side goes on; download both again"
            )
        yield left, right
