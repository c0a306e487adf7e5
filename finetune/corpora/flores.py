"""FLORES-101 and FLORES-200: `dev/<code>.dev` and `devtest/<code>.devtest`, aligned by line (Goyal et al., 2022)."""

import re
from collections import Counter
from pathlib import Path

from ...core.errors import ValueshiftError
from ...core.sources import opened
from .codes import code_of
from .release import Release, Translation

_FILE = re.compile(r"(?P<code>[a-z]{3}(_[A-Za-z]+)?)\.(?P<split>dev|devtest)")
_SPLITS = ("dev", "devtest")


def read_flores(path: Path) -> Release:
    """All languages of a release's folder or archive; the id is `dev.<line>` or `devtest.<line>`.

    Raises:
        ValueshiftError: there is no such file, two files hold the same lines, or a file is shorter or longer than the
            others of its split.
    """
    lines: dict[tuple[str, str], list[str]] = {}
    files: dict[tuple[str, str], str] = {}
    with opened(path) as sources:
        for source in sources:
            if not (match := _FILE.fullmatch(source.name.name)):
                continue
            key = (code_of(match["code"]) or match["code"], match["split"])
            if key in files:
                raise ValueshiftError(
                    f"{path} holds {key[0]} {key[1]} twice ({files[key]} and {source.name}); give the folder of one release"
                )
            files[key], lines[key] = str(source.name), list(source.lines())
    if not files:
        raise ValueshiftError(
            f"{path} holds no FLORES file; give the release's folder with dev/<code>.dev and devtest/<code>.devtest"
        )
    for split in _SPLITS:
        _check_lengths({files[key]: len(found) for key, found in lines.items() if key[1] == split})

    translations = []
    for language in sorted({language for language, _ in lines}):
        parts = [split for split in _SPLITS if (language, split) in lines]
        rows = [
            (f"{split}.{number}", text)
            for split in parts
            for number, text in enumerate(lines[language, split], start=1)
        ]
        translations.append(Translation(language, ", ".join(files[language, split] for split in parts), rows))
    return Release(translations)


def _check_lengths(lengths: dict[str, int]) -> None:
    if lengths:
        usual, _ = Counter(lengths.values()).most_common(1)[0]
        for file, length in lengths.items():
            if length != usual:
                raise ValueshiftError(
                    f"{file} has {length} lines, the other files of its split have {usual}; download it again"
                )
