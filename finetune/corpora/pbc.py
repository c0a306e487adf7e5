"""Parallel Bible Corpus in CES XML (Christodouloupoulos and Steedman, 2015), aligned by verse id (paper, section 4.1)."""

from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ValueshiftError
from .codes import code_of
from .release import Release, Translation
from .sources import Source, opened

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
    root = source.xml()
    bible = Translation(_language(source, root), source.name.name)
    for segment in root.iter("seg"):
        if segment.get("type") != "verse":
            continue
        if verse := segment.get("id"):
            bible.rows.append((verse, "".join(segment.itertext())))
        else:
            bible.left_out["no id"] += 1
    if not bible.rows:
        raise ValueshiftError(f'{source.where} has no verse (<seg id=... type="verse">); it is no Bible in CES XML')
    return bible


def _language(source: Source, root: "Element") -> str:
    """From the file's name where that is one of the project's languages (`Farsi-NT.xml`), else from its header."""
    if known := code_of(source.name.stem.partition("-")[0]):
        return known
    declared = root.find(".//langUsage/language")
    code = "" if declared is None else declared.get("iso639") or declared.get("id") or ""
    if not code:
        raise ValueshiftError(
            f"{source.where}: neither its name nor its header tells the language; rename it to an English language "
            f"name or ISO 639-1 code, such as Farsi.xml or fa.xml"
        )
    return code_of(code) or code
