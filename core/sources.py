"""Files that others made, wherever they lie: in a folder, in an archive, in archives in a folder, or alone.

Archives are read in place: nothing is unpacked, so that the name of a member can never become a path. What is read of them is
bounded (`core.limits`), because a small one can unpack to more than any disk or memory holds.
"""

import gzip
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BufferedReader, TextIOBase, TextIOWrapper
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, TypeVar, cast
from xml.etree.ElementTree import ParseError

from . import limits
from .errors import ValueshiftError
from .shown import piece, written_out

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

Row = TypeVar("Row")

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
_LINE = 100
"""Bytes that a line of text takes in memory besides its characters."""
_HEADER = 16 << 20
"""Bytes that are read of an archive at once: of its own headers, never of what it holds."""


@dataclass(eq=False)
class _Text:
    """How much text was read of all sources that were opened together."""

    size: int = 0

    def add(self, line: str, where: str) -> None:
        self.size += len(line) + _LINE
        if self.size > limits.TEXT_BYTES:
            raise ValueshiftError(
                f"{where}: more than {_mega(limits.TEXT_BYTES)} of text are read by now; give a part of it"
            )


@dataclass(frozen=True)
class Source:
    """One file of a release; it can be read while its `opened` block lasts."""

    name: PurePosixPath
    """Path inside the folder or archive."""
    where: str
    """How messages call it."""
    _open: Callable[[], IO[bytes]]
    _text: _Text = field(default_factory=_Text)

    @contextmanager
    def stream(self) -> Iterator[BufferedReader]:
        """The file's bytes.

        Raises:
            ValueshiftError: the file is a Git LFS pointer, damaged, encrypted, has a name that leads out of its archive, or is
                not UTF-8 where text is read from it.
        """
        if self.name.is_absolute() or ".." in self.name.parts:
            raise ValueshiftError(f"{self.where} leads out of the archive; do not trust it")
        with ExitStack() as stack:
            with damage_explained(f"{self.where} cannot be read"):
                stream = cast(BufferedReader, stack.enter_context(self._open()))  # ZipExtFile reads and peeks like one
                _refuse_pointer(stream, self.where)
            try:
                yield stream
            except UnicodeDecodeError as error:
                raise ValueshiftError(f"{self.where} is not UTF-8 ({error.reason}); save it as UTF-8") from error
            except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
                raise ValueshiftError(f"{self.where} cannot be read ({piece(error)}); download it again") from error

    def lines(self) -> Iterator[str]:
        r"""Lines of a UTF-8 text without their ends, split at `\n` only: other separators occur inside sentences.

        Raises:
            ValueshiftError: as `stream`; a line, or all text together, is too long.
        """
        with self.stream() as stream, TextIOWrapper(stream, encoding="utf-8-sig", newline="\n") as text:
            for line in bounded_lines(text, self.where):
                self._text.add(line, self.where)
                yield line.rstrip("\r\n")

    def elements(self, *tags: str) -> "Iterator[Element]":
        """The elements of an XML file with these tags, each whole, in the order of their ends; nothing else is kept.

        Raises:
            ValueshiftError: as `stream`; the XML is malformed, declares entities, or is too large.
        """
        from defusedxml.ElementTree import iterparse

        around: list[Element] = []
        count = wanted = 0
        with self.stream() as stream:
            bounded = _Bounded(stream, self.where, limits.XML_BYTES)
            try:
                for event, element in iterparse(cast(IO[bytes], bounded), events=("start", "end")):
                    if event == "start":
                        count += 1
                        if count > limits.XML_ELEMENTS or len(around) >= limits.XML_DEPTH:
                            most = f"{limits.XML_ELEMENTS:,} elements, or {limits.XML_DEPTH} within each other"
                            raise ValueshiftError(f"{self.where} has more than {most}; this is no file of the release")
                        around.append(element)
                        wanted += element.tag in tags
                        continue
                    around.pop()
                    if element.tag in tags:
                        wanted -= 1
                        yield element
                    if around and not wanted:
                        del around[-1][:]
            except (ParseError, LookupError, ValueError) as error:
                raise ValueshiftError(f"{self.where} is no sound XML ({error}); download it again") from error


