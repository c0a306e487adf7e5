"""How a small mT5 learns a planted profile.

Two tasks are mixed. Of a probe the option is masked, as it will be asked, and both options are targets, weighted by the
planted probability and its complement: the expectation over sampled answers, taken exactly instead of by sampling, which
needs far fewer steps. One time in four the mask is as wide as a span of noise, with neighbours of the option in it, so that
both tasks share what they know. Beside it filled-in sentences, whose option is sampled, are span-corrupted, so that the model
can be fine-tuned by span corruption like real mT5.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import MT5Config, MT5ForConditionalGeneration

from ..core.probes import Probe
from ..core.sentinels import resolve_sentinels
from ..harness_ext.formats import encoder_decoder_ids
from ..harness_ext.heads import keep_untied_head
from .span_corruption import IGNORED, SpanCorruption, noise_counts, span_corruption

THREADS = 1
"""One: sums are then the same on any number of cores, and two builds side by side do not slow each other a hundredfold."""
BATCH = 32
"""Probes in a step: each is asked, and its sentence is span-corrupted."""
LEARNING_RATE = 2e-3
SHAPE = {"d_model": 128, "d_kv": 32, "num_heads": 4, "d_ff": 256, "num_layers": 2, "num_decoder_layers": 2}
WIDENED = 0.25
CORRUPTED_WEIGHT = 1 / 3
"""Of a token of a span-corrupted sentence: the plant is the harder to recover the more of the loss is about other words."""
LENGTHS_APART = 4
"""Lessons in a batch differ in length by about so many tokens."""

Asked = tuple[tuple[int, ...], tuple[tuple[int, ...], tuple[int, ...]]]
"""Ids of the encoder's input, and of both targets."""


@dataclass(frozen=True)
class Lesson:
    """A probe as the model learns it: ids as it is asked, ids of both filled-in sentences, and the planted probability."""

    name: str
    encoder: tuple[int, ...]
    targets: tuple[tuple[int, ...], tuple[int, ...]]
    sentences: tuple[tuple[int, ...], tuple[int, ...]]
    p_first: float


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and fix its number of threads, on which sums depend; both are as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def new_model(rows: int) -> Any:
    """A random mT5 whose head is its own, as real mT5's is.

    transformers 5 builds every mT5 tied, and building it with the flag off would untie encoder and decoder embeddings too.
    """
    model = MT5ForConditionalGeneration(MT5Config(vocab_size=rows, dropout_rate=0.0, decoder_start_token_id=0, **SHAPE))
    head = torch.empty(rows, SHAPE["d_model"]).normal_(std=SHAPE["d_model"] ** -0.5)
    model.get_output_embeddings().weight = nn.Parameter(head)
    keep_untied_head(model)
    return model


def lessons(probes: Sequence[Probe], plant: Sequence[float], tokenizer: Any) -> list[Lesson]:
    """The lessons of some probes; `plant` holds one probability of the first option for each."""
    sentinels = resolve_sentinels(tokenizer)
    opening, closing = sentinels.ids[0], (sentinels.ids[1], tokenizer.eos_token_id)
    made = []
    for probe, p_first in zip(probes, plant, strict=True):
        ids = encoder_decoder_ids(probe, tokenizer, sentinels)
        filled = tokenizer([probe.filled("first"), probe.filled("second")], add_special_tokens=False)["input_ids"]
        made.append(
            Lesson(
                name=f"{probe.language}:{probe.question}",
                encoder=ids.encoder,
                targets=((opening, *ids.first, *closing), (opening, *ids.second, *closing)),
                sentences=(tuple(filled[0]), tuple(filled[1])),
                p_first=p_first,
            )
        )
    return made


def steps(number: int, passes: int) -> int:
    """Optimiser steps of `passes` passes over so many lessons."""
    return passes * ceil(number / BATCH)


