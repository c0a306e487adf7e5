"""Files of a release, wherever they lie: in a folder, in an archive, in archives in a folder, or alone.

Archives are read in place: nothing is unpacked, so that the name of a member can never become a path.
"""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedReader, TextIOWrapper
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, cast
from xml.etree.ElementTree import ParseError

from ...core.errors import ValueshiftError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MOST_BYTES = 256 << 20
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True)
class Source:
    """One file of a release; it can be read while its `opened` block lasts."""

    name: PurePosixPath
    """Path inside the folder or archive."""
    where: str
    """How messages call it."""
    _open: Callable[[], BufferedReader]

    @contextmanager
    def stream(self) -> Iterator[BufferedReader]:
        """The file's bytes.

        Raises:
            ValueshiftError: the file is a Git LFS pointer, damaged, encrypted, or not UTF-8 where text is read from it.
        """
        try:
            with self._open() as stream:
                _refuse_pointer(stream, self.where)
                yield stream
        except UnicodeDecodeError as error:
            raise ValueshiftError(f"{self.where} is not UTF-8 ({error.reason}); save it as UTF-8") from error
        except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
            raise ValueshiftError(f"{self.where} cannot be read ({error}); download it again") from error

    def lines(self) -> Iterator[str]:
        r"""Lines of a UTF-8 text, split at `\n` only: other separators occur inside sentences."""
        with self.stream() as stream:
            for line in TextIOWrapper(stream, encoding="utf-8-sig", newline="\n"):
                yield line.rstrip("\r\n")

    def xml(self) -> "Element":
        """The root of an XML file that declares no entities.

        Raises:
            ValueshiftError: the file is malformed, declares entities, or is larger than 256 MB.
        """
        from defusedxml.ElementTree import fromstring

        with self.stream() as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise ValueshiftError(f"{self.where} unpacks to more than 256 MB; this is no file of the release")
        try:
            root: Element = fromstring(content)
        except (ParseError, LookupError, ValueError) as error:
            raise ValueshiftError(f"{self.where} is no sound XML ({error}); download it again") from error
        return root


@contextmanager
def opened(path: Path) -> Iterator[list[Source]]:
    """The files of a folder (sorted by name), of an archive (in its order), or one file alone.

    Archives that lie in the folder are looked into; hidden files are left out.

    Raises:
        ValueshiftError: the path does not exist, an archive is damaged, or a member's name leads out of the archive.
    """
    with ExitStack() as stack:
        if path.is_dir():
            sources = []
            for file in sorted(path.rglob("*")):
                name = PurePosixPath(file.relative_to(path).as_posix())
                if file.is_file() and not _hidden(name):
                    sources += _sources(file, name, stack)
        elif path.is_file():
            sources = _sources(path, PurePosixPath(path.name), stack)
        else:
            raise ValueshiftError(f"{path} does not exist")
        yield sources


def _sources(file: Path, name: PurePosixPath, stack: ExitStack) -> list[Source]:
    if not file.name.lower().endswith(_ARCHIVES):
        return [Source(name, str(file), partial(_open_file, file))]
    try:
        with file.open("rb") as stream:
            _refuse_pointer(stream, str(file))
        members = _zip_members(file, stack) if file.suffix.lower() == ".zip" else _tar_members(file, stack)
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise ValueshiftError(f"{file} is a damaged archive ({error}); download it again") from error
    sources = []
    for member, reader in members:
        inside = PurePosixPath(member)
        if inside.is_absolute() or ".." in inside.parts:
            raise ValueshiftError(f"{file} has the member '{member}', which leads out of the archive; do not trust it")
        if not _hidden(inside):
            sources.append(Source(inside, f"{file}: {member}", reader))
    return sources


def _open_file(file: Path) -> BufferedReader:
    return file.open("rb")


def _zip_members(file: Path, stack: ExitStack) -> list[tuple[str, Callable[[], BufferedReader]]]:
    archive = stack.enter_context(zipfile.ZipFile(file))
    members = [member for member in archive.infolist() if not member.is_dir()]

    def reader(member: zipfile.ZipInfo) -> BufferedReader:
        return cast(BufferedReader, archive.open(member))  # ZipExtFile reads and peeks like one

    return [(member.filename.replace("\\", "/"), partial(reader, member)) for member in members]


def _tar_members(file: Path, stack: ExitStack) -> list[tuple[str, Callable[[], BufferedReader]]]:
    archive = stack.enter_context(tarfile.TarFile.open(file))

    def reader(member: tarfile.TarInfo) -> BufferedReader:
        return cast(BufferedReader, archive.extractfile(member))  # never None: only regular files are offered

    return [(member.name, partial(reader, member)) for member in archive.getmembers() if member.isreg()]


def _refuse_pointer(stream: BufferedReader, where: str) -> None:
    if stream.peek(len(_LFS_POINTER)).startswith(_LFS_POINTER):
        raise ValueshiftError(
            f"{where} is a Git LFS pointer, not the data; run `git lfs pull` in that repository, or download the "
            f"release itself"
        )


def _hidden(name: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
