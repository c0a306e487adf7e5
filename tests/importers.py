"""The importers, each with a sound input of it: what is asked of one is asked of all."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from survey_files import survey, write_csv
from test_probes import write_release
from valueshift.core.own_set import new_probe_set
from valueshift.core.probe_import import import_release
from valueshift.core.surveys import import_survey, write_survey
from valueshift.finetune.corpora.importing import import_corpus

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "own_survey"


@dataclass(frozen=True)
class Importer:
    """One of the commands that put something into the cache."""

    files: Callable[[Path], Path]
    """Makes the files of a sound input below a folder, which it returns."""
    run: Callable[[Path], object]
    """Imports a folder or an archive of them."""


def _survey_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    write_csv(folder / "a.csv", survey({"Q1": [1, 2, 4, -1]}, weight=[0.5, 1.5, 2.0, 1.0]))
    return folder


def _survey(path: Path) -> None:
    write_survey(import_survey([path / "a.csv" if path.suffix != ".zip" and len(str(path)) < 200 else path]))


def _text_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "fa.txt").write_text("یک\nدو\n", encoding="utf-8")
    (folder / "ko.txt").write_text("하나\n둘\n", encoding="utf-8")
    return folder


def _own_files(folder: Path) -> Path:
    (folder / "probes").mkdir(parents=True)
    for name in ("items.csv", "shares.csv", "probes/de.csv", "probes/en.csv"):
        (folder / name).write_bytes((EXAMPLE / name).read_bytes())
    return folder


def make_own(folder: Path, name: str = "trains") -> None:
    """A probe set of the files of a folder (see `_own_files`)."""
    new_probe_set(name, folder / "items.csv", folder / "probes", folder / "shares.csv")


IMPORTERS = {
    "survey": Importer(_survey_files, _survey),
    "corpus": Importer(_text_files, lambda path: import_corpus("text", path)),
    "release": Importer(lambda folder: write_release(folder), import_release),
    "own set": Importer(_own_files, make_own),
}
ARCHIVES = [name for name in IMPORTERS if name != "own set"]


def zipped(members: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these members."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def members(folder: Path) -> dict[str, bytes]:
    """The files of a folder by their paths in it."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
