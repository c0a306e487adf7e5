"""The harness task: one probe set in one language, put in the format of the model that is asked."""

import logging
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask

from ..core.errors import ValueshiftError
from ..core.probes import Probe, probe_set, probes_digest
from ..core.sentinels import Sentinels, resolve_sentinels
from . import families, formats, metric

log = logging.getLogger(__name__)

_PROBE_FIELDS = tuple(Probe.model_fields)


class KeyedText(str):
    """A context that carries the digest of the model it is for, so that response caches do not mix models."""

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
        self._describe_probes(asked)
        key = f"{asked.format}-{asked.digest}-{self.config.metadata['probes_digest']}"
        super().build_all_requests(tokenizer_name=key, **run)

    def _describe_probes(self, asked: families.Asked) -> None:
        """Add to each document the format, both options' token counts, and whether its strings give the exact ids."""
        probes = [_probe(doc) for doc in self.dataset["test"]]
        counts = [self._token_counts(probe, asked) for probe in probes]
        inexact = [probe.question for probe, (_, _, exact) in zip(probes, counts, strict=True) if not exact]
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
                [
                    {
                        **probe.model_dump(),
                        "format": asked.format,
                        "model_digest": asked.digest,
                        "tokens_first": first,
                        "tokens_second": second,
                        "exact": exact,
                    }
                    for probe, (first, second, exact) in zip(probes, counts, strict=True)
                ]
            )
        }

    def _token_counts(self, probe: Probe, asked: families.Asked) -> tuple[int | None, int | None, bool]:
        tokenizer = asked.tokenizer
        if not callable(tokenizer):
            return None, None, True
        if asked.format == "causal":
            return (*formats.causal_token_counts(probe, tokenizer), True)
        if asked.format == "masked":
            return (*formats.masked_token_counts(probe, tokenizer), True)
        assert self._sentinels is not None
        ids = formats.encoder_decoder_ids(probe, tokenizer, self._sentinels)
        text = formats.strings(probe, asked.format, self._sentinels)
        sentinel = self._sentinels.ids[0]
        exact = tuple(tokenizer(text.context)["input_ids"]) == ids.encoder and all(
            tuple(tokenizer(string, add_special_tokens=False)["input_ids"]) == (sentinel, *option)
            for string, option in ((text.first, ids.first), (text.second, ids.second))
        )
        return len(ids.first), len(ids.second), exact

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
        requests: list[Instance] = super().construct_requests(doc, KeyedText(ctx, self._asked.digest), **run)
        return requests

    def process_results(self, doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> dict[str, float]:
        """See `metric.two_options`."""
        return metric.two_options(doc, results)


def _probe(doc: dict[str, Any]) -> Probe:
    return Probe.model_validate({field: doc[field] for field in _PROBE_FIELDS})
