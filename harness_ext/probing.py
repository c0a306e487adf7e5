"""`valueshift probe`: ask one model of any family a probe set in several languages, resumable by language."""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import whole_file, writable
from ..core.languages import parse_languages
from ..core.probes import Probe, ProbeSet, probe_set
from ..core.scores import scores_frame
from ..core.tables import SCORES, read_parquet
from .adapters import base_of, is_checkpoint
from .causal import CausalScorer
from .encoder_decoder import EncoderDecoderScorer, refuse_float16
from .families import family, pretrained_digest
from .formats import Format
from .hub import checkpoint_folder
from .masked import MaskedScorer
from .models import device_named, float32_products, load_config, load_model, load_tokenizer
from .neutral import neutral_probe, neutral_stem
from .results import ProbeRun, probe_inputs, read_probe_runs, score_row, single_run
from .saved import results_files
from .scoring import Scorer, Scores, score_probes

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Asking:
    """How a model is asked; none of it but `dtype`, `limit` and what is asked besides changes what is found."""

    batch_size: int | None = None
    """Probes in a batch; None fills batches to `scoring.TOKEN_BUDGET` tokens."""
    device: str | None = None
    dtype: str | None = None
    """float32 on a CPU and bfloat16 on a GPU where None."""
    revision: str | None = None
    trust_remote_code: bool = False
    limit: int | None = None
    """Only the first questions of each language."""
    closing: bool = True
    """Also score the sentinel that closes an option, for the reading `closed`; encoder-decoder models only."""
    neutral: bool = False
    """Also score both options in the neutral stem of their language, for the reading `dcpmi`."""
    needs: tuple[str, ...] = ()
    """Columns of the scores that the reading cannot do without."""


def ask(model: str, asked: ProbeSet, languages: Sequence[str], root: Path, how: Asking) -> ProbeRun:
    """Scores of a model in several languages. Languages that `root` already has scores of are not asked again.

    Raises:
        ValueshiftError: the model cannot be loaded or asked, or the scores cannot be written.
    """
    began = time.monotonic()
    dtype, device = _numbers(how)
    options: dict[str, Any] = {"revision": how.revision, "trust_remote_code": how.trust_remote_code}
    format = family(load_config(model, **options))
    if format == "encoder-decoder":
        refuse_float16(dtype)
    elif "closing_first" in how.needs:
        raise ValueshiftError(
            f"{model} is a {format} model: no sentinel closes an answer; choose another --reading than closed"
        )
    tokenizer = load_tokenizer(model, **options)
    load = partial(load_model, model, format, dtype=DTYPES[dtype], device=device, **options)
    loaded = None if checkpoint_folder(model, how.revision) else load()  # its digest needs the weights on this machine
    probes = {language: asked.probes(language)[: how.limit] for language in languages}
    inputs = (
        probe_inputs(pretrained_digest(model, how.revision), asked.name, probes, format, dtype) | float32_products()
    )
    if how.neutral:
        inputs["neutral"] = {language: neutral_stem(language) for language in languages}
    cached = {language: _cache_file(root, inputs, language, how) for language in languages}
    found = {language: table for language in languages if (table := _kept(cached[language])) is not None}
    if todo := [language for language in languages if language not in found]:
        writable(root / "scores")
        loaded = loaded or load()
        _refuse_other_tokenizer(loaded, tokenizer, [probe for language in todo for probe in probes[language]])
        scorer = Batched(scorer_for(format, loaded, tokenizer, closing=how.closing))
        for language in todo:
            scores = _ask_language(scorer, probes[language], how)
            scores.attrs = {
                "device": device,
                "attention": str(getattr(loaded.config, "_attn_implementation", None)),
                "largest_batch": scorer.largest,
            }
            with whole_file(cached[language]) as temporary:
                scores.to_parquet(temporary, index=False)
            found[language] = scores
    tables = [found[language] for language in languages]
    base = base_of(model)
    settings = {
        "model": model,
        "engine": "valueshift",
        "batch_size": how.batch_size or "auto",
        **{name: _said(tables, name) for name in ("device", "attention", "largest_batch")},
        "adapter_over": base.name if base else None,
        "revision": how.revision,
        "limit": how.limit,
    }
    for table in tables:
        table.attrs = {}
    scores = pd.concat(tables, ignore_index=True)
    return ProbeRun(model, inputs, settings, scores, seconds=time.monotonic() - began)


class Batched:
    """A scorer that keeps how many probes were scored at once at most: fewer than asked for where memory ran out."""

    def __init__(self, scorer: Scorer[Any]) -> None:
        self.format, self.model, self.ids = scorer.format, scorer.model, scorer.ids
        self.scorer, self.largest = scorer, 0

    def score(self, batch: Sequence[Any]) -> list[Scores]:
        """As the scorer's."""
        found = self.scorer.score(batch)
        self.largest = max(self.largest, len(batch))
        return found


def _numbers(how: Asking) -> tuple[str, str]:
    """Number format and device.

    Raises:
        ValueshiftError: torch does not know one of them.
    """
    if how.dtype is not None and how.dtype not in DTYPES:
        raise ValueshiftError(f"unknown dtype '{how.dtype}'; choose one of {', '.join(DTYPES)}")
    device = device_named(how.device)
    return how.dtype or ("bfloat16" if device.startswith("cuda") else "float32"), device


