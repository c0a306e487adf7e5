"""Import of a release into the cache, from a local path or fetched once from where it is published."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ...core.errors import ValueshiftError
from ...core.paths import cache_root
from .flores import read_flores
from .news import MOST_SENTENCES, PUBLICATIONS, corpus_name, read_news
from .pbc import read_pbc
from .plain import read_text
from .release import Release
from .store import ImportedCorpus, corpus_path, write_corpus
from .tanzil import read_tanzil

_READERS: dict[str, Callable[[Path], Release]] = {
    "pbc": read_pbc,
    "tanzil": read_tanzil,
    "flores": read_flores,
    "text": read_text,
}
KINDS = ("pbc", "tanzil", "flores", "news", "text")

_BIBLES = "https://github.com/christos-c/bible-corpus/raw/d6f46ad0a3503882483721270292ad58db93b003/bibles/"
_PUBLISHED = {
    "pbc": {
        _BIBLES + "English.xml": "1cb70f2b76a003796cc60bbfea31e7adde5970e6f56e0e624bfb667ba95d663b",
        _BIBLES + "Farsi.xml": "8db3f60513a3f9625101ce7b6096c96cbe5c38ce4371abbb63a95dd996157b47",
        _BIBLES + "Hindi.xml": "8a38980a1f5a638e4530c15284ef16e8baebd314ac49fb3d714dcd02570580e1",
        _BIBLES + "Korean.xml": "c95dc87f249628febf5c6ddc2c0ba569c7bd77fac2992d4190cfa07225a14bd0",
        _BIBLES + "Russian.xml": "233a57d22a32a344a6a61d0364d9b6621156ef9f42520aebc5325eb66bd5005f",
    },
    "flores": {
        "https://dl.fbaipublicfiles.com/flores101/dataset/flores101_dataset.tar.gz": (
            "49fa80207b09fcc0eca8253ed13303b3a0ae0f16081af862601c73ac76f2cba6"
        ),
    },
}
"""Addresses and SHA-256 of what is published under a lasting address; tanzil.net, OPUS and All-the-News are not."""


def import_corpus(
    kind: str,
    path: Path,
    *,
    name: str | None = None,
    publications: Sequence[str] = PUBLICATIONS,
    most: int = MOST_SENTENCES,
) -> list[ImportedCorpus]:
    """Import a release into `VALUESHIFT_CACHE` as one corpus, or as one per publication for `news`.

    Args:
        kind: one of `KINDS`.
        path: folder, file or archive (zip, tar, tar.gz).
        name: of the corpus, where it is not to be called by its kind; `news` names its corpora by publication.
        publications: of `news`, which to take.
        most: of `news`, sentences to take of each publication.

    Raises:
        ValueshiftError: the path holds no such release, or a file of it is malformed.
    """
    if kind not in KINDS:
        raise ValueshiftError(f"unknown kind of corpus '{kind}'; known are {', '.join(KINDS)}")
    if kind != "news":
        name = kind if name is None else name
        corpus_path(name)  # refuses what is no name before anything is read
        return [write_corpus(name, _READERS[kind](path))]
    if name is not None:
        raise ValueshiftError("news corpora are named by their publication, such as news_reuters; leave the name out")
    for publication in publications:
        if corpus_path(corpus_name(publication)).stem == "news":
            raise ValueshiftError(f"publication '{publication}' has no letter a to z or digit to call its corpus by")
    return [write_corpus(corpus, release) for corpus, release in read_news(path, publications, most).items()]


def fetch_release(kind: str) -> Path:
    """The published files of `pbc` (five languages) or `flores` (FLORES-101) in the cache, downloaded once and checked.

    Raises:
        ValueshiftError: the release has no lasting address, cannot be downloaded, or is not the pinned file.
    """
    import pooch

    if kind not in _PUBLISHED:
        raise ValueshiftError(
            f"{kind} has no lasting public address; download it yourself and give its PATH "
            f"({' and '.join(_PUBLISHED)} can be fetched)"
        )
    folder = cache_root() / "downloads" / kind
    for address, sha256 in _PUBLISHED[kind].items():
        try:
            pooch.retrieve(address, f"sha256:{sha256}", fname=address.rpartition("/")[2], path=folder)
        except (OSError, ValueError) as error:
            raise ValueshiftError(
                f"{address} cannot be fetched ({error}); download it where there is network and run "
                f"`valueshift corpus import {kind} PATH`"
            ) from error
    return folder
