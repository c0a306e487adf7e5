"""What is attributed: a number of a query that moves when a training sentence is left out, and how a sentence moves it.

Both sides are weighted sums of one output at target positions, so that every backend takes the gradient of the same thing:

    log_prob   log p(token | input, targets before it)            its gradient is that of the training loss, negated
    margin     log p / (1 - p)                                    TRAK's output of many classes (Park et al. 2023, 3.3)

The gradient of the first is (1 - p) times that of the second. TRAK takes the margin on both sides and multiplies the scores of
a training sentence by its mean 1 - p (its Q); with log-probabilities that factor is already in each token.

    measurement     output     of a query                                          of a training sentence
    contrast        log_prob   sum over the tuned answer - sum over the base answer   sum over its targets
    answer_margin   margin     mean over the tuned answer                           mean over its targets
    paper           margin     mean over all targets of the filled probe            mean over its targets

A training sentence's targets are `content` (noise tokens, no sentinel, no `</s>`) or `all`. It is measured under each mask it
was trained with, and averaged. The sum, and not the mean, over the targets of a sentence is what training adds up: its loss is
the mean over the tokens of a batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..core.probes import Probe
from ..core.sentinels import resolve_sentinels
from ..finetune.span_corruption import SpanCorruption
from ..harness_ext.formats import encoder_decoder_ids

Measurement = Literal["contrast", "answer_margin", "paper"]
Targets = Literal["content", "all"]
Masks = Literal["all", "one"]
Output = Literal["log_prob", "margin"]
Pole = Literal["first", "second"]


class HowMeasured(Protocol):
    """The part of a `Method` that says what is measured."""

    @property
    def measurement(self) -> Measurement: ...  # noqa: D102
    @property
    def targets(self) -> Targets: ...  # noqa: D102
    @property
    def masks(self) -> Masks: ...  # noqa: D102


@dataclass(frozen=True)
class Masked:
    """A sentence under one mask: token ids of the input and of the target, both with sentinels and `</s>`."""

    encoder: tuple[int, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A training sentence by its id (`<corpus>:<language>:<id>`), under the masks it was trained with."""

    example: str
    masks: tuple[Masked, ...]


@dataclass(frozen=True)
class Query:
    """A probe whose answer is explained: encoder ids (with sentinel 0 and `</s>`), and token ids of both answers."""

    language: str
    question: str
    encoder: tuple[int, ...]
    tuned: tuple[int, ...]
    """The answer of the tuned checkpoint."""
    base: tuple[int, ...]
    """That of the base checkpoint, or the other option where the answer has not changed."""

    @property
    def name(self) -> str:
        """Its key in a store."""
        return f"{self.language}:{self.question}"


@dataclass(frozen=True)
class Row:
    """One pass through the model: the output at target position t counts `weights[t]` times."""

    encoder: tuple[int, ...]
    labels: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True)
class Item:
    """What one vector of features is of: the sum of the weighted outputs of its rows."""

    name: str
    rows: tuple[Row, ...]


def masked_examples(
    examples: Iterable[Mapping[str, Any]], corruption: SpanCorruption, epochs: int, masks: Masks = "all"
) -> list[Example]:
    """Training sentences under the masks of every epoch (`all`), or of the first only (`one`).

    Masks depend on the corruption's seed, the epoch and the example's id only, so these are the ones that training saw.

    Args:
        examples: with `example` and `tokens`, as `finetune.finetuning.training_examples` makes them.
        corruption: that of the training run, with its seed.
        epochs: how often the run saw each sentence.
        masks: which of them.
    """
    chosen = range(epochs) if masks == "all" else range(1)
    return [
        Example(
            one["example"],
            tuple(
                Masked(tuple(map(int, inputs)), tuple(map(int, target)))
                for inputs, target in (corruption(one["example"], one["tokens"], epoch) for epoch in chosen)
            ),
        )
        for one in examples
    ]


def query(probe: Probe, tuned: Pole, tokenizer: Any, rows: int) -> Query:
    """The query of one probe.

    Args:
        probe: asked as in `harness_ext.formats.encoder_decoder_ids`.
        tuned: the answer of the tuned checkpoint; the other option is the base answer.
        tokenizer: the model's own.
        rows: of the model's input embedding.

    Raises:
        ValueshiftError: the tokenizer has no sentinel, or cannot tell the options apart.
    """
    ids = encoder_decoder_ids(probe, tokenizer, resolve_sentinels(tokenizer, rows))
    answers = (ids.first, ids.second) if tuned == "first" else (ids.second, ids.first)
    return Query(probe.language, probe.question, ids.encoder, *answers)


def output_of(how: HowMeasured) -> Output:
    """Which output both sides are measured by."""
    return "log_prob" if how.measurement == "contrast" else "margin"


def training_items(examples: Sequence[Example], how: HowMeasured, tokenizer: Any, rows: int) -> list[Item]:
    """What is measured of each training sentence, under all its masks or the first; without content it has no weight anywhere."""
    ignored = {*resolve_sentinels(tokenizer, rows).ids, tokenizer.eos_token_id} if how.targets == "content" else set()
    chosen = [(one, one.masks if how.masks == "all" else one.masks[:1]) for one in examples]
    return [
        Item(
            example.example,
            tuple(
                Row(
                    mask.encoder,
                    mask.labels,
                    _weights([token not in ignored for token in mask.labels], how, 1 / len(masks)),
                )
                for mask in masks
            ),
        )
        for example, masks in chosen
    ]


def _weights(counted: Sequence[bool], how: HowMeasured, share: float) -> tuple[float, ...]:
    """One weight for each target: `share`, which for the margin is divided by the number of counted targets."""
    if output_of(how) == "margin":
        share /= max(sum(counted), 1)
    return tuple(share * one for one in counted)


def query_items(queries: Sequence[Query], how: HowMeasured, tokenizer: Any, rows: int) -> list[Item]:
    """What is measured of each query; answer tokens are those after sentinel 0."""
    opening, closing = resolve_sentinels(tokenizer, rows).ids[:2]
    items = []
    for one in queries:
        if how.measurement == "contrast":
            sides = ((one.tuned, 1.0), (one.base, -1.0))
            measured = tuple(_answer(one, opening, answer, sign) for answer, sign in sides)
        elif how.measurement == "answer_margin":
            measured = (_answer(one, opening, one.tuned, 1 / len(one.tuned)),)
        else:
            target = (opening, *one.tuned, closing, tokenizer.eos_token_id)
            measured = (Row(one.encoder, target, (1 / len(target),) * len(target)),)
        items.append(Item(one.name, measured))
    return items


def _answer(one: Query, opening: int, answer: tuple[int, ...], weight: float) -> Row:
    return Row(one.encoder, (opening, *answer), (0.0, *(weight,) * len(answer)))
