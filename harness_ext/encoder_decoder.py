"""Scoring probes with an encoder-decoder model by token ids: exact, and no position computed that is not needed.

The encoder runs once per probe. The decoder runs once over `<start> sentinel 0`, which both options share and which gives the
distribution of both first tokens, and once more only for options that have further tokens. Only positions whose
log-probability is asked for are projected to the vocabulary; where only `p_first` is asked for, the normaliser of the shared
first position cancels and is not computed.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import Tensor

from ..core.errors import ValueshiftError
from ..core.probes import Probe
from ..core.sentinels import resolve_sentinels
from .formats import EncoderDecoderIds, Format, encoder_decoder_ids
from .heads import head_input
from .scoring import OptionScore, Scores, TokenScore, padded, summed

_BLOCK_OF_LOGITS = {"cpu": 1 << 17, "other": 1 << 24}  # elements: half a MB in float32, and 64 MB on an accelerator


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
        ValueshiftError: the tokenizer has no sentinel inside the embedding, the model is in float16, or its head is adapted and
            not merged.
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
        if not isinstance(self.head, torch.nn.Linear):  # what is scored is read from its weights
            raise ValueshiftError(
                f"the output head of this model is adapted ({type(self.head).__name__}); give the adapter's folder as the model "
                f"itself, which merges it"
            )

    def ids(self, probe: Probe) -> EncoderDecoderIds:
        """The token ids that are scored for a probe."""
        return encoder_decoder_ids(probe, self.tokenizer, self.sentinels)

    @torch.inference_mode()
    def score(self, batch: Sequence[EncoderDecoderIds]) -> list[Scores]:
        """Scores of a batch of probes, in order."""
        options = [option for ids in batch for option in (ids.first, ids.second)]
        targets = [(*option, self.sentinels.ids[1]) if self.closing else option for option in options]
        opening, cache, mask = self._shared_step(batch)
        states = torch.cat([opening, *self._further_steps(cache, mask, targets)])
        further = itertools.count(len(batch))
        asked = [
            (next(further) if place else number // 2, token)
            for number, target in enumerate(targets)
            for place, token in enumerate(target)
        ]
        found = iter(self._token_scores(states, asked, unnormalised=0 if self.log_probs else len(batch)))
        scored = [self._option([next(found) for _ in target]) for target in targets]
        return list(zip(scored[::2], scored[1::2], strict=True))

    def _shared_step(self, batch: Sequence[EncoderDecoderIds]) -> tuple[Tensor, Any, Tensor]:
        """What the head is given after `<start> sentinel 0` (probes x width), the decoder's cache, the encoder's mask."""
        inputs, mask = padded([ids.encoder for ids in batch], self.tokenizer.pad_token_id, self.device)
        start = [self.model.config.decoder_start_token_id, self.sentinels.ids[0]]
        with head_input(self.head) as states:
            step = self.model(
                input_ids=inputs,
                attention_mask=mask,
                decoder_input_ids=torch.tensor([start] * len(batch), device=self.device),
                use_cache=True,
            )
        return states[0][:, -1], step.past_key_values, mask

    def _further_steps(self, cache: Any, mask: Tensor, targets: Sequence[Sequence[int]]) -> list[Tensor]:
        """What the head is given before each second and later token (positions x width, targets in order), if there are any.

        `targets` are two for each probe of the shared step that `cache` holds.
        """
        longer = [number for number, target in enumerate(targets) if len(target) > 1]
        if not longer:
            return []
        probes = torch.tensor([number // 2 for number in longer], device=mask.device)
        cache.batch_select_indices(probes)
        inputs, given = padded([targets[number][:-1] for number in longer], self.tokenizer.pad_token_id, self.device)
        with head_input(self.head) as states:
            self.model(
                encoder_outputs=(torch.empty(len(longer), mask.shape[1], 0, device=mask.device),),  # it is in the cache
                attention_mask=mask[probes],
                decoder_input_ids=inputs,
                past_key_values=cache,
                use_cache=True,
            )
        return [states[0][given.bool().to(states[0].device)]]

    def _token_scores(self, states: Tensor, asked: Sequence[tuple[int, int]], unnormalised: int) -> list[TokenScore]:
        """Log-probability of each asked (row of states, token), and whether it is the row's most probable one.

        The logits of the first `unnormalised` rows are left as they are.
        """
        rows, tokens = torch.tensor(asked).T
        with align_module_device(self.head):
            states = states.to(self.head.weight.device)
            logits = (states[rows].float() * self.head.weight[tokens].float()).sum(-1)
            normalisers, best = self._normalisers(states[unnormalised:])
        normalisers = torch.cat([normalisers.new_zeros(unnormalised), normalisers])
        best = torch.cat([best.new_full((unnormalised,), -1), best]).cpu()
        values = (logits - normalisers[rows]).tolist()
        greedy = (best[rows] == tokens).tolist()
        return [
            (value, most if row >= unnormalised else None)
            for (row, _), value, most in zip(asked, values, greedy, strict=True)
        ]

    def _normalisers(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the sum of all exponentiated logits (float32), and the most probable token, for each row of states.

        The vocabulary is gone through in blocks whose logits stay in the processor's cache: all logits of mT5 are 1 MB a row.
        """
        if not len(states):
            return states.new_empty(0, dtype=torch.float32), torch.empty(0, dtype=torch.long, device=states.device)
        block = max(256, _BLOCK_OF_LOGITS.get(states.device.type, _BLOCK_OF_LOGITS["other"]) // len(states))
        sums, maxima, places = [], [], []
        for number, weight in enumerate(self.head.weight.split(block)):
            logits = torch.nn.functional.linear(states, weight).float()
            top, place = logits.max(1)
            sums.append(logits.logsumexp(1))
            maxima.append(top)
            places.append(place + number * block)
        highest = torch.stack(maxima).argmax(0, keepdim=True)
        return torch.stack(sums).logsumexp(0), torch.stack(places).gather(0, highest)[0]

    def _option(self, scored: Sequence[TokenScore]) -> OptionScore:
        if not self.closing:
            return summed(scored)
        return replace(summed(scored[:-1]), closing=scored[-1][0])
