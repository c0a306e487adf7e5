"""Which sentences a model is fine-tuned on: parallel, consecutive, split by id (paper, section 4.1)."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import ValueshiftError
from ...core.languages import FINETUNING_LANGUAGES
from .store import Corpus

if TYPE_CHECKING:
    import pandas as pd

DEV_SHARE = 0.2


def select(
    corpus: Corpus,
    languages: Sequence[str],
    size: int,
    *,
    parallel: Sequence[str] | None = None,
    seed: int = 0,
) -> "pd.DataFrame":
    """The examples of one fine-tuning run: `size` sentences before the split, equally many in each language.

    The sentences are the first that all of `parallel` and `languages` have, and are the same in every language. So
    monolingual runs in any of the paper's languages train on translations of each other, and a multilingual run over k
    languages on size / k of them from each. One language keeps the corpus's order, several are shuffled by `seed`.

    Args:
        corpus: where from.
        languages: to train on.
        size: sentences, train and dev together.
        parallel: languages that must have a sentence for it to be taken; by default those of the paper's fine-tuning
            languages that the corpus has.
        seed: of the shuffle. The split does not depend on it.

    Returns:
        One row per example, in training order: `example` (`<corpus>:<language>:<id>`), `id`, `language`, `text`,
        `split` (`train` or `dev`).

    Raises:
        ValueshiftError: the corpus lacks a language or has too few such sentences, the size is no multiple of the
            number of languages, or the dev split would be empty.
    """
    languages = tuple(dict.fromkeys(languages))
    held = corpus.languages
    if parallel is None:
        parallel = [code for code in FINETUNING_LANGUAGES if code in held]
    needed = tuple(dict.fromkeys((*languages, *parallel)))
    if lacking := [code for code in needed if code not in held]:
        raise ValueshiftError(f"corpus {corpus.name} has no language '{lacking[0]}'; it has {', '.join(held)}")
    if not languages or size <= 0 or size % len(languages):
        raise ValueshiftError(
            f"{size} sentences cannot be shared evenly by {len(languages)} languages; change the size"
        )

    shared = shared_ids(corpus, needed)
    each = size // len(languages)
    if len(shared) < each:
        raise ValueshiftError(
            f"corpus {corpus.name} has {len(shared):,} sentences in {', '.join(needed)}, {each:,} are needed; ask for "
            f"{len(shared) * len(languages):,} at most, or import a larger release"
        )
    splits = split_by_id(shared[:each])
    table = corpus.table
    rows = table[table["language"].isin(languages) & table["id"].isin(splits)].reset_index(drop=True)
    if len(languages) > 1:
        rows = rows.iloc[np.random.default_rng(seed).permutation(len(rows))].reset_index(drop=True)
    rows.insert(0, "example", f"{corpus.name}:" + rows["language"] + ":" + rows["id"])
    return rows.assign(split=rows["id"].map(splits))


def shared_ids(corpus: Corpus, languages: Sequence[str]) -> list[str]:
    """Ids of the sentences that all these languages have, in the corpus's order."""
    chosen = corpus.table[corpus.table["language"].isin(languages)]
    number = chosen.groupby("id", sort=False).size()
    return list(number.index[number == len(set(languages))])


def split_by_id(ids: Sequence[str]) -> dict[str, str]:
    """`train` or `dev` for each id: dev is the fifth whose SHA-256 comes first, in any language and under any seed.

    Raises:
        ValueshiftError: so few ids that dev is empty.
    """
    number = round(DEV_SHARE * len(ids))
    if not number:
        raise ValueshiftError(f"{len(ids)} sentences per language leave the dev split empty; take 5 or more")
    dev = set(sorted(ids, key=lambda sentence: hashlib.sha256(sentence.encode()).digest())[:number])
    return {sentence: "dev" if sentence in dev else "train" for sentence in ids}
