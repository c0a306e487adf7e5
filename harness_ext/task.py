"""The harness task: one probe set in one language, put in the format of the model that is asked.

In a suite it is a guest: whatever is wrong with it is its result, `nan` with the reason, and never the end of other tasks.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from ..core.errors import ValueshiftError
from ..core.probes import MASK, Item, Probe, probe_set, probes_digest
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

    The format is decided when the requests are built, from the model that is then asked (see `families`). A task that cannot be
    asked makes no request: it has one sample, and this and its metadata have the reason as `unanswered`.
    """

    unanswered: str | None = None
    """Why there is no number, where there is none."""

    def __init__(self, config: dict[str, Any] | None = None, **_: Any) -> None:
        config = {key: value for key, value in (config or {}).items() if key != "class"}
        self._asked: families.Asked | None = None
        self._sentinels: Sentinels | None = None
        self._alignments: dict[str, Aggregation] = {}
        self._absent: Exception | None = None
        self._nan: list[str] = []
        super().__init__(config=config)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **_: Any) -> None:
        """Read the probes; their digest enters the task's metadata, and so the results."""
        wanted = dataset_kwargs or {}
        try:
            probes = probe_set(wanted["probe_set"]).probes(wanted["language"])
        except Exception as error:  # noqa: BLE001  (not on this machine, or damaged: the reason is said when it is asked)
            self._absent, probes = error, [_placeholder(wanted)]
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

        A cloze statement is plain text, no turn of a conversation: the chat template and the system instruction of a suite do not
        reach it, which every sample says.
        """
        self.unanswered, self._nan = None, []
        self.config.metadata.pop("unanswered", None)
        about = {}
        if apply_chat_template or system_instruction:
            about = {"template": "ignored"}
            families.say_once(
                "cloze statements are scored as plain text: --apply_chat_template and --system_instruction do not reach them"
            )
        try:
            if self._absent is not None:
                raise self._absent
            key = self._prepare(about)
            super().build_all_requests(tokenizer_name=key, **run)
        except Exception as error:  # noqa: BLE001  (a guest's fault, of whatever kind, is its own result)
            self._leave_unasked(error)

    def _prepare(self, about: Mapping[str, str]) -> str:
        """Learn which model is asked, and describe the probes for it; the key of what is cached.

        Args:
            about: what else every document says.

        Raises:
            ValueshiftError: the model's family is unknown or has no sentinels, an option cannot be told from nothing or from the
                other one, or a statement is too long.
        """
        asked = families.current(self.config.metadata)
        if asked.format == "encoder-decoder":
            self._sentinels = resolve_sentinels(asked.tokenizer, asked.rows)
        self._asked = asked
        self._alignments = self._survey_alignments()
        self._describe_probes(asked, about)
        return f"{asked.key}-{self.config.metadata['probes_digest']}"

    def _leave_unasked(self, error: Exception) -> None:
        """Have one sample without a number in place of requests; `apply_filters` puts it where the harness looks for answers."""
        known = isinstance(error, ValueshiftError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        self._no_number(reason)
        log.debug("%s", self.config.task, exc_info=error)
        self._asked, self._alignments = None, {}
        self._instances: list[Instance] = []

    def _no_number(self, reason: str) -> None:
        self.unanswered = self.config.metadata["unanswered"] = reason
        families.say_once(reason, about=f"{self.config.task} is nan, as every task for which this holds: ")

    def doc_iterator(self, **run: Any) -> Iterator[tuple[int, Any]]:
        """The documents of this process; one, everywhere, where nothing is asked."""
        if self._asked is None and self.unanswered:
            return iter([(0, {"unanswered": self.unanswered})])
        documents: Iterator[tuple[int, Any]] = super().doc_iterator(**run)
        return documents

    def apply_filters(self) -> list[Instance] | None:
        """The harness's filters, over what was answered or stands for it."""
        if self._asked is None and self.unanswered:
            doc, nothing = {"unanswered": self.unanswered}, [(float("nan"), False)]
            self._instances = [
                Instance("loglikelihood", doc, ("", ""), place, (self.config.task, 0, 1), resps=nothing)
                for place in (0, 1)
            ]
        filtered: list[Instance] | None = super().apply_filters()
        return filtered

    def _survey_alignments(self) -> dict[str, "Aggregation"]:
        """Metric name -> aggregation, for every surveyed country of the language; none where there is no survey truth."""
        probes, code = probe_set(self.config.dataset_kwargs["probe_set"]), self.config.dataset_kwargs["language"]
        try:
            if not has_survey_truth(probes.name):
                return {}
            truth = survey_truth(probes.name)
            countries = countries_of(code, chosen_countries(code, self.config.metadata.get("country")), truth)
        except Exception as error:  # noqa: BLE001  (the answers do not need a survey)
            families.say_once(f"no alignment with a survey: {error}")
            return {}
        log.info("%s: %s", self.config.task, truth.provenance)
        return {
            f"rho_{country}{ending}": partial(_aligned, truth, probes.items, code, country, column)
            for country in countries
            for ending, column in (("", "spearman"), ("_low", "low"), ("_high", "high"), ("_n", "n"))
        }

    def _describe_probes(self, asked: families.Asked, about: Mapping[str, str]) -> None:
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
                [{**probe.model_dump(), **found, **about} for probe, found in zip(probes, described, strict=True)]
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
        """See `metric.two_options`; with survey truth also what `aggregation` needs for the alignment.

        Nothing under `--predict_only`, which the harness notes as the metric `bypass`.
        """
        if "bypass" in self._metric_fn_list:
            return {}
        found = metric.two_options(doc, results)
        if self.unanswered is not None:
            return dict(found)
        if not found["questions"]:
            self._nan.append(doc["question"])
        return {**found, **dict.fromkeys(self._alignments, (doc["question"], found["p_first"]))}

    def aggregation(self) -> dict[str, Any]:
        """The harness's aggregations, and Spearman with each country of the language, its interval and its n."""
        return {**super().aggregation(), "questions": self._answered, **self._alignments}

    def _answered(self, values: Sequence[float]) -> float:
        """How many questions were answered; the others are said, by name where this process asked them."""
        answered = sum(values)
        if answered < len(values) and self.unanswered is None:
            reason = metric.nan_reason(len(values) - int(answered), len(values), self._nan)
            if answered:
                log.warning("%s: %s", self.config.task, reason)
            else:
                self._no_number(reason)
        return float(answered)


