"""Scoring probes with a masked model: within-word left-to-right pseudo-log-likelihood [Kauf and Ivanova 2023].

Each token of an option is scored once, with itself and the later tokens of its word masked and everything else in place.
"""

from collections.abc import Sequence
from typing import Any

from ..core.errors import ValueshiftError
from ..core.probes import Probe
from .formats import Format, MaskedIds, MaskedOption, masked_ids
from .scoring import AskedToken, OptionScore, Scores, score_tokens, summed


class MaskedScorer:
    """Scores probes with a model such as BERT, XLM-R or mDeBERTa.

    Args:
        model: in evaluation mode, on its device.
        tokenizer: the model's own.

    Raises:
        ValueshiftError: the tokenizer has no mask token.
    """

    format: Format = "masked"

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueshiftError(
                f"the tokenizer of {model.config.model_type} has no mask token; masked scoring needs a model such as "
                f"BERT, XLM-R or mDeBERTa with its own tokenizer"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.device = model.get_input_embeddings().weight.device

    def ids(self, probe: Probe) -> MaskedIds:
        """The token ids that are scored for a probe."""
        return masked_ids(probe, self.tokenizer)

    def score(self, batch: Sequence[MaskedIds]) -> list[Scores]:
        """Scores of a batch of probes, in order."""
        scored = self.score_options([option for ids in batch for option in (ids.first, ids.second)])
        return list(zip(scored[::2], scored[1::2], strict=True))

    def score_options(self, options: Sequence[MaskedOption]) -> list[OptionScore]:
        """Scores of options in their statements, in order."""
        asked = [
            AskedToken(self._masked(option.ids, masked), position, option.ids[position])
            for option in options
            for position, masked in zip(option.positions, option.masks, strict=True)
        ]
        values = iter(score_tokens(self.model, asked, self.tokenizer.pad_token_id, self.device))
        return [summed([next(values) for _ in option.positions]) for option in options]

    def _masked(self, ids: tuple[int, ...], masked: Sequence[int]) -> tuple[int, ...]:
        hidden = set(masked)
        return tuple(self.tokenizer.mask_token_id if place in hidden else token for place, token in enumerate(ids))
