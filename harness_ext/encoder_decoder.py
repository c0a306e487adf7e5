"""Scoring probes with an encoder-decoder model by token ids: exact, and no position computed that is not needed.

The encoder runs once per probe. The decoder runs once over `<start> sentinel 0`, which both options share and which gives the
distribution of both first tokens, and once more only where an option has further tokens. Only positions whose log-probability
is asked for are projected to the vocabulary; where only `p_first` is asked for, the normaliser of the shared first position
cancels and is not computed.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ValueshiftError
from ..core.probes import Probe
from ..core.sentinels import resolve_sentinels
from .formats import EncoderDecoderIds, encoder_decoder_ids

_LOGITS_BUDGET = 1 << 26  # elements of one block of logits: 256 MB in float32


@dataclass(frozen=True)
class OptionScores:
    """Natural-log probabilities of one probe's options, summed over their tokens, and of the closing sentinel after them.

    Without log-probabilities asked for, `first` and `second` lack a common constant and `closing_*` are None.
    """

    first: float
    second: float
    closing_first: float | None
    closing_second: float | None
    tokens_first: int
    tokens_second: int


class EncoderDecoderScorer:
    """Scores probes with a model such as mT5, umT5 or T5.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: the model's own.
        log_probs: also normalise the first position and score the closing sentinel. Off, only differences are right.

    Raises:
        ValueshiftError: the tokenizer has no sentinel inside the embedding.
    """

    def __init__(self, model: Any, tokenizer: Any, log_probs: bool = True) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.log_probs = log_probs
        self.sentinels = resolve_sentinels(tokenizer, model.get_input_embeddings().weight.shape[0])
        self.start = model.config.decoder_start_token_id
        self.head = model.get_output_embeddings()
        self.scale = self._output_scale()

    def ids(self, probe: Probe) -> EncoderDecoderIds:
        """The token ids that are scored for a probe."""
        return encoder_decoder_ids(probe, self.tokenizer, self.sentinels)

    @torch.inference_mode()
    def score(self, batch: Sequence[EncoderDecoderIds]) -> list[OptionScores]:
        """Scores of a batch of probes, in order.

        Raises:
            ValueshiftError: a log-probability is NaN.
        """
        encoded, mask = self._encode(batch)
        shared = torch.tensor([[self.start, self.sentinels.ids[0]]] * len(batch), device=encoded.device)
        first_step = self._decoder()(
            input_ids=shared, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=True
        )
        hidden = first_step.last_hidden_state[:, -1]

        options = [option for ids in batch for option in (ids.first, ids.second)]
        targets = [(*option, self.sentinels.ids[1]) if self.log_probs else option for option in options]
        opening = self._first_tokens(hidden, options)
        rest = self._following_tokens(first_step.past_key_values, mask, targets)
        return [self._row(ids, opening[i], rest[2 * i], rest[2 * i + 1]) for i, ids in enumerate(batch)]

    def _encode(self, batch: Sequence[EncoderDecoderIds]) -> tuple[Tensor, Tensor]:
        """Encoder states (batch x length x width) and attention mask (batch x length) of right-padded inputs."""
        device = self.model.get_input_embeddings().weight.device
        length = max(len(ids.encoder) for ids in batch)
        pad = self.tokenizer.pad_token_id
        inputs = torch.tensor([[*ids.encoder, *[pad] * (length - len(ids.encoder))] for ids in batch], device=device)
        mask = torch.tensor(
            [[1] * len(ids.encoder) + [0] * (length - len(ids.encoder)) for ids in batch], device=device
        )
        encoded = self.model.get_encoder()(input_ids=inputs, attention_mask=mask).last_hidden_state
        return encoded, mask

    def _decoder(self) -> Any:
        return self.model.get_decoder()

    def _first_tokens(self, hidden: Tensor, options: Sequence[Sequence[int]]) -> list[tuple[float, float]]:
        """Log-probabilities (or logits, see `log_probs`) of both options' first tokens; hidden: batch x width."""
        tokens = torch.tensor([option[0] for option in options], device=hidden.device).view(-1, 2)
        if self.log_probs:
            values = self._log_probabilities(hidden.repeat_interleave(2, 0), tokens.flatten()).view(-1, 2)
        else:
            values = torch.einsum("bd,bod->bo", hidden * self.scale, self.head.weight[tokens]).float()
        return [(first, second) for first, second in values.tolist()]

    def _following_tokens(self, cache: Any, mask: Tensor, targets: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probabilities of each target's second and later tokens, given the shared steps in `cache`."""
        if max(map(len, targets)) == 1:
            return [[] for _ in targets]
        cache.batch_repeat_interleave(2)
        length = max(map(len, targets)) - 1
        pad = self.tokenizer.pad_token_id
        inputs = torch.tensor(
            [[*target[:-1], *[pad] * (length - len(target) + 1)] for target in targets], device=mask.device
        )
        states = self._decoder()(
            input_ids=inputs,
            encoder_hidden_states=torch.empty(len(targets), mask.shape[1], 0, device=mask.device),
            encoder_attention_mask=mask.repeat_interleave(2, 0),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        rows = [(row, step) for row, target in enumerate(targets) for step in range(len(target) - 1)]
        wanted = torch.tensor([targets[row][step + 1] for row, step in rows], device=mask.device)
        index = torch.tensor(rows, device=mask.device)
        values = iter(self._log_probabilities(states[index[:, 0], index[:, 1]], wanted).tolist())
        return [[next(values) for _ in target[1:]] for target in targets]

    def _log_probabilities(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability (float32) of one token per row of hidden states (rows x width), in blocks that fit memory."""
        block = max(1, _LOGITS_BUDGET // self.head.weight.shape[0])
        parts = []
        for states, wanted in zip(torch.split(hidden, block), torch.split(tokens, block), strict=True):
            logits = self.head(states * self.scale).float()
            parts.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
        return torch.cat(parts)

    def _row(
        self, ids: EncoderDecoderIds, opening: tuple[float, float], rest_first: list[float], rest_second: list[float]
    ) -> OptionScores:
        closing_first = rest_first.pop() if self.log_probs else None
        closing_second = rest_second.pop() if self.log_probs else None
        first, second = math.fsum([opening[0], *rest_first]), math.fsum([opening[1], *rest_second])
        if math.isnan(first) or math.isnan(second):
            raise ValueshiftError(
                "the model gives NaN; load it in float32 or bfloat16 (T5-family models overflow in float16)"
            )
        return OptionScores(first, second, closing_first, closing_second, len(ids.first), len(ids.second))

    @torch.inference_mode()
    def _output_scale(self) -> float:
        """The factor between decoder states and the head's input, measured on the model (it differs by class and version)."""
        device = self.model.get_input_embeddings().weight.device
        inputs = torch.tensor([[self.sentinels.ids[0], self.tokenizer.eos_token_id]], device=device)
        start = torch.tensor([[self.start]], device=device)
        logits = self.model(input_ids=inputs, decoder_input_ids=start).logits[0, -1].float()
        encoded = self.model.get_encoder()(input_ids=inputs).last_hidden_state
        states = self._decoder()(input_ids=start, encoder_hidden_states=encoded).last_hidden_state[0, -1]
        for scale in (1.0, self.model.config.d_model**-0.5):
            if torch.allclose(self.head(states * scale).float(), logits, rtol=1e-3, atol=1e-3):
                return scale
        raise ValueshiftError(
            f"{type(self.model).__name__} computes its logits in a way that is not known here; use lm_eval --model hf"
        )


def batches(lengths: Sequence[int], size: int, budget: int | None) -> Iterator[list[int]]:
    """Indices in batches of at most `size`, longest first, padded length x rows at most `budget` tokens."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        longest = lengths[batch[0]] if batch else lengths[index]
        if batch and (len(batch) == size or (budget is not None and longest * (len(batch) + 1) > budget)):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
