"""T5's span corruption on the token ids of single sentences (Raffel et al., 2020, section 3.1.4; the same for mT5).

Of n tokens, `round(0.15 n)` are noise, in `round(noise / 3)` spans, at least one each. Noise and the rest are each cut into
that many pieces, all cuts equally likely, and laid in turn, beginning with the rest. In the input, every span of noise is
one sentinel; the target is every sentinel with its span, and a final sentinel. Both end in `</s>` (here with more noise):

    tokens  a b c d e f g     input   a b <0> e <1> </s>
    noise       c d   f g     target  <0> c d <1> f g <2> </s>

So the last token of a sentence is always noise, and up to 30 tokens it has one span, always at its end: harmless in T5's
packed text, but not here. `roll`, T5's later `random_roll`, turns the mask by a random offset, so that every position is
noise equally often. T5's code leaves the final sentinel out where the text ends in noise; its paper never does (figure 2).

Masks depend on seed, epoch and example only: any number of workers, any batch size and a resumed run see the same ones.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..core.errors import ValueshiftError
from ..core.sentinels import resolve_sentinels

Tokens = npt.NDArray[np.int64]

NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0
IGNORED = -100
"""Label of padding, which the loss leaves out."""


@dataclass(frozen=True)
class SpanCorruption:
    """The rule with the ids of one tokenizer."""

    sentinels: tuple[int, ...]
    eos: int
    pad: int
    seed: int = 0
    roll: bool = False

    def __call__(self, example: str, tokens: Sequence[int] | Tokens, epoch: int) -> tuple[Tokens, Tokens]:
        """The input and the target of one sentence, with sentinels and `</s>`.

        One token stays as it is, with the final sentinel as its target; of two the second is noise.

        Args:
            example: the example's id.
            tokens: ids of the sentence, shape (length,), without special tokens.
            epoch: which pass over the examples this is.

        Raises:
            ValueshiftError: there is no token, or more spans than sentinels.
        """
        tokens = np.asarray(tokens, dtype=np.int64)
        if not len(tokens):
            raise ValueshiftError(f"example {example} has no token; leave it out of the corpus")
        noise = self.noise_mask(len(tokens), self._generator(example, epoch))
        starts = noise & ~np.concatenate(([False], noise[:-1]))
        spans = int(starts.sum())
        if spans >= len(self.sentinels):
            raise ValueshiftError(
                f"example {example} has {len(tokens)} tokens and {spans} noise spans, the tokenizer has "
                f"{len(self.sentinels)} sentinels; truncate it"
            )
        sentinels = np.array(self.sentinels[: spans + 1], dtype=np.int64)
        marked = tokens.copy()
        marked[starts] = sentinels[:spans]
        inputs = np.append(marked[~noise | starts], self.eos)
        target = np.insert(tokens[noise], np.flatnonzero(starts[noise]), sentinels[:spans])
        return inputs, np.append(target, (sentinels[spans], self.eos))

    def noise_mask(self, length: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Which tokens are noise, shape (length,)."""
        if length == 1:
            return np.zeros(1, dtype=bool)
        noise, spans = noise_counts(length)
        lengths = np.empty(2 * spans, dtype=np.int64)
        lengths[0::2] = _segments(length - noise, spans, generator)
        lengths[1::2] = _segments(noise, spans, generator)
        mask = np.repeat(np.arange(2 * spans) % 2 == 1, lengths)
        return np.roll(mask, generator.integers(length)) if self.roll else mask

    def longest(self, inputs: int) -> int:
        """The most tokens that a sentence may have, so that no input is longer than `inputs` and the sentinels suffice."""
        length = 1
        while True:
            noise, spans = noise_counts(length + 1)
            spans += self.roll  # a span that is turned over the end becomes two
            if length + 1 - noise + spans + 1 > inputs or spans >= len(self.sentinels):
                return length
            length += 1

    def _generator(self, example: str, epoch: int) -> np.random.Generator:
        state = hashlib.sha256(f"{self.seed} {epoch} {example}".encode()).digest()
        return np.random.default_rng(int.from_bytes(state[:16]))


def noise_counts(length: int) -> tuple[int, int]:
    """Number of noise tokens and of noise spans of a sentence of two or more tokens."""
    noise = min(max(round(NOISE_DENSITY * length), 1), length - 1)
    return noise, max(round(noise / MEAN_SPAN), 1)


def _segments(items: int, segments: int, generator: np.random.Generator) -> Tokens:
    """Lengths of non-empty segments that add up to `items`, every way to cut equally likely."""
    cuts = np.sort(generator.choice(items - 1, segments - 1, replace=False)) + 1
    return np.diff(np.concatenate(([0], cuts, [items])))


def span_corruption(tokenizer: Any, rows: int, *, seed: int = 0, roll: bool = False) -> SpanCorruption:
    """The rule for a tokenizer whose model's input embedding has `rows` rows.

    Raises:
        ValueshiftError: the tokenizer has no sentinels inside the embedding, or no end of sequence.
    """
    sentinels = resolve_sentinels(tokenizer, rows).ids
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise ValueshiftError(f"the tokenizer of {tokenizer.name_or_path} lacks </s> or <pad>; load that of mT5 or T5")
    return SpanCorruption(sentinels, int(tokenizer.eos_token_id), int(tokenizer.pad_token_id), seed, roll)


def sentence_tokens(texts: Sequence[str], tokenizer: Any, longest: int) -> tuple[list[Tokens], int]:
    """Token ids of each sentence without special tokens, and how many sentences were truncated to `longest` tokens."""
    tokenised = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    truncated = sum(len(tokens) > longest for tokens in tokenised)
    return [np.array(tokens[:longest], dtype=np.int64) for tokens in tokenised], truncated


@dataclass
class SpanCorruptionCollator:
    """Makes a batch of sentences: corrupts each on its own and pads to the longest.

    The trainer sets `epoch` before it starts an epoch's workers; dev sentences are masked the same way in every epoch, so
    that dev losses are comparable. With Hugging Face's Trainer, `remove_unused_columns` must be off.
    """

    corruption: SpanCorruption
    epoch: int = 0

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """The batch of sentences given by `example`, `tokens` and `split`.

        Returns:
            `input_ids` and `attention_mask`, shape (batch, longest input), and `labels`, shape (batch, longest target),
            -100 where padded; all int64.
        """
        pairs = [
            self.corruption(one["example"], one["tokens"], 0 if one["split"] == "dev" else self.epoch)
            for one in features
        ]
        inputs = _padded([source for source, _ in pairs], self.corruption.pad)
        lengths = torch.tensor([len(source) for source, _ in pairs])
        return {
            "input_ids": inputs,
            "attention_mask": (torch.arange(inputs.shape[1]) < lengths[:, None]).long(),
            "labels": _padded([target for _, target in pairs], IGNORED),
        }


def _padded(sequences: Sequence[Tokens], padding: int) -> torch.Tensor:
    batch = np.full((len(sequences), max(map(len, sequences))), padding, dtype=np.int64)
    for row, sequence in zip(batch, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(batch)
