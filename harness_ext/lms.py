"""Harness models of our own: `hf-encdec` scores our tasks by token ids and faster, `hf-mlm` brings masked models.

Both load as `--model hf` does, with its arguments; several processes (accelerate) share the documents as there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from ..core.errors import ValueshiftError
from .encoder_decoder import EncoderDecoderScorer
from .formats import MaskedOption, masked_option
from .masked import MaskedScorer
from .models import MaskedModels
from .scoring import OptionScore, positions, refuse_longer, score_in_batches, score_probes
from .task import asked_probe

Answer = tuple[float, bool]


def batch_size_of(lm: HFLM) -> int | None:
    """Probes in a batch; None where the harness was told `auto`."""
    return None if lm.batch_size == "auto" else int(lm.batch_size)


def answered(lm: HFLM, request: Instance, score: OptionScore) -> Answer:
    """The harness's response to a request, which its response cache now has."""
    answer = (score.logprob, bool(score.greedy))
    lm.cache_hook.add_partial("loglikelihood", request.args, answer)
    return answer


class EncoderDecoderLM(HFLM):
    """`--model hf-encdec`: mT5, umT5, T5 by token ids on our tasks; everything else by the stock path.

    A response is the log-probability of the option given the sentinel. The stock path adds that of the sentinel itself, the
    same to both options.

    Raises:
        ValueshiftError: the model is of another family, in float16, or has no sentinels.
    """

    cloze_format = "encoder-decoder"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.backend != "seq2seq":
            raise ValueshiftError(
                f"hf-encdec asks encoder-decoder models, not {self.config.model_type}; use --model hf, or hf-mlm for a masked one"
            )
        self.scorer = EncoderDecoderScorer(self.model, self.tokenizer, device=torch.device(self.device))

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        """Log-probability of each continuation, and whether every one of its tokens is the most probable in its place."""
        probes = [asked_probe(request, "encoder-decoder") for request in requests]
        distinct = list(dict.fromkeys(probe for probe in probes if probe is not None))
        quiet = disable_tqdm or self.rank != 0
        found = score_probes(self.scorer, distinct, batch_size_of(self), label="Probes", quiet=quiet)
        scores = dict(zip(distinct, found, strict=True))
        others = [request for request, probe in zip(requests, probes, strict=True) if probe is None]
        stock = iter(super().loglikelihood(others, disable_tqdm=disable_tqdm) if others else [])
        return [
            next(stock) if probe is None else answered(self, request, scores[probe][request.idx])
            for request, probe in zip(requests, probes, strict=True)
        ]


class MaskedLM(HFLM):
    """`--model hf-mlm`: BERT, XLM-R, mDeBERTa by within-word left-to-right pseudo-log-likelihood.

    A context with one mask token is filled with the continuation there; any other is continued at its end.

    Raises:
        ValueshiftError: the checkpoint has no masked-language-model head or the tokenizer no mask token.
    """

    cloze_format = "masked"
    AUTO_MODEL_CLASS = MaskedModels

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"backend": "causal", **kwargs})
        self.scorer = MaskedScorer(self.model, self.tokenizer)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Answer]:
        """Pseudo-log-likelihood of each continuation, and whether every token is the most probable in its place."""
        options = [self._option(request) for request in requests]
        quiet = disable_tqdm or self.rank != 0
        size = batch_size_of(self)
        scores = score_in_batches(self.scorer.score_options, options, size, label="Masked requests", quiet=quiet)
        return [answered(self, request, score) for request, score in zip(requests, scores, strict=True)]

    def _option(self, request: Instance) -> MaskedOption:
        context, continuation = request.args
        mask = self.tokenizer.mask_token
        prefix, _, suffix = context.partition(mask) if context.count(mask) == 1 else (context, "", "")
        option = masked_option(prefix, continuation, suffix, self.tokenizer)
        refuse_longer(option.length, positions(self.model), f"{request.task_name}, document {request.doc_id}")
        if not option.positions:
            raise ValueshiftError(
                f"{request.task_name}, document {request.doc_id}: the tokenizer turns '{continuation}' into nothing"
            )
        return option

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Refused: there is no left-to-right likelihood of a text under a masked model."""
        raise _refusal(requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Refused: a masked model does not generate."""
        raise _refusal(requests)


def _refusal(requests: Sequence[Instance]) -> ValueshiftError:
    request = requests[0]
    return ValueshiftError(
        f"{request.task_name} asks for {request.request_type}, which a masked model cannot do; run it with another model"
    )
