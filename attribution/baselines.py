"""Rankings that know nothing of the model: what influence has to differ from, and to beat where it is checked."""

from collections.abc import Sequence

import bm25s
import numpy as np
from numpy.typing import NDArray

from .features import Floats

Tokens = Sequence[int] | NDArray[np.int64]
_LEAST = 1e-6  # of a score: what equal scores are told apart by


def token_overlap(sentences: Sequence[Tokens], queries: Sequence[Tokens], seed: int = 0) -> Floats:
    """BM25 (Robertson and Zaragoza 2009; `bm25s`, Lucene's variant) of each filled probe against the training sentences.

    The model's own tokens are the terms: whitespace and word boundaries fail in some of the scripts. Sentences without a
    common token all have score 0; equal scores are ordered at random by `seed`.

    Returns:
        float32, shape (training sentences, queries).
    """
    index = bm25s.BM25()
    index.index([_terms(tokens) for tokens in sentences], show_progress=False)
    scores = np.stack([index.get_scores(_terms(tokens)) for tokens in queries], axis=1)
    tie = np.random.default_rng(seed).random(scores.shape, dtype=np.float32)
    result: Floats = (scores + _LEAST * tie).astype(np.float32)
    return result


def same_language_random(sentences: Sequence[str], queries: Sequence[str], seed: int = 0) -> Floats:
    """A random order with the sentences of the probe's language first; all at random where none was trained on.

    Args:
        sentences: language of each training sentence.
        queries: language of each probe.
        seed: of the order.

    Returns:
        float32, shape (training sentences, queries).
    """
    same = np.array(sentences)[:, None] == np.array(queries)
    result: Floats = same + np.random.default_rng(seed).random(same.shape, dtype=np.float32)
    return result


def _terms(tokens: Tokens) -> list[str]:
    return [str(token) for token in tokens]
