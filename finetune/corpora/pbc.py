"""Parallel Bible Corpus in CES XML (Christodouloupoulos and Steedman, 2015), aligned by verse id (paper, section 4.1)."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ValueshiftError
from ...core.sources import Source, opened
from .codes import code_of
from .release import Release, Translation

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def read_pbc(path: Path) -> Release:
    """All Bibles of a folder or archive, or one file; a verse's id is the `id` of its segment (`b.GEN.1.1`).

    Raises:
        ValueshiftError: there is no CES file, one is malformed, or its language cannot be told.
    """
    with opened(path) as sources:
        translations = [_bible(source) for source in sources if source.name.suffix == ".xml"]
    if not translations:
        raise ValueshiftError(f"{path} holds no Bible in CES XML; give the folder that holds <Language>.xml files")
    return Release(translations)


def _bible(source: Source) -> Translation:
    bible = Translation(code_of(source.name.stem.partition("-")[0]) or "", source.name.name)
    for element in source.elements("seg", "langUsage"):
        if element.tag == "langUsage":  # in the header, where the file's name (`Farsi-NT.xml`) does not tell
            bible.language = bible.language or _declared(element)
        elif element.get("type") != "verse":
            continue
        elif verse := element.get("id"):
            bible.rows.append((verse, "".join(element.itertext())))
        else:
            bible.left_out["no id"] += 1
    if not bible.rows:
        raise ValueshiftError(f'{source.where} has no verse (<seg id=... type="verse">); it is no Bible in CES XML')
    if not bible.language:
        raise ValueshiftError(
            f"{source.where}: neither its name nor its header tells the language; rename it to an English language "
            f"name or ISO 639-1 code, such as Farsi.xml or fa.xml"
        )
    return bible


def _declared(usage: "Element") -> str:
    language = usage.find("language")
    code = "" if language is None else language.get("iso639") or language.get("id") or ""
    return code_of(code) or code