def _said(tables: Sequence[pd.DataFrame], name: str) -> str:
    """What was used for some scores, of each language when it was asked: a repeat with other settings reads what is there."""
    return ", ".join(sorted({str(table.attrs.get(name, "unknown")) for table in tables}))


def _refuse_other_tokenizer(model: Any, tokenizer: Any, probes: Sequence[Probe]) -> None:
    """Refuse a tokenizer that gives ids which the model has no rows for.

    Raises:
        ValueshiftError: names the id and the number of rows.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    texts = [probe.filled(pole) for probe in probes for pole in ("first", "second")]
    highest = max((max(ids, default=0) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]), default=0)
    if highest >= rows:
        raise ValueshiftError(
            f"the tokenizer of {tokenizer.name_or_path} gives id {highest}, but the embedding has {rows} rows; put the tokenizer "
            f"beside the model that belongs to it"
        )


def _kept(path: Path) -> pd.DataFrame | None:
    """The scores of one language that are kept there; None where there are none, or they are damaged."""
    if not path.exists():
        return None
    try:
        return read_parquet(path, "the language is asked again", SCORES)
    except ValueshiftError as error:
        log.warning("%s", error)
        return None


def _cache_file(root: Path, inputs: Mapping[str, Any], language: str, how: Asking) -> Path:
    """Where the scores of one language lie: named by all that determines them, and by which columns are filled."""
    by_language = {name: {language: inputs[name][language]} for name in ("probes", "neutral") if name in inputs}
    key = {**inputs, **by_language, "closing": how.closing}
    return root / "scores" / f"{digest(key)}.parquet"


def _ask_language(scorer: Scorer[Any], probes: Sequence[Probe], how: Asking) -> pd.DataFrame:
    stems = [neutral_probe(probe, scorer.format) for probe in probes] if how.neutral else []
    asked = list(dict.fromkeys([*probes, *stems]))
    scores = dict(zip(asked, score_probes(scorer, asked, how.batch_size, label=probes[0].language), strict=True))
    rows = []
    for place, probe in enumerate(probes):
        first, second = scores[probe]
        neutral = scores[stems[place]] if stems else None
        rows.append(
            score_row(
                probe,
                scorer.format,
                first.logprob,
                second.logprob,
                closing_first=first.closing,
                closing_second=second.closing,
                neutral_first=neutral[0].logprob if neutral else None,
                neutral_second=neutral[1].logprob if neutral else None,
                tokens_first=first.tokens,
                tokens_second=second.tokens,
            )
        )
    found = scores_frame(rows)
    if found["p_first"].isna().all():
        raise ValueshiftError(
            f"the model gives NaN for every question in {probes[0].language}; load it in float32 or bfloat16 (T5-family models "
            "overflow in float16)"
        )
    return found


def scorer_for(format: Format, model: Any, tokenizer: Any, *, closing: bool = False) -> Scorer[Any]:
    """What scores probes with a model of this family.

    Raises:
        ValueshiftError: the model cannot be asked in this format.
    """
    if tokenizer.pad_token_id is None and (format != "causal" or tokenizer.eos_token_id is None):
        raise ValueshiftError(
            f"the tokenizer of {tokenizer.name_or_path} has no padding token; name it in its tokenizer_config.json"
        )
    if format == "causal":
        return CausalScorer(model, tokenizer)
    if format == "masked":
        return MaskedScorer(model, tokenizer)
    return EncoderDecoderScorer(model, tokenizer, closing=closing)


def parse_batch_size(text: str) -> int | None:
    """`auto` (None) or a positive number of probes.

    Raises:
        ValueshiftError: it is neither.
    """
    if text == "auto":
        return None
    if text.isdecimal() and len(text) < 10 and int(text) > 0:
        return int(text)
    raise ValueshiftError(f"batch size '{text}' is neither auto nor a positive number of less than ten digits")


def model_of(source: str) -> str | None:
    """Content digest of the model of a probe run or checkpoint, which is not asked; None where it is not on this machine.

    Raises:
        ValueshiftError: the source is neither, or cannot be asked.
    """
    path = Path(source)
    if path.exists() and not is_checkpoint(path):
        return str(single_run(read_probe_runs(path), path).inputs["model"])
    family(load_config(source))
    load_tokenizer(source)
    return pretrained_digest(source) if checkpoint_folder(source) else None


def run_of(source: str, probe_set_name: str, languages: str | None, root: Path) -> ProbeRun:
    """The probe run of a record, of what lm-eval left at a path, or of a checkpoint, which is then asked.

    Where there are several, `probe_set_name` chooses.

    Raises:
        ValueshiftError: the source is none of these, or cannot be asked.
    """
    path = Path(source)
    if not is_checkpoint(path) and (path.exists() or results_files(path)):
        found = read_probe_runs(path)
        return single_run(found, path, probe_set_name if len(found) > 1 else None)
    asked = probe_set(probe_set_name)
    return ask(source, asked, parse_languages(languages, asked.languages), root, Asking())
