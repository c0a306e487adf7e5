"""From what lm-eval returns or saves to the scores table and run records."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..core.errors import ValueshiftError
from ..core.languages import parse_languages
from ..core.probes import Probe, probes_digest
from ..core.records import read_record, read_table
from ..core.scores import answer, p_first, scores_frame
from .formats import Format, scored_texts


@dataclass(frozen=True)
class ProbeRun:
    """One model's answers to one probe set, wherever they were stored."""

    name: str
    """The model as its user named it."""
    inputs: dict[str, Any]
    settings: dict[str, Any]
    scores: pd.DataFrame


def probe_inputs(
    model: str, probe_set: str, probes: Mapping[str, Sequence[Probe]], format: str, dtype: str
) -> dict[str, Any]:
    """What determines the scores of a probe run, whoever computed them.

    Args:
        model: content digest of the checkpoint.
        probe_set: its name.
        probes: the probes that were asked, by language; their wording enters by digest.
        format: how they were put.
        dtype: of the weights.
    """
    return {
        "model": model,
        "probe_set": probe_set,
        "probes": {language: probes_digest(asked) for language, asked in probes.items()},
        "format": format,
        "dtype": dtype.removeprefix("torch."),
    }


def score_row(
    probe: Probe, format: Format, logprob_first: float, logprob_second: float, **columns: float | None
) -> dict[str, object]:
    """One row of the scores table; `columns` are its optional raw columns. Lengths are of what was scored."""
    first, second = scored_texts(probe, format)
    return {
        "probe_set": probe.probe_set,
        "language": probe.language,
        "question": probe.question,
        "category": probe.category,
        "logprob_first": logprob_first,
        "logprob_second": logprob_second,
        "bytes_first": len(first.encode()),
        "bytes_second": len(second.encode()),
        "p_first": p_first(logprob_first, logprob_second),
        "answer": answer(logprob_first, logprob_second),
        **columns,
    }


def runs_from_samples(config: Mapping[str, Any], samples: Iterable[Mapping[str, Any]], where: str) -> list[ProbeRun]:
    """The probe runs in samples of our tasks, one per probe set.

    Args:
        config: `config` of the harness's results.
        samples: sample dictionaries as in memory or as saved.
        where: names the source in errors.

    Raises:
        ValueshiftError: a sample is not of a cloze task.
    """
    rows: dict[str, list[dict[str, object]]] = defaultdict(list)
    probes: dict[str, dict[str, list[Probe]]] = defaultdict(lambda: defaultdict(list))
    doc: Mapping[str, Any] = {}
    for sample in samples:
        doc = sample["doc"]
        try:
            probe = Probe.model_validate({field: doc[field] for field in Probe.model_fields})
            first, second = (float(response[0][0]) for response in sample["resps"])
            tokens = {name: doc[name] for name in ("tokens_first", "tokens_second")}
            format = doc["format"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueshiftError(
                f"{where}: sample {sample.get('doc_id')} is not of a valueshift task ({error})"
            ) from error
        rows[probe.probe_set].append(score_row(probe, format, first, second, **tokens))
        probes[probe.probe_set][probe.language].append(probe)
    name = _model_name(config)
    settings = {
        "model": name,
        "engine": f"lm-eval {config.get('model')}",
        "batch_size": config.get("batch_size"),
        "device": config.get("device"),
        "limit": config.get("limit"),
    }
    return [
        ProbeRun(
            name=name,
            inputs=probe_inputs(
                doc["model_digest"],
                probe_set,
                probes[probe_set],
                doc["format"],
                str(config.get("model_dtype", "unknown")),
            ),
            settings=settings,
            scores=scores_frame(found),
        )
        for probe_set, found in rows.items()
    ]


def _model_name(config: Mapping[str, Any]) -> str:
    arguments = config.get("model_args")
    if isinstance(arguments, str):
        from lm_eval.utils import simple_parse_args_string

        arguments = simple_parse_args_string(arguments)
    named = [arguments[key] for key in ("peft", "pretrained", "model") if arguments and arguments.get(key)]
    return str(named[0]) if named else str(config.get("model"))


def read_probe_runs(path: Path) -> list[ProbeRun]:
    """The probe runs at a path: a probe record, or what `lm_eval --output_path --log_samples` wrote (folder or file).

    Raises:
        ValueshiftError: the path holds neither, or its files are damaged.
    """
    if (path / "record.json").is_file():
        record = read_record(path)
        if record.kind != "probe":
            raise ValueshiftError(f"{path} is a {record.kind} record; give a probe record")
        return [
            ProbeRun(
                str(record.settings.get("model", record.name)),
                record.inputs,
                record.settings,
                read_table(path, "scores"),
            )
        ]
    results = [path] if path.is_file() else sorted(path.rglob("results_*.json"))
    if not results:
        raise ValueshiftError(
            f"{path} is neither a run record nor an lm-eval results folder; give a folder that holds record.json, or "
            f"what `lm_eval --output_path {path} --log_samples` writes"
        )
    return [run for file in results for run in _saved_runs(file)]


def in_languages(run: ProbeRun, languages: str | None) -> ProbeRun:
    """The part of a run that was asked in these languages, comma-separated; all of it where None.

    Raises:
        ValueshiftError: the run was not asked in one of them.
    """
    if languages is None:
        return run
    chosen = parse_languages(languages, tuple(run.inputs["probes"]))
    by_language = ("probes", "neutral")
    inputs = {
        name: {code: value[code] for code in chosen} if name in by_language else value
        for name, value in run.inputs.items()
    }
    return replace(run, inputs=inputs, scores=run.scores[run.scores["language"].isin(chosen)].reset_index(drop=True))


def single_run(runs: list[ProbeRun], path: Path, probe_set_name: str | None = None) -> ProbeRun:
    """The one run at a path, chosen by probe set where a folder holds several.

    Raises:
        ValueshiftError: none or several match.
    """
    matching = [run for run in runs if probe_set_name in (None, run.inputs["probe_set"])]
    if len(matching) == 1:
        return matching[0]
    found = ", ".join(sorted(f"{run.name} ({run.inputs['probe_set']})" for run in runs))
    raise ValueshiftError(f"{path} holds {len(matching)} matching probe runs of: {found}; give the folder of one run")


def _saved_runs(results: Path) -> list[ProbeRun]:
    stamp = results.stem.removeprefix("results")
    files = sorted(results.parent.glob(f"samples_*{stamp}.jsonl"))
    config = _json(results)["config"]
    samples = [sample for file in files for sample in _ours(file)]
    if not samples:
        raise ValueshiftError(
            f"{results} has no samples of valueshift tasks beside it; run lm_eval with --log_samples and a wvs task"
        )
    return runs_from_samples(config, samples, str(results))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"{path} is damaged ({error}); run lm_eval again") from error


def _ours(file: Path) -> list[dict[str, Any]]:
    """Samples of a saved file, none where the file is of another suite's task."""
    try:
        samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError) as error:
        raise ValueshiftError(f"{file} is damaged ({error}); run lm_eval again") from error
    return [sample for sample in samples if isinstance(sample.get("doc"), dict) and "probe_set" in sample["doc"]]
