"""The harness task: one probe set in one language, put in the format of the model that is asked."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from ..core.errors import ValueshiftError
from ..core.probes import Item, Probe, probe_set, probes_digest
from ..core.sentinels import Sentinels, resolve_sentinels
from ..core.surveys import SurveyTruth, has_survey_truth, survey_truth
from . import families, formats, metric
from .alignment import chosen_countries, countries_of, pair_alignment
from .scoring import refuse_longer

log = logging.getLogger(__name__)

Aggregation = Callable[[Sequence[tuple[str, float]]], float]

_PROBE_FIELDS = tuple(Probe.model_fields)


class KeyedText(str):
    """A context that carries the key of the model it is for, so that response caches do not mix models."""

    model: str

    def __new__(cls, text: str, model: str) -> "KeyedText":  # noqa: D102
        keyed = super().__new__(cls, text)
        keyed.model = model
        return keyed

    def __reduce__(self) -> tuple[type["KeyedText"], tuple[str, str]]:
        return KeyedText, (str(self), self.model)


class ClozeTask(ConfigurableTask):
    """Asks every question of `dataset_kwargs: {probe_set, language}`, always without examples.

    The format is decided when the requests are built, from the model that is then asked (see `families`).
    """

    def __init__(self, config: dict[str, Any] | None = None, **_: Any) -> None:
        config = {key: value for key, value in (config or {}).items() if key != "class"}
        self._asked: families.Asked | None = None
        self._sentinels: Sentinels | None = None
        self._alignments: dict[str, Aggregation] = {}
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the probes; their digest enters the task's metadata, and so the results.

        Raises:
            ValueshiftError: the probe set or the language is not on this machine.
        """
        wanted = dataset_kwargs or {}
        probes = probe_set(wanted["probe_set"]).probes(wanted["language"])
        self.dataset = {"test": Dataset.from_list([probe.model_dump() for probe in probes])}
        self.config.metadata = {**(self.config.metadata or {}), "probes_digest": probes_digest(probes)}

    def build_all_requests(
        self,
        *,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Any = None,
        tokenizer_name: str = "",
        **run: Any,
    ) -> None:
        """Put every probe in the format of the model that is asked, and say which probes its strings cannot express.

        Raises:
            ValueshiftError: a chat template or a system instruction was asked for, the model's family is unknown or has no
                sentinels, or an option cannot be told from nothing or from the other one.
        """
        if apply_chat_template or system_instruction:
            flag = "--apply_chat_template" if apply_chat_template else "--system_instruction"
            raise ValueshiftError(
                f"{flag} cannot be used with {self.config.task}: a cloze statement is scored as plain text, not as a turn "
                f"of a conversation; run the {self.config.task} tasks in a call of their own without it"
            )
        asked = families.current(self.config.metadata or {})
        if asked.format == "encoder-decoder":
            self._sentinels = resolve_sentinels(asked.tokenizer, asked.rows)
        self._asked = asked
        self._alignments = self._survey_alignments()
        self._describe_probes(asked)
        key = f"{asked.key}-{self.config.metadata['probes_digest']}"
        super().build_all_requests(tokenizer_name=key, **run)

    def _survey_alignments(self) -> dict[str, "Aggregation"]:
        """Metric name -> aggregation, for every surveyed country of the language; none where there is no survey truth."""
        probes = probe_set(self.config.dataset_kwargs["probe_set"])
        if not has_survey_truth(probes.name):
            return {}
        truth = survey_truth(probes.name)
        code = self.config.dataset_kwargs["language"]
        chosen = chosen_countries(code, (self.config.metadata or {}).get("country"))
        log.info("%s: %s", self.config.task, truth.provenance)
        return {
            f"rho_{country}{ending}": partial(_aligned, truth, probes.items, code, country, column)
            for country in countries_of(code, chosen, truth)
            for ending, column in (("", "spearman"), ("_low", "low"), ("_high", "high"), ("_n", "n"))
        }

    def _describe_probes(self, asked: families.Asked) -> None:
        """Add to each document the format, both options' token counts, and whether its strings give the exact ids."""
        probes = [_probe(doc) for doc in self.dataset["test"]]
        described = [self._described(probe, asked) for probe in probes]
        inexact = [probe.question for probe, found in zip(probes, described, strict=True) if not found["exact"]]
        if inexact:
            log.warning(
                "%s: for %d of %d questions this tokenizer cannot express the exact ids as a string; the nearest string is "
                "scored (valueshift probe scores the ids): %s",
                self.config.task,
                len(inexact),
                len(probes),
                ", ".join(inexact),
            )
        self.dataset = {
            "test": Dataset.from_list(
                [{**probe.model_dump(), **found} for probe, found in zip(probes, described, strict=True)]
            )
        }

    def _described(self, probe: Probe, asked: families.Asked) -> dict[str, Any]:
        known = {"format": asked.format, "model_digest": asked.digest}
        if not callable(asked.tokenizer):
            return {**known, "tokens_first": None, "tokens_second": None, "exact": True}
        ids = self._ids(probe, asked)
        refuse_longer(ids.length, asked.positions, f"{probe.probe_set} {probe.language} {probe.question}")
        first, second = ids.scored
        exact = not isinstance(ids, formats.EncoderDecoderIds) or self._exact(probe, ids, asked.tokenizer)
        return {**known, "tokens_first": first, "tokens_second": second, "exact": exact}

    def _ids(self, probe: Probe, asked: families.Asked) -> formats.Ids:
        if asked.format == "causal":
            return formats.causal_ids(probe, asked.tokenizer)
        if asked.format == "masked":
            return formats.masked_ids(probe, asked.tokenizer)
        assert self._sentinels is not None
        return formats.encoder_decoder_ids(probe, asked.tokenizer, self._sentinels)

    def _exact(self, probe: Probe, ids: formats.EncoderDecoderIds, tokenizer: Any) -> bool:
        """Whether the strings that the harness is given come out as exactly these ids."""
        assert self._sentinels is not None
        text = formats.strings(probe, "encoder-decoder", self._sentinels)
        sentinel = self._sentinels.ids[0]
        return tuple(tokenizer(text.context)["input_ids"]) == ids.encoder and all(
            tuple(tokenizer(string, add_special_tokens=False)["input_ids"]) == (sentinel, *option)
            for string, option in ((text.first, ids.first), (text.second, ids.second))
        )

    def _strings(self, doc: dict[str, Any]) -> formats.Strings:
        probe = _probe(doc)
        if self._asked is None:
            return formats.Strings(probe.text, probe.first, probe.second)
        mask = getattr(self._asked.tokenizer, "mask_token", None)
        return formats.strings(probe, self._asked.format, self._sentinels, mask)

    def doc_to_text(self, doc: dict[str, Any], doc_to_text: Any = None) -> str:
        """The context of a probe in the current format."""
        return self._strings(doc).context

    def doc_to_choice(self, doc: dict[str, Any], doc_to_choice: Any = None) -> list[str]:
        """The continuations of a probe in the current format: first, second."""
        text = self._strings(doc)
        return [text.first, text.second]

    def doc_to_target(self, doc: dict[str, Any], doc_to_target: Any = None) -> int:
        """No answer is right; the harness wants an index."""
        return 0

    def construct_requests(self, doc: dict[str, Any], ctx: str | list[str], **run: Any) -> list[Instance]:
        """Two log-likelihood requests, first and second option."""
        assert self._asked is not None and isinstance(ctx, str)
        requests: list[Instance] = super().construct_requests(doc, KeyedText(ctx, self._asked.key), **run)
        return requests

    def process_results(self, doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, Any]:
        """See `metric.two_options`; with survey truth also what `aggregation` needs for the alignment."""
        found = metric.two_options(doc, results)
        return {**found, **dict.fromkeys(self._alignments, (doc["question"], found["p_first"]))}

    def aggregation(self) -> dict[str, Any]:
        """The harness's aggregations, and Spearman with each country of the language, its interval and its n."""
        return {**super().aggregation(), **self._alignments}


def _aligned(
    truth: SurveyTruth,
    items: Mapping[str, Item],
    code: str,
    country: str,
    column: str,
    values: Sequence[tuple[str, float]],
) -> float:
    """One column of the alignment of `values` (question, p_first) with a country; NaN with the reason in the log."""
    answers = pd.DataFrame({code: dict(values)})
    found = pair_alignment(answers, truth, items, country)
    if found["reason"] and column == "spearman":
        log.warning("no alignment of %s with %s: %s", code, country, found["reason"])
    return float(found[column])


def asked_probe(request: Instance, asked: formats.Format) -> Probe | None:
    """The probe that a request puts in this format; None for requests of other tasks."""
    ours = isinstance(request.args[0], KeyedText) and request.doc["format"] == asked
    return _probe(request.doc) if ours else None


def _probe(doc: dict[str, Any]) -> Probe:
    return Probe.model_validate({field: doc[field] for field in _PROBE_FIELDS})
