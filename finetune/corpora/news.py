"""All-the-News, English articles by publication: the paper's domain control (section 4.1).

Both published layouts are read, told apart by their columns: 1.0 has `id, publication, content`, 2.0 has `publication,
article`. Articles are split into sentences with pysbd (Sadvilkar and Neumann, 2020).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ValueshiftError
from .release import Release, Translation
from .sources import Source, opened

if TYPE_CHECKING:
    import pandas as pd

PUBLICATIONS = ("New Yorker", "Reuters", "Fox News")
"""The paper's three."""

MOST_SENTENCES = 10_000
_BODIES = ("content", "article")
_ROWS = 5_000


def corpus_name(publication: str) -> str:
    """The corpus of a publication: `The New Yorker` and `New Yorker` are `news_new_yorker`."""
    words = re.findall(r"[a-z0-9]+", publication.lower())
    return "_".join(["news", *(words[1:] if words[:1] == ["the"] else words)])


def read_news(path: Path, publications: Sequence[str] = PUBLICATIONS, most: int = MOST_SENTENCES) -> dict[str, Release]:
    """The first `most` sentences of each publication, by corpus name; the id is `<article>.<sentence>`.

    An article is called by its `id` (1.0), or by its row in the file (2.0). Publications that the file lacks are left
    out with a note. Memory is bounded by a block of rows, not by the file.

    Raises:
        ValueshiftError: the file is no All-the-News CSV, or holds none of the publications.
    """
    import pysbd

    split = pysbd.Segmenter(language="en", clean=False).segment
    releases = {corpus_name(publication): Release([]) for publication in publications}
    present: Counter[str] = Counter()
    with opened(path) as sources:
        files = sorted((source for source in sources if source.name.suffix == ".csv"), key=lambda source: source.name)
        if not files:
            raise ValueshiftError(f"{path} holds no CSV file; give the folder, archive or file of All-the-News")
        wanted = set(releases)
        for name, article, body, file in _articles(files):
            present[name] += 1
            corpus = corpus_name(name)
            if corpus not in wanted:
                continue
            if not releases[corpus].translations:
                releases[corpus].translations.append(Translation("en", file))
            english = releases[corpus].translations[0]
            if not body.strip():
                english.left_out["article without text"] += 1
            english.rows += [(f"{article}.{number}", text) for number, text in enumerate(split(body), start=1)]
            if len(english.rows) >= most:
                del english.rows[most:]
                releases[corpus].notes.append(f"only the first {most:,} sentences were read")
                wanted.remove(corpus)
                if not wanted:
                    break
    read = {name: release for name, release in releases.items() if release.translations}
    if not read:
        raise ValueshiftError(
            f"{path} holds no article of {', '.join(publications)}; it has {', '.join(sorted(present)) or 'none at all'}"
        )
    for release in read.values():
        release.notes += [
            f"{publication} was not found" for publication in publications if corpus_name(publication) not in read
        ]
    return read


def _articles(files: list[Source]) -> Iterator[tuple[str, str, str, str]]:
    """(publication, article, body, file) of all rows; publications that are empty are left out."""
    number = 0
    for file in files:
        for block in _blocks(file):
            (body,) = (column for column in _BODIES if column in block)
            for row in block.to_dict("records"):
                number += 1
                if publication := row["publication"].strip():
                    yield publication, row.get("id") or str(number), row[body], file.name.name


def _blocks(file: Source) -> "Iterator[pd.DataFrame]":
    import pandas as pd

    with file.stream() as stream:
        try:
            blocks = pd.read_csv(
                stream,
                usecols=lambda column: column in ("id", "publication", *_BODIES),
                dtype=str,
                keep_default_na=False,
                chunksize=_ROWS,
            )
            for block in blocks:
                if "publication" not in block or len(set(_BODIES) & set(block)) != 1:
                    raise ValueshiftError(
                        f"{file.where} has not the columns of All-the-News (publication and content, or publication "
                        f"and article); give the CSV as published"
                    )
                yield block
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise ValueshiftError(f"{file.where} is no sound CSV ({error}); download it again") from error
