"""`valueshift probe`: ask one model a probe set in several languages, resumable by language."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from ..core.digests import digest
from ..core.errors import ValueshiftError
from ..core.files import whole_file
from ..core.languages import parse_languages
from ..core.probes import Probe, ProbeSet, probe_set
from ..core.scores import scores_frame
from .encoder_decoder import EncoderDecoderScorer, batches
from .families import family, pretrained_digest
from .models import load_config, load_model, load_tokenizer
from .results import ProbeRun, probe_inputs, read_probe_runs, score_row, single_run

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TOKEN_BUDGET = 4096
"""Encoder tokens of a batch, padding included, where the batch size is `auto`."""


@dataclass(frozen=True)
class Asking:
    """How a model is asked; none of it but `dtype` and `limit` changes what is found."""

    batch_size: int | None = None
    """Probes in a batch; None fills batches to `TOKEN_BUDGET`."""
    device: str | None = None
    dtype: str | None = None
    """float32 on a CPU and bfloat16 on a GPU where None."""
    revision: str | None = None
    trust_remote_code: bool = False
    limit: int | None = None
    """Only the first questions of each language."""


def ask(model: str, asked: ProbeSet, languages: Sequence[str], root: Path, how: Asking) -> ProbeRun:
    """Scores of a model in several languages. Languages that `root` already has scores of are not asked again.

    Raises:
        ValueshiftError: the model cannot be loaded or asked, or the scores cannot be written.
    """
    device = how.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = how.dtype or ("bfloat16" if device.startswith("cuda") else "float32")
    if dtype not in DTYPES:
        raise ValueshiftError(f"unknown dtype '{dtype}'; choose one of {', '.join(DTYPES)}")
    options = {"revision": how.revision, "trust_remote_code": how.trust_remote_code}
    format = family(load_config(model, **options))
    if format != "encoder-decoder":
        raise ValueshiftError(
            f"valueshift probe asks encoder-decoder models; ask this {format} model with "
            f"`lm_eval --tasks {asked.name} --model hf --model_args pretrained={model}`"
        )
    if dtype == "float16":
        raise ValueshiftError("T5-family models overflow in float16 and give NaN; choose --dtype bfloat16 or float32")
    probes = {language: asked.probes(language)[: how.limit] for language in languages}
    inputs = probe_inputs(pretrained_digest(model, how.revision), asked.name, probes, format, dtype)
    cached = {language: _cache_file(root, inputs, language) for language in languages}
    todo = [language for language in languages if not cached[language].is_file()]
    if todo:
        tokenizer = load_tokenizer(model, **options)
        loaded = load_model(model, dtype=DTYPES[dtype], device=device, **options)
        scorer = EncoderDecoderScorer(loaded, tokenizer)
        for language in todo:
            scores = _ask_language(scorer, probes[language], how.batch_size)
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


def _cache_file(root: Path, inputs: Mapping[str, Any], language: str) -> Path:
    """Where the scores of one language lie: named by all that determines them."""
    key = {**inputs, "probes": {language: inputs["probes"][language]}}
    return root / "scores" / f"{digest(key)}.parquet"


def _ask_language(scorer: EncoderDecoderScorer, probes: Sequence[Probe], size: int | None) -> pd.DataFrame:
    ids = [scorer.ids(probe) for probe in probes]
    rows: list[dict[str, object]] = [{} for _ in probes]
    with tqdm(total=len(probes), desc=probes[0].language, unit="probe") as progress:

        def score(batch: list[int]) -> None:
            for index, found in zip(batch, scorer.score([ids[i] for i in batch]), strict=True):
                rows[index] = score_row(
                    probes[index],
                    found.first,
                    found.second,
                    closing_first=found.closing_first,
                    closing_second=found.closing_second,
                    tokens_first=found.tokens_first,
                    tokens_second=found.tokens_second,
                )
            progress.update(len(batch))

        lengths = [len(found.encoder) for found in ids]
        for batch in batches(lengths, size or len(probes), None if size else TOKEN_BUDGET):
            halving(score, batch)
    return scores_frame(rows)


def halving(work: Callable[[list[int]], None], batch: list[int]) -> None:
    """Do `work` on a batch; when memory runs out, on its halves, and say so.

    Raises:
        ValueshiftError: memory runs out on a single probe.
    """
    try:
        work(batch)
        return
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
    except RuntimeError as error:
        if "not enough memory" not in str(error):
            raise
    if len(batch) == 1:
        raise ValueshiftError("memory does not hold one probe of this model; use a larger device or --dtype bfloat16")
    log.warning("out of memory at %d probes; going on with batches of %d", len(batch), len(batch) // 2)
    middle = len(batch) // 2
    halving(work, batch[:middle])
    halving(work, batch[middle:])


def parse_batch_size(text: str) -> int | None:
    """`auto` (None) or a positive number of probes.

    Raises:
        ValueshiftError: it is neither.
    """
    if text == "auto":
        return None
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ValueshiftError(f"batch size '{text}' is neither auto nor a positive number")


def run_of(source: str, probe_set_name: str, languages: str | None, root: Path) -> ProbeRun:
    """The probe run of a record, of an lm-eval results folder, or of a checkpoint, which is then asked.

    Raises:
        ValueshiftError: the source is none of these, or cannot be asked.
    """
    path = Path(source)
    if path.exists() and not (path / "config.json").is_file():
        return single_run(read_probe_runs(path), path)
    asked = probe_set(probe_set_name)
    return ask(source, asked, parse_languages(languages, asked.languages), root, Asking())