def _aligned(
    truth: SurveyTruth,
    items: Mapping[str, Item],
    code: str,
    country: str,
    column: str,
    values: Sequence[tuple[str, float]],
) -> float:
    """One column of the alignment of `values` (question, p_first) with a country; NaN with the reason in the log."""
    answers = pd.DataFrame({code: dict(values)}).dropna()
    try:
        found = pair_alignment(answers, truth, items, country)
    except Exception as error:  # noqa: BLE001  (other tasks' results are not returned yet)
        found = pd.Series({column: float("nan"), "reason": str(error)})
    if found["reason"] and column == "spearman":
        log.warning("no alignment of %s with %s: %s", code, country, found["reason"])
    return float(found[column])


def asked_probe(request: Instance, asked: formats.Format) -> Probe | None:
    """The probe that a request puts in this format; None for requests of other tasks."""
    ours = isinstance(request.args[0], KeyedText) and request.doc["format"] == asked
    return _probe(request.doc) if ours else None


def _probe(doc: dict[str, Any]) -> Probe:
    return Probe.model_validate({field: doc[field] for field in _PROBE_FIELDS})


def _placeholder(wanted: Mapping[str, Any]) -> Probe:
    """Stands for the probes of a set that is not on this machine: the harness looks at one document of every task."""
    names = {name: str(wanted.get(name)) for name in ("probe_set", "language")}
    return Probe(**names, question="-", category=None, text=MASK, first="first", second="second")
