"""The files that tests of corpora import, and the sentences that they look at."""

from pathlib import Path

from valueshift.finetune.corpora.store import read_corpus

FOUR = ("fa", "ko", "hi", "ru")


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8", newline="")
    return file


def texts(name: str, language: str) -> dict[str, str]:
    table = read_corpus(name).table
    own = table[table["language"] == language]
    return dict(zip(own["id"], own["text"], strict=True))
