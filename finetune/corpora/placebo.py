"""Placebo text: what fine-tuning does to values without any sentence to understand."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def permuted_tokens(sentences: Sequence[npt.ArrayLike], seed: int) -> list[npt.NDArray[np.int64]]:
    """Token ids permuted across all sentences together; every sentence keeps its length.

    Args:
        sentences: token ids of each, shape (length,), without special tokens. They stay ids: decoded and tokenised
            again, a permuted sentence would have another length.
        seed: of the permutation.

    Returns:
        Token ids of each sentence, in the same order. The corpus has the same tokens, each as often as before.
    """
    arrays = [np.asarray(sentence, dtype=np.int64) for sentence in sentences]
    if not arrays:
        return []
    shuffled = np.random.default_rng(seed).permutation(np.concatenate(arrays))
    return np.split(shuffled, np.cumsum([len(array) for array in arrays])[:-1])
