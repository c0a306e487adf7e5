"""`valueshift probe`: ask one model of any family a probe set in several languages, resumable by language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from .adapters import is_checkpoint
from .causal import CausalScorer
from .encoder_decoder import EncoderDecoderScorer, refuse_float16
from .families import family, pretrained_digest
from .formats import Format
from .masked import MaskedScorer
from .models import device_named, load_config, load_model, load_tokenizer
from .neutral import neutral_probe, neutral_stem
from .results import ProbeRun, probe_inputs, read_probe_runs, score_row, single_run
from .saved import results_files
from .scoring import Scorer, score_probes

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


def ask(model: str, asked: ProbeSet, languages: Sequence[str], root: Path, how: Asking) -> ProbeRun:
    """Scores of a model in several languages. Languages that `root` already has scores of are not asked again.

    Raises:
        ValueshiftError: the model cannot be loaded or asked, or the scores cannot be written.
    """
    device = device_named(how.device)
    dtype = how.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    if dtype not in DTYPES:
        raise ValueshiftError(f"unknown dtype '{dtype}'; choose one of {', '.join(DTYPES)}")
    options: dict[str, Any] = {"revision": how.revision, "trust_remote_code": how.trust_remote_code}
    format = family(load_config(model, **options))
    if format == "encoder-decoder":
        refuse_float16(dtype)
    probes = {language: asked.probes(language)[: how.limit] for language in languages}
    inputs = probe_inputs(pretrained_digest(model, how.revision), asked.name, probes, format, dtype)
    if how.neutral:
        inputs["neutral"] = {language: neutral_stem(language) for language in languages}
    cached = {language: _cache_file(root, inputs, language, how) for language in languages}
    todo = [language for language in languages if not cached[language].is_file()]
    if todo:
        writable(root / "scores")
        tokenizer = load_tokenizer(model, **options)
        loaded = load_model(model, format, dtype=DTYPES[dtype], device=device, **options)
        scorer = scorer_for(format, loaded, tokenizer, closing=how.closing)
        for language in todo:
            scores = _ask_language(scorer, probes[language], how)
            with whole_file(cached[language]) as temporary:
                scores.to_parquet(temporary, index=False)
    settings = {
        "model": model,
        "engine": "valueshift",
        "batch_size": how.batch_size or "auto",
        "device": device,
        "revision": how.revision,
    }
    scores = pd.concat([pd.read_parquet(cached[language]) for language in languages], ignore_index=True)
    return ProbeRun(model, inputs, settings, scores)


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
    return scores_frame(rows)


def scorer_for(format: Format, model: Any, tokenizer: Any, *, closing: bool = False) -> Scorer[Any]:
    """What scores probes with a model of this family.

    Raises:
        ValueshiftError: the model cannot be asked in this format.
    """
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