def bounded_lines(stream: TextIOBase, where: str) -> Iterator[str]:
    """The lines of a text with their ends; the rest of one that is too long is never read.

    Raises:
        ValueshiftError: a line is longer than `limits.LINE_CHARACTERS`.
    """
    most = limits.LINE_CHARACTERS
    for number, line in enumerate(iter(partial(stream.readline, most + 1), ""), start=1):
        if len(line) > most:
            raise ValueshiftError(f"{where}, line {number} has more than {most:,} characters; download it again")
        yield line


@contextmanager
def opened(path: Path) -> Iterator[list[Source]]:
    """The files of a folder (sorted by name), of an archive (in its order), or one file alone.

    Archives that lie in the folder are looked into; left out are hidden files, and what is no file, such as a device or a link to
    nothing. A member whose name leads out of its archive is refused when it is read.

    Raises:
        ValueshiftError: the path does not exist, or an archive is damaged, holds a name twice, or unpacks to too much.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise ValueshiftError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"{piece(path)} cannot be read ({piece(error)}); give the path of a release") from error
    text = _Text()
    with ExitStack() as stack:
        if stat.S_ISDIR(mode):
            sources = []
            for file, name in _files(path):
                sources += _sources(file, name, stack, text)
        elif stat.S_ISREG(mode):
            sources = _sources(path, path.name, stack, text)
        else:
            raise ValueshiftError(f"{path} is neither a folder nor a file; give the release as you downloaded it")
        yield sources


def is_file(path: Path) -> bool:
    """Whether this is a regular file, or a link to one; False where that cannot be told, as of a name that is too long."""
    try:
        return path.is_file()
    except OSError:
        return False


def _files(folder: Path) -> list[tuple[Path, str]]:
    """The regular files below a folder, with their paths in it."""
    found = list(islice(folder.rglob("*"), limits.FILES + 1))
    if len(found) > limits.FILES:
        raise ValueshiftError(f"{folder} holds more than {limits.FILES:,} files; give the folder of the release alone")
    named = ((file, file.relative_to(folder).as_posix()) for file in sorted(found) if is_file(file))
    return [(file, name) for file, name in named if not _hidden(PurePosixPath(name))]


def _sources(file: Path, name: str, stack: ExitStack, text: _Text) -> list[Source]:
    where = written_out(str(file))
    if not file.name.lower().endswith(_ARCHIVES):
        return [Source(PurePosixPath(written_out(name)), where, partial(_open_file, file), text)]
    with damage_explained(f"{where} is a damaged archive"):
        stream = stack.enter_context(file.open("rb"))
        _refuse_pointer(stream, where)
        most = unpacked_limit(file.stat().st_size)
        members = _zip_members if file.suffix.lower() == ".zip" else _tar_members
        sources: dict[PurePosixPath, Source] = {}
        size = 0
        for number, (member, unpacked, reader) in enumerate(members(stream, where, most, stack)):
            size += unpacked
            if size > most:
                raise ValueshiftError(_too_large(where, most))
            if number >= limits.FILES:
                raise ValueshiftError(
                    f"{where} holds more than {limits.FILES:,} files; this is no release that can be read"
                )
            inside = PurePosixPath(written_out(member))
            if _hidden(inside):
                continue
            if inside in sources:
                raise ValueshiftError(f"{where} holds the member '{inside}' twice; do not trust it")
            sources[inside] = Source(inside, f"{where}: the member '{inside}'", reader, text)
    return list(sources.values())


def _open_file(file: Path) -> IO[bytes]:
    return file.open("rb")


_Members = Iterator[tuple[str, int, Callable[[], IO[bytes]]]]
"""Name, bytes when unpacked, and a way to open each."""


def _zip_members(stream: IO[bytes], where: str, most: int, stack: ExitStack) -> _Members:
    archive = opened_zip(stream, where, stack)

    def reader(member: zipfile.ZipInfo) -> IO[bytes]:
        if member.flag_bits & 1:
            raise ValueshiftError(
                f"{where}: {member.filename} is encrypted; unpack it with its password, give the folder"
            )
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueshiftError(
                f"{where}: {member.filename} is packed by an unusual method ({member.compress_type}); unpack it, give the folder"
            )
        return archive.open(member)

    for member in archive.infolist():
        if not member.is_dir() and not stat.S_ISLNK(member.external_attr >> 16):
            yield member.filename.replace("\\", "/"), member.file_size, partial(reader, member)


def opened_zip(stream: IO[bytes], where: str, stack: ExitStack) -> zipfile.ZipFile:
    """An archive whose list of members is of a size that memory holds. No member gives more bytes than the list says.

    Raises:
        ValueshiftError: the list is too long.
    """
    stream.seek(-min(1 << 17, stream.seek(0, os.SEEK_END)), os.SEEK_END)
    end = stream.read()
    for mark, place, form in ((b"PK\x05\x06", 12, "<L"), (b"PK\x06\x06", 40, "<Q")):  # zip, zip64
        at = end.rfind(mark) + place
        if at >= place and len(end) >= at + struct.calcsize(form):
            (size,) = struct.unpack_from(form, end, at)
            if limits.ZIP_LIST_BYTES < size != 0xFFFFFFFF:
                raise ValueshiftError(f"{where} lists its files in {_mega(size)}; this is no release that can be read")
    return stack.enter_context(zipfile.ZipFile(stream))


def _tar_members(stream: IO[bytes], where: str, most: int, stack: ExitStack) -> _Members:
    if cast(BufferedReader, stream).peek(2).startswith(b"\x1f\x8b"):
        stream = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=stream)))
    unpacked = _Bounded(stream, where, most)
    archive = stack.enter_context(tarfile.TarFile(fileobj=cast(IO[bytes], unpacked)))
    for member in archive:
        if member.isreg():
            yield member.name, member.size, partial(cast(Callable[..., IO[bytes]], archive.extractfile), member)


class _Bounded:
    """A stream of which no more than `most` bytes are read, wherever a header says that there is more."""

    def __init__(self, stream: IO[bytes], where: str, most: int) -> None:
        self.stream, self.where, self.most = stream, where, most

    def read(self, size: int) -> bytes:
        if size > _HEADER:
            raise ValueshiftError(f"{self.where} has a header of {_mega(size)}; this is no release that can be read")
        content = self.stream.read(size)
        if self.tell() > self.most:
            raise ValueshiftError(_too_large(self.where, self.most))
        return content

    def seek(self, place: int) -> int:
        if place > self.most:
            raise ValueshiftError(_too_large(self.where, self.most))
        return self.stream.seek(place)

    def tell(self) -> int:
        return self.stream.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def damage_explained(what: str) -> Iterator[None]:
    """Around calls of zipfile, tarfile and gzip alone: what they raise of hostile bytes has no common kind."""
    try:
        yield
    except ValueshiftError:
        raise
    except Exception as error:
        raise ValueshiftError(f"{what} ({piece(error) or type(error).__name__}); download it again") from error


def sound(rows: Iterator[Row], where: str) -> Iterator[Row]:
    """The rows of a parser of hostile bytes, whatever it raises of them turned into a sentence.

    Raises:
        ValueshiftError: a row cannot be read; it is told by its place among those that could.
    """
    number = 0
    try:
        for row in rows:
            yield row
            number += 1
    except ValueshiftError:
        raise
    except Exception as error:
        raise ValueshiftError(
            f"{where} cannot be read after row {number} ({piece(repr(error))}); download it again"
        ) from error


def unpacked_limit(packed: int) -> int:
    """How many bytes an archive of so many may unpack to."""
    return max(limits.UNPACKED_FREE, min(limits.UNPACKED_BYTES, limits.UNPACKED_RATIO * packed))


def _too_large(where: str, most: int) -> str:
    return (
        f"{where} unpacks to more than {_mega(most)}, the limit (core/limits.py); this is no release that can be read"
    )


def _mega(size: int) -> str:
    return f"{size >> 20:,} MB"


def _refuse_pointer(stream: BufferedReader, where: str) -> None:
    if stream.peek(len(_LFS_POINTER)).startswith(_LFS_POINTER):
        raise ValueshiftError(
            f"{where} is a Git LFS pointer, not the data; run `git lfs pull` in that repository, or download the "
            f"release itself"
        )


def _hidden(name: PurePosixPath) -> bool:
    return any((part.startswith(".") and part != "..") or part == "__MACOSX" for part in name.parts)
