"""What `lm_eval --output_path PATH --log_samples` leaves on the disk, and what of it is ours.

A run writes one file of results, `results_<date>.json` or, where PATH ends in .json, `<stem>_<date>.json`; and beside it
`samples_<task>_<date>.jsonl` for each task, with the same date. What cannot be read is left out and named.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.errors import ValueshiftError
from ..core.limits import JSON_LINE_BYTES, SAMPLES_BYTES
from ..core.outside import parse_json, read_json, regular_file
from .samples import RERUN, Sample, is_ours, read_sample

_DATE = r"\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}(?:\.\d{1,6})?"
_RESULTS = re.compile(rf".+_({_DATE})\.json", re.DOTALL)
_OURS = b'"probe_set"'
"""Stands in every line of ours: lines without it are of other suites, and are not parsed."""
_OF_THE_RUN = ("chat_template", "system_instruction", "total_evaluation_time_seconds")
"""What lm-eval saves beside `config`, though it belongs to it."""


@dataclass(frozen=True)
class SavedRun:
    """What is ours of one results file."""

    config: Mapping[str, Any]
    """`config` of the results; with the chat template and the system instruction of the run, where there were any."""
    samples: list[Sample]
    left_out: list[str]
    """What could not be read, in sentences."""


def results_files(path: Path) -> list[Path]:
    """The results files that `--output_path path` leaves, or the one at `path`, in the order of their dates."""
    if path.is_file():
        return [path]
    found: Iterator[Path] = path.rglob("*.json") if path.suffix != ".json" or path.is_dir() else _beside(path)
    return sorted((file for file in found if _RESULTS.fullmatch(file.name)), key=lambda file: (date(file), file))


def _beside(path: Path) -> Iterator[Path]:
    """Files named after a PATH that ends in .json."""
    named = re.compile(rf"{re.escape(path.stem)}_{_DATE}\.json")
    return (file for file in path.parent.glob("*.json") if named.fullmatch(file.name))


def date(results: Path) -> str:
    """When lm-eval wrote a results file, from its name.

    Raises:
        ValueshiftError: the name has no date, so that nothing tells which samples belong to it.
    """
    if not (named := _RESULTS.fullmatch(results.name)):
        raise ValueshiftError(
            f"{results} is not named as lm_eval names results (..._<date>.json), so that its samples cannot be found; "
            "give the results file, or its folder"
        )
    return named[1]


def read_saved(results: Path) -> SavedRun:
    """The samples of our tasks that belong to a results file.

    Raises:
        ValueshiftError: it is no results file, or has no whole samples of our tasks; says why.
    """
    files = _samples_files(results)
    content = read_json(results, RERUN)
    config, tasks = (content.get(name) if isinstance(content, dict) else None for name in ("config", "configs"))
    if not isinstance(config, dict) or not isinstance(tasks, dict):
        raise ValueshiftError(f"{results} has no config and configs: these are no results of lm_eval; leave it out")
    samples, left_out = [], []
    for task in dict.fromkeys([*files, *tasks]):
        try:
            found = list(_samples(files[task])) if task in files else []
            _refuse_incomplete(results, content, task, len(found))
        except ValueshiftError as error:
            left_out.append(str(error))
        else:
            samples += found
    if not samples:
        raise ValueshiftError(
            "; ".join(left_out)
            or f"{results} has no samples of valueshift tasks beside it: these "
            "are results of other tasks; run lm_eval with a wvs task and --log_samples"
        )
    return SavedRun({**config, **{name: content.get(name) for name in _OF_THE_RUN}}, samples, left_out)


def _samples_files(results: Path) -> dict[str, Path]:
    """Task to its file of samples."""
    named = re.compile(rf"samples_(.+)_{re.escape(date(results))}\.jsonl", re.DOTALL)
    found = {file: named.fullmatch(file.name) for file in sorted(results.parent.glob("samples_*.jsonl"))}
    return {match[1]: file for file, match in found.items() if match}


def _samples(file: Path) -> Iterator[Sample]:
    """The samples of a file, none where it is of another suite's task.

    Raises:
        ValueshiftError: it cannot be read, or a line of ours is damaged. Names the line.
    """
    for number, line in _lines(file):
        where = f"{file}, line {number}"
        if len(line) > JSON_LINE_BYTES:
            raise ValueshiftError(f"{where} has over {JSON_LINE_BYTES:,} bytes, which no sample has; {RERUN}")
        sample = parse_json(line, where, RERUN)
        if is_ours(sample):
            yield read_sample(sample, where)


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that may be ours with their numbers, cut off past the bound; only a newline ends one, U+2028 does not."""
    try:
        with regular_file(file, RERUN, SAMPLES_BYTES).open("rb") as stream:
            number, begins = 1, True
            while line := stream.readline(JSON_LINE_BYTES + 1):
                if begins and _OURS in line:
                    yield number, line
                begins = line.endswith(b"\n")
                number += begins
    except OSError as error:
        raise ValueshiftError(f"{file} cannot be read ({error.strerror or error}); {RERUN}") from error


def _refuse_incomplete(results: Path, content: Mapping[str, Any], task: str, found: int) -> None:
    """Raises ValueshiftError where a task of ours has fewer samples than the results say, with the reason."""
    metadata, asked = (
        _inner(content, *keys) for keys in (("configs", task, "metadata"), ("n-samples", task, "effective"))
    )
    if not found and isinstance(metadata, dict) and "probes_digest" in metadata:
        reason = metadata.get("unanswered")
        raise ValueshiftError(
            f"{results}: {task} has no number ({reason})"
            if reason
            else f"{results} has no samples of {task} beside it; {RERUN} with --log_samples"
        )
    if found and isinstance(asked, int) and found < asked:
        raise ValueshiftError(f"{results} says {asked} samples of {task}, its file has {found}; {RERUN}")


def _inner(content: Any, *keys: str) -> Any:
    """What lies under keys within each other; None where something on the way is no object."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
