"""What the three ways of scoring share: their results, batches, and what they do when memory or positions run out."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..core.errors import ValueshiftError
from ..core.probes import Probe
from .formats import Format

log = logging.getLogger(__name__)

TOKEN_BUDGET = 2048
"""Tokens that go through the model in one batch where the batch size is `auto`."""


@dataclass(frozen=True)
class OptionScore:
    """How likely one option of a probe is."""

    logprob: float
    """Natural log, summed over `tokens` tokens; NaN where the model gives that."""
    tokens: int
    greedy: bool | None = None
    """Whether each of the tokens is the most probable one in its place; None where that was not computed."""
    closing: float | None = None
    """Log-probability of the sentinel that follows the option; None where not asked for."""


Scores = tuple[OptionScore, OptionScore]
"""Of the first and the second option."""

TokenScore = tuple[float, bool | None]
"""Log-probability of one token, and whether it is the most probable in its place; None where that was not computed."""


class Sized(Protocol):
    """Token ids of one probe."""

    @property
    def length(self) -> int:
        """The longest sequence that the model sees."""

    @property
    def cost(self) -> int:
        """Tokens that go through the model, padding apart."""


Ids = TypeVar("Ids", bound=Sized)
Found = TypeVar("Found")


class Scorer(Protocol[Ids]):
    """Scores probes with one model."""

    format: Format
    model: Any

    def ids(self, probe: Probe) -> Ids:
        """The token ids that are scored for a probe."""

    def score(self, batch: Sequence[Ids]) -> list[Scores]:
        """Scores of a batch of probes, in order."""


def score_probes(
    scorer: Scorer[Ids], probes: Sequence[Probe], size: int | None = None, *, label: str = "", quiet: bool = False
) -> list[Scores]:
    """Scores of all probes, in order.

    Args:
        scorer: of the model that is asked.
        probes: what is asked.
        size: probes in a batch; None fills batches to `TOKEN_BUDGET`.
        label: of the progress bar.
        quiet: show no progress bar.

    Raises:
        ValueshiftError: a probe is longer than the model's positions, or memory does not hold one.
    """
    ids = [scorer.ids(probe) for probe in probes]
    for probe, found in zip(probes, ids, strict=True):
        refuse_longer(found.length, positions(scorer.model), f"{probe.probe_set} {probe.language} {probe.question}")
    return score_in_batches(scorer.score, ids, size, label=label, quiet=quiet)


def score_in_batches(
    score: Callable[[Sequence[Ids]], list[Found]], ids: Sequence[Ids], size: int | None, *, label: str, quiet: bool
) -> list[Found]:
    """What `score` finds for each of `ids`, in order, asked in batches that are halved where memory runs out."""
    found: dict[int, Found] = {}
    with tqdm(total=len(ids), desc=label, unit="probe", disable=quiet) as progress:

        def work(batch: list[int]) -> None:
            found.update(zip(batch, score([ids[index] for index in batch]), strict=True))
            progress.update(len(batch))

        for batch in batches([one.cost for one in ids], size or len(ids), None if size else TOKEN_BUDGET):
            halving(work, batch)
    return [found[index] for index in range(len(ids))]


def refuse_longer(length: int, limit: int | None, where: str) -> None:
    """Refuse what the model could only see cut.

    Args:
        length: tokens of the longest sequence that the model would see.
        limit: positions of the model; None is no limit.
        where: names the probe.

    Raises:
        ValueshiftError: it is longer than the limit.
    """
    if limit is not None and length > limit:
        raise ValueshiftError(
            f"{where} has {length} tokens, but the model takes {limit} and would see it cut; shorten the statement or ask a "
            f"model with more positions"
        )


def positions(model: Any) -> int | None:
    """How many positions a Hugging Face model has; None where they are relative, as in T5."""
    limit = getattr(model.config, "max_position_embeddings", None)
    embedding = getattr(getattr(getattr(model, "base_model", None), "embeddings", None), "position_embeddings", None)
    padding = getattr(embedding, "padding_idx", None)  # RoBERTa and its kin count positions from there on
    return limit if limit is None or padding is None else int(limit) - padding - 1


def batches(costs: Sequence[int], size: int, budget: int | None) -> Iterator[list[int]]:
    """Indices in batches of at most `size`, dearest first, highest cost x probes at most `budget`."""
    batch: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: -costs[i]):
        dearest = costs[batch[0]] if batch else costs[index]
        if batch and (len(batch) == size or (budget is not None and dearest * (len(batch) + 1) > budget)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def halving(work: Callable[[list[int]], None], batch: list[int]) -> None:
    """Do `work` on a batch; when memory runs out, on its halves, and say so.

    Raises:
        ValueshiftError: memory runs out on a single probe.
    """
    try:
        work(batch)
        return
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        if "DefaultCPUAllocator" not in str(error):
            raise
    if len(batch) == 1:
        raise ValueshiftError("memory does not hold one probe of this model; use a larger device or --dtype bfloat16")
    log.warning("out of memory at %d probes; going on with batches of %d", len(batch), len(batch) // 2)
    middle = len(batch) // 2
    halving(work, batch[:middle])
    halving(work, batch[middle:])


@contextmanager
def only_at(head: nn.Module, rows: Tensor, steps: Tensor) -> Iterator[None]:
    """Let the output head see only the hidden states at these positions: its logits are 1 x positions x vocabulary."""

    def select(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        states = inputs[0]
        return (states[rows.to(states.device), steps.to(states.device)][None], *inputs[1:])

    hook = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        hook.remove()


@dataclass(frozen=True)
class AskedToken:
    """A token whose log-probability is asked for: the sequence that the model sees, the position to read, the token."""

    sequence: tuple[int, ...]
    position: int
    token: int


@torch.inference_mode()
def score_tokens(model: Any, tokens: Sequence[AskedToken], pad: int, device: torch.device) -> list[TokenScore]:
    """Log-probability of each token and whether it is the most probable, by one pass over the distinct sequences.

    Args:
        model: with one stack, causal or masked.
        tokens: what is asked.
        pad: id that fills shorter sequences at their right.
        device: where the inputs go.
    """
    sequences = {sequence: row for row, sequence in enumerate(dict.fromkeys(token.sequence for token in tokens))}
    inputs, mask = padded(list(sequences), pad, device)
    rows = torch.tensor([sequences[token.sequence] for token in tokens])
    steps = torch.tensor([token.position for token in tokens])
    with only_at(model.get_output_embeddings(), rows, steps):
        logits = model(input_ids=inputs, attention_mask=mask).logits[0].float()
    wanted = torch.tensor([token.token for token in tokens], device=logits.device)
    values = logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1)
    return list(zip(values.tolist(), (logits.argmax(1) == wanted).tolist(), strict=True))


def padded(sequences: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, both sequences x longest, filled at the right."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*sequence, *[pad] * (longest - len(sequence))] for sequence in sequences], device=device)
    mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in sequences], device=device)
    return ids, mask


def summed(scored: Sequence[TokenScore]) -> OptionScore:
    """The score of an option whose tokens scored so."""
    known = all(greedy is not None for _, greedy in scored)
    greedy = all(greedy for _, greedy in scored) if known else None
    return OptionScore(math.fsum(value for value, _ in scored), len(scored), greedy)
