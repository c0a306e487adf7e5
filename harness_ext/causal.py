"""Scoring probes with a causal model by token ids: log p(option + suffix | prefix), equal to the harness's stock path."""

from collections.abc import Sequence
from typing import Any

from ..core.probes import Probe
from .formats import CausalIds, Format, causal_ids
from .scoring import AskedToken, Scores, score_tokens, summed


class CausalScorer:
    """Scores probes with a model such as GPT-2, BLOOM, Llama or Qwen.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: the model's own.
    """

    format: Format = "causal"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = model.get_input_embeddings().weight.device
        pad = tokenizer.pad_token_id
        self.pad = pad if pad is not None else tokenizer.eos_token_id

    def ids(self, probe: Probe) -> CausalIds:
        """The token ids that are scored for a probe."""
        return causal_ids(probe, self.tokenizer)

    def score(self, batch: Sequence[CausalIds]) -> list[Scores]:
        """Scores of a batch of probes, in order."""
        options = [(ids.context, option) for ids in batch for option in (ids.first, ids.second)]
        asked = [
            AskedToken((*context, *option[:-1]), len(context) + place - 1, token)
            for context, option in options
            for place, token in enumerate(option)
        ]
        values = iter(score_tokens(self.model, asked, self.pad, self.device))
        scored = [summed([next(values) for _ in option]) for _, option in options]
        return list(zip(scored[::2], scored[1::2], strict=True))
