"""`valueshift probes new`: a survey of your own as a probe set, for the same commands and for lm-eval."""

import json
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

from .errors import ValueshiftError
from .files import whole_folder
from .names import LANGUAGE, PROBE_SET, checked
from .paths import TASKS, own_sets, task_folders
from .probes import ProbeSet, forget_items, probe_set, read_items, read_probes

_NAMED = re.compile(rb"^(?:task|group|tag)\s*:([^\n]*(?:\n\s*-[^\n]*)*)", re.MULTILINE)
"""What a task file calls its task or group, its tags, and the members of a group."""


def new_probe_set(name: str, items: Path, probes: Path, shares: Path | None = None) -> ProbeSet:
    """Make a probe set of a registry, probe files and, optionally, shares; an older one of the same name is replaced.

    Everything is checked first: what is refused leaves the older set as it is.

    Args:
        name: lower-case letters, digits and `_`; the tasks are called `<name>_<language>`.
        items: registry CSV with the columns of `core.probes.Item`.
        probes: folder of `<ISO 639-1 code>.csv`, each asking all or some of the items.
        shares: CSV `question,<ISO 3166-1 alpha-3>,...`: the share of people at the first pole, empty where unknown.

    Raises:
        ValueshiftError: the name cannot be used or is taken by a packaged set or by a task, a file is malformed or empty, or a
            probe cannot be asked.
    """
    checked(name, PROBE_SET)
    if (TASKS / name).is_dir():
        raise ValueshiftError(f"probe set {name} is part of valueshift; choose another name")
    registry = read_items(items)
    files = {file.stem: file for file in sorted(probes.glob("*.csv"))}
    if not files:
        raise ValueshiftError(f"{probes} holds no <language>.csv")
    for language, file in files.items():
        if not LANGUAGE.pattern.fullmatch(language):
            raise ValueshiftError(f"{file} must be named by its language, such as de.csv (ISO 639-1)")
        read_probes(file, name, language, registry)
    if shares is not None:
        from .surveys.truth import read_shares

        read_shares(shares, registry)
    _refuse_taken(name, files)

    with whole_folder(own_sets() / name) as folder:
        copyfile(items, folder / "items.csv")
        (folder / "probes").mkdir()
        (folder / "tasks").mkdir()
        for language, file in files.items():
            copyfile(file, folder / "probes" / file.name)
            task = f"{name}_{language}"
            (folder / "tasks" / f"{task}.yaml").write_text(
                f"include: {_quoted(str(TASKS / 'cloze_yaml'))}\ntask: {_quoted(task)}\n"
                f"dataset_kwargs: {{probe_set: {_quoted(name)}, language: {_quoted(language)}}}\n",
                encoding="utf-8",
            )
        members = "".join(f"  - {_quoted(f'{name}_{language}')}\n" for language in files)
        (folder / "tasks" / f"{name}.yaml").write_text(f"group: {_quoted(name)}\ntask:\n{members}", encoding="utf-8")
        if shares is not None:
            (folder / "truth").mkdir()
            copyfile(shares, folder / "truth" / "shares.csv")
    forget_items()
    return probe_set(name)


def _quoted(text: str) -> str:
    """As YAML reads it back as text: the code of Norwegian is `no`, which it takes for false."""
    return json.dumps(text, ensure_ascii=False)


def _refuse_taken(name: str, languages: Iterable[str]) -> None:
    """Raises ValueshiftError if lm-eval, the package or another own set has a task, group or tag of one of these names."""
    harness = find_spec("lm_eval")
    folders = [Path(place) / "tasks" for place in (harness and harness.submodule_search_locations) or ()]
    known = {task for folder in folders for task in _harness_tasks(folder)}
    for folder in task_folders():
        known |= _tasks(folder) if folder != own_sets() / name / "tasks" else set()
    if taken := known.intersection((name, *(f"{name}_{language}" for language in languages))):
        raise ValueshiftError(f"lm-eval already has a task {min(taken)}; choose another name than {name}")


def _tasks(folder: Path) -> set[str]:
    """Names of all tasks, groups and tags in the task files of a folder."""
    named = (found for file in folder.rglob("*y*ml") for found in _NAMED.findall(file.read_bytes()))
    return {name.decode() for found in named for name in re.findall(rb"[\w.-]+", found)}


@cache
def _harness_tasks(folder: Path) -> set[str]:
    return _tasks(folder)