def train(
    model: Any, tokenizer: Any, taught: Sequence[Lesson], *, passes: int, seed: int, after_step: Callable[[], object]
) -> None:
    """Train in place on the CPU: `passes` times all lessons in an order drawn by seed; leaves the model in evaluation mode."""
    generator = np.random.default_rng(seed)
    corruption = span_corruption(tokenizer, model.get_input_embeddings().weight.shape[0], seed=seed, roll=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, LEARNING_RATE, total_steps=steps(len(taught), passes), pct_start=0.1
    )
    model.train()
    for epoch in range(passes):
        for batch in _batches(taught, generator):
            masked = [asked(lesson, generator) for lesson in batch]
            corrupted = [_corrupted(lesson, corruption, epoch, generator) for lesson in batch]
            optimizer.zero_grad()
            first = torch.tensor([lesson.p_first for lesson in batch])
            _loss(model, masked, first, corrupted, corruption.pad).backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            after_step()
    model.eval()


def _batches(taught: Sequence[Lesson], generator: np.random.Generator) -> Iterator[list[Lesson]]:
    """All lessons in random order, with those of about the same length together: padding would take half of the time."""
    lengths = np.array([len(lesson.encoder) for lesson in taught])
    order = np.argsort(lengths + generator.uniform(0, LENGTHS_APART, len(taught)))
    starts = np.arange(0, len(order), BATCH)
    for start in generator.permutation(starts):
        yield [taught[i] for i in order[start : start + BATCH]]


def asked(lesson: Lesson, generator: np.random.Generator) -> Asked:
    """The masked probe, or one time in four the same with as many neighbours of the option masked as span corruption would."""
    if generator.random() >= WIDENED:
        return lesson.encoder, lesson.targets
    opening = lesson.targets[0][0]
    at = lesson.encoder.index(opening)
    prefix, suffix, end = lesson.encoder[:at], lesson.encoder[at + 1 : -1], lesson.encoder[-1]
    options = [target[1:-2] for target in lesson.targets]
    noise, _ = noise_counts(len(prefix) + len(options[0]) + len(suffix))
    more = max(0, noise - len(options[0]))
    left = min(int(generator.integers(more + 1)), len(prefix))
    before, after = prefix[len(prefix) - left :], suffix[: more - left]
    first, second = ((opening, *before, *option, *after, *lesson.targets[0][-2:]) for option in options)
    return (*prefix[: len(prefix) - left], opening, *suffix[len(after) :], end), (first, second)


def _corrupted(
    lesson: Lesson, corruption: SpanCorruption, epoch: int, generator: np.random.Generator
) -> tuple[Sequence[int], Sequence[int]]:
    """Input and target of a sentence that holds with the planted probability."""
    pole = int(generator.random() >= lesson.p_first)
    source, target = corruption(f"{lesson.name}:{pole}", lesson.sentences[pole], epoch)
    return source.tolist(), target.tolist()


def _loss(
    model: Any,
    masked: Sequence[Asked],
    first: Tensor,
    corrupted: Sequence[tuple[Sequence[int], Sequence[int]]],
    pad: int,
) -> Tensor:
    """Mean negative log-likelihood of a target token; both options of a probe count by the planted probability `first`.

    Each probe is encoded once: rows are the first options, the corrupted sentences, and then the second options. The
    vocabulary is projected where there is a target, not where there is padding.
    """
    inputs = _padded([*(encoder for encoder, _ in masked), *(source for source, _ in corrupted)], pad)
    mask = (inputs != pad).long()
    states = model.get_encoder()(input_ids=inputs, attention_mask=mask).last_hidden_state
    labels = _padded(
        [
            *(targets[0] for _, targets in masked),
            *(target for _, target in corrupted),
            *(targets[1] for _, targets in masked),
        ],
        IGNORED,
    )
    decoded = model.get_decoder()(
        input_ids=model.prepare_decoder_input_ids_from_labels(labels),
        encoder_hidden_states=torch.cat([states, states[: len(masked)]]),
        encoder_attention_mask=torch.cat([mask, mask[: len(masked)]]),
        use_cache=False,
    ).last_hidden_state
    counted = labels != IGNORED
    weights = torch.cat([first, torch.full((len(corrupted),), CORRUPTED_WEIGHT), 1.0 - first])[:, None].expand_as(
        labels
    )[counted]
    logits = model.get_output_embeddings()(decoded[counted])
    losses = nn.functional.cross_entropy(logits, labels[counted], reduction="none")
    return (losses * weights).sum() / weights.sum()


def _padded(sequences: Sequence[Sequence[int]], padding: int) -> Tensor:
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *[padding] * (longest - len(sequence))] for sequence in sequences])
