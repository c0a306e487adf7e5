"""Scoring probes with an encoder-decoder model by token ids: exact, and no position computed that is not needed.

The encoder runs once per probe. The decoder runs once over `<start> sentinel 0`, which both options share and which gives the
distribution of both first tokens, and once more only for options that have further tokens. Only positions whose
log-probability is asked for are projected to the vocabulary; where only `p_first` is asked for, the normaliser of the shared
first position cancels and is not computed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..core.errors import ValueshiftError
from ..core.probes import Probe
from ..core.sentinels import resolve_sentinels
from .formats import EncoderDecoderIds, Format, encoder_decoder_ids
from .scoring import OptionScore, Scores, TokenScore, chosen, padded, summed

_LOGITS_BUDGET = 1 << 24  # elements of one block of logits: 64 MB in float32


def refuse_float16(dtype: torch.dtype | str) -> None:
    """Refuse the number format in which T5-family models overflow.

    Raises:
        ValueshiftError: it is float16.
    """
    if str(dtype).removeprefix("torch.") == "float16":
        raise ValueshiftError("T5-family models overflow in float16 and give NaN; choose dtype bfloat16 or float32")


class EncoderDecoderScorer:
    """Scores probes with a model such as mT5, umT5 or T5.

    Args:
        model: in evaluation mode.
        tokenizer: the model's own.
        log_probs: also normalise the first position. Off, the two log-probabilities of a probe lack a common constant, and
            only their difference is right; `greedy` is then None.
        closing: also score the sentinel that follows an option.
        device: where inputs go; where the embedding is if None.

    Raises:
        ValueshiftError: the tokenizer has no sentinel inside the embedding, or the model is in float16.
    """

    format: Format = "encoder-decoder"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        log_probs: bool = True,
        closing: bool = False,
        device: torch.device | None = None,
    ) -> None:
        refuse_float16(model.dtype)
        embedding = model.get_input_embeddings().weight
        self.model = model
        self.tokenizer = tokenizer
        self.log_probs = log_probs
        self.closing = closing
        self.device = device or embedding.device
        self.sentinels = resolve_sentinels(tokenizer, embedding.shape[0])
        self.head = model.get_output_embeddings()

    def ids(self, probe: Probe) -> EncoderDecoderIds:
        """The token ids that are scored for a probe."""
        return encoder_decoder_ids(probe, self.tokenizer, self.sentinels)

    @torch.inference_mode()
    def score(self, batch: Sequence[EncoderDecoderIds]) -> list[Scores]:
        """Scores of a batch of probes, in order.

        Raises:
            ValueshiftError: a log-probability is NaN.
        """
        options = [option for ids in batch for option in (ids.first, ids.second)]
        targets = [(*option, self.sentinels.ids[1]) if self.closing else option for option in options]
        states, cache, mask = self._shared_step(batch)
        opening = self._opening_tokens(states, options)
        further = self._further_tokens(cache, mask, targets)
        scored = [self._option(first, rest) for first, rest in zip(opening, further, strict=True)]
        return list(zip(scored[::2], scored[1::2], strict=True))

    def _shared_step(self, batch: Sequence[EncoderDecoderIds]) -> tuple[Tensor, Any, Tensor]:
        """What the head is given after `<start> sentinel 0` (probes x width), the decoder's cache, the encoder's mask."""
        inputs, mask = padded([ids.encoder for ids in batch], self.tokenizer.pad_token_id, self.device)
        start = [self.model.config.decoder_start_token_id, self.sentinels.ids[0]]
        with self._captured() as states:
            step = self.model(
                input_ids=inputs,
                attention_mask=mask,
                decoder_input_ids=torch.tensor([start] * len(batch), device=self.device),
                use_cache=True,
            )
        return states[0][:, -1], step.past_key_values, mask

    def _opening_tokens(self, states: Tensor, options: Sequence[Sequence[int]]) -> list[TokenScore]:
        """Log-probabilities (or logits, see `log_probs`) of all options' first tokens; states: probes x width."""
        tokens = torch.tensor([option[0] for option in options], device=states.device).view(-1, 2)
        if self.log_probs:
            return self._project(states, tokens)
        weights = self.head.weight[tokens.to(self.head.weight.device)]
        logits = torch.einsum("nd,nkd->nk", states.to(weights.device), weights)
        return [(value, None) for value in logits.float().flatten().tolist()]

    def _further_tokens(self, cache: Any, mask: Tensor, targets: Sequence[Sequence[int]]) -> list[list[TokenScore]]:
        """Log-probabilities of each target's second and later tokens, given the shared step in `cache`."""
        longer = [row for row, target in enumerate(targets) if len(target) > 1]
        if not longer:
            return [[] for _ in targets]
        probes = torch.tensor([row // 2 for row in longer], device=mask.device)
        cache.batch_select_indices(probes)
        inputs, _ = padded([targets[row][:-1] for row in longer], self.tokenizer.pad_token_id, self.device)
        with self._captured() as states:
            self.model(
                encoder_outputs=(torch.empty(len(longer), mask.shape[1], 0, device=mask.device),),  # it is in the cache
                attention_mask=mask[probes],
                decoder_input_ids=inputs,
                past_key_values=cache,
                use_cache=True,
            )
        places = [(at, step) for at, row in enumerate(longer) for step in range(len(targets[row]) - 1)]
        at, step = torch.tensor(places, device=states[0].device).T
        wanted = [[targets[longer[at]][step + 1]] for at, step in places]
        values = iter(self._project(states[0][at, step], torch.tensor(wanted)))
        return [[next(values) for _ in target[1:]] for target in targets]

    @contextmanager
    def _captured(self) -> Iterator[list[Tensor]]:
        """Keep what the model gives its head (rows x steps x width, scaled as the model scales it); the head projects nothing."""
        states: list[Tensor] = []

        def keep(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            states.append(inputs[0])
            return (inputs[0][:0],)

        hook = self.head.register_forward_pre_hook(keep)
        try:
            yield states
        finally:
            hook.remove()

    def _project(self, states: Tensor, tokens: Tensor) -> list[TokenScore]:
        """Log-probability and greediness of tokens (rows x k, flattened) after each row of states, in blocks that fit memory."""
        block = max(1, _LOGITS_BUDGET // self.head.weight.shape[0])
        scored: list[TokenScore] = []
        for part, wanted in zip(torch.split(states, block), torch.split(tokens, block), strict=True):
            values, greedy = chosen(self.head(part), wanted)
            scored.extend(zip(values.flatten().tolist(), greedy.flatten().tolist(), strict=True))
        return scored

    def _option(self, first: TokenScore, rest: list[TokenScore]) -> OptionScore:
        closing = rest.pop()[0] if self.closing else None
        return replace(summed([first, *rest]), closing=closing)
