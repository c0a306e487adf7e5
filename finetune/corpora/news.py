"""All-the-News, English articles by publication: the paper's domain control (section 4.1).

Both published layouts are read, told apart by their columns: 1.0 has `id, publication, content`, 2.0 has `publication,
article`. Articles are split into sentences with pysbd (Sadvilkar and Neumann, 2020).
"""

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path

from ...core import limits
from ...core.errors import ValueshiftError
from ...core.sources import Source, bounded_lines, opened
from .release import Release, Translation

PUBLICATIONS = ("New Yorker", "Reuters", "Fox News")
"""The paper's three."""

MOST_SENTENCES = 10_000
_BODIES = ("content", "article")


def corpus_name(publication: str) -> str:
    """The corpus of a publication: `The New Yorker` and `New Yorker` are `news_new_yorker`."""
    words = re.findall(r"[a-z0-9]+", publication.lower())
    return "_".join(["news", *(words[1:] if words[:1] == ["the"] else words)])


def read_news(path: Path, publications: Sequence[str] = PUBLICATIONS, most: int = MOST_SENTENCES) -> dict[str, Release]:
    """The first `most` sentences of each publication, by corpus name; the id is `<article>.<sentence>`.

    An article is called by its `id` (1.0), or by its row in the file (2.0). Publications that the file lacks are left
    out with a note. Memory is bounded by an article, not by the file.

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
            sentences = islice(_sentences(body, split, english.left_out), most - len(english.rows))
            english.rows += [(f"{article}.{number}", text) for number, text in enumerate(sentences, start=1)]
            if len(english.rows) >= most:
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
        for row in _rows(file):
            number += 1
            if publication := row["publication"].strip():
                yield publication, row.get("id") or str(number), row["body"], file.name.name


def _rows(file: Source) -> Iterator[dict[str, str]]:
    """The columns `publication`, `body` and, in 1.0, `id` of each row."""
    before = csv.field_size_limit(limits.ARTICLE_CHARACTERS)  # of this whole process
    try:
        with file.stream() as stream:
            text = TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            reader = csv.reader(bounded_lines(text, file.where), strict=True)
            header = next(reader, [])
            bodies = [column for column in header if column in _BODIES]
            if header.count("publication") != 1 or len(bodies) != 1:
                raise ValueshiftError(
                    f"{file.where} has not the columns of All-the-News (publication and content, or publication "
                    f"and article); give the CSV as published"
                )
            names = ["body" if column in _BODIES else column for column in header]
            for row in reader:
                if row and len(row) != len(header):
                    fields = f"{len(row)} fields, the header has {len(header)}"
                    raise ValueshiftError(f"{file.where}, line {reader.line_num}: {fields}; download it again")
                if row:
                    yield dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise ValueshiftError(f"{file.where} is no sound CSV ({error}); download it again") from error
    finally:
        csv.field_size_limit(before)


def _sentences(body: str, split: Callable[[str], list[str]], left_out: Counter[str]) -> Iterator[str]:
    """The sentences of an article, a piece at a time where the whole would take the splitter too long."""
    most = limits.SPLIT_CHARACTERS
    for paragraph in [body] if len(body) <= most else body.split("\n"):
        while len(paragraph) > most:
            *whole, last = split(paragraph[:most]) or [""]  # the last may go on in the next piece
            yield from whole
            paragraph = paragraph[paragraph.rfind(last, 0, most) :] if whole else ""
            if not whole:
                left_out[f"paragraph without a sentence in {most:,} characters"] += 1
        yield from split(paragraph)
