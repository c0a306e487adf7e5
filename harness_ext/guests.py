"""Our tasks in a call of the harness: which ones are named, what is known of them before weights are loaded, and how it ends.

A call of our tasks alone that cannot have a number ends with one sentence; beside other tasks nothing of ours ends anything.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import yaml
from lm_eval.utils import simple_parse_args_string

from ..core.errors import ValueshiftError
from ..core.paths import task_folders
from ..core.probes import probe_set
from ..core.surveys import has_survey_truth, survey_truth
from . import families
from .alignment import chosen_countries, countries_of

log = logging.getLogger(__name__)


def named_tasks() -> dict[str, tuple[str, ...] | Mapping[str, str]]:
    """Our tasks and groups by name: the `dataset_kwargs` of a task, the members of a group."""
    found: dict[str, tuple[str, ...] | Mapping[str, str]] = {}
    for path in (path for folder in task_folders() for path in folder.rglob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
            if "group" in content:
                found[content["group"]] = tuple(content["task"])
            else:
                found[content["task"]] = content["dataset_kwargs"]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:  # the harness passes it over, too
            log.debug("%s is no task: %s", path, error)
    return found


def asked_for(specs: str | Iterable[Any]) -> tuple[list[Mapping[str, str]], bool]:
    """`dataset_kwargs` of our tasks that a call names (name or task object), and whether it names nothing else."""
    known, found, alone = named_tasks(), [], True
    left = [specs] if isinstance(specs, str) else list(specs)
    while left:
        spec = left.pop()
        what = (
            known.get(spec) if isinstance(spec, str) else getattr(getattr(spec, "config", None), "dataset_kwargs", None)
        )
        if isinstance(what, tuple):
            left += what
        elif isinstance(what, Mapping) and {"probe_set", "language"} <= what.keys():
            found.append(what)
        else:
            alone = False
    return found, alone


def absence(task: Mapping[str, str]) -> str | None:
    """Why the probes of a task cannot be read; None where they can."""
    try:
        probe_set(task["probe_set"]).probes(task["language"])
    except ValueshiftError as error:
        return str(error)
    return None


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Of the names that the harness found for a pattern, those to ask; a name given in full stays as it is.

    Our groups stand for their tasks, since the harness refuses to ask a task twice. What is not on this machine is left out, and
    said.
    """
    if pattern in names:
        return list(names)
    known = named_tasks()
    tasks: dict[str, None] = {}
    for name in names:
        members = known.get(name)
        tasks |= dict.fromkeys(members if isinstance(members, tuple) else (name,))
    absent = {name: why for name in tasks if isinstance(task := known.get(name), Mapping) and (why := absence(task))}
    for reason in dict.fromkeys(absent.values()):
        log.warning(
            "%s: left out %s: %s", pattern, ", ".join(name for name in absent if absent[name] == reason), reason
        )
    return [name for name in tasks if name not in absent]


def refuse_before(
    call: Mapping[str, Any], base_faults: Callable[[Sequence[Mapping[str, str]]], Mapping[str, str]]
) -> None:
    """Refuse a call of our tasks alone that cannot do what it should, before weights are loaded; beside other tasks, say it.

    Args:
        call: the arguments of `simple_evaluate`.
        base_faults: why tasks cannot be compared with `VALUESHIFT_BASE`, by probe set.

    Raises:
        ValueshiftError: nothing that is asked for can be asked, or nothing can be compared.
    """
    tasks, alone = asked_for(call["tasks"] or ())
    if not tasks:
        return
    if alone:
        if all(absences := [absence(task) for task in tasks]):
            raise ValueshiftError(str(absences[0]))
        metadata = _metadata(call)
        families.refuse_from_arguments(call["model"], metadata)
        for name, code in {
            (task["probe_set"], task["language"]) for task in tasks if has_survey_truth(task["probe_set"])
        }:
            countries_of(code, chosen_countries(code, metadata.get("country")), survey_truth(name))
    faults = base_faults(tasks)
    if alone and faults and faults.keys() == {task["probe_set"] for task in tasks}:
        raise ValueshiftError(next(iter(faults.values())))
    for name, fault in faults.items():
        log.warning("%s will not be compared: %s", name, fault)


def _metadata(call: Mapping[str, Any]) -> dict[str, Any]:
    """What the tasks of a call will have as metadata: the model's arguments, and what is given besides."""
    arguments = call["model_args"] or {}
    if isinstance(arguments, str):
        arguments = simple_parse_args_string(arguments)
    return {**arguments, **(getattr(call["task_manager"], "metadata", None) or {}), **(call["metadata"] or {})}


def leaves(tasks: Mapping[Any, Any]) -> Iterator[Any]:
    """The tasks in what `lm_eval.evaluate` is given, in either of its forms."""
    for task in tasks.values():
        if isinstance(task, Mapping):
            yield from leaves(task)
        elif hasattr(task, "build_all_requests"):
            yield task


def refuse_after(tasks: Mapping[Any, Any]) -> None:
    """End a call of our tasks alone of which none has a number.

    Args:
        tasks: what `lm_eval.evaluate` was given.

    Raises:
        ValueshiftError: says the reason; where there are several, how many.
    """
    reasons = [getattr(task, "unanswered", None) for task in leaves(tasks)]
    if reasons and all(reasons):
        several = len(set(reasons))
        raise ValueshiftError(f"{reasons[0]}{f' (and {several - 1} other reasons)' if several > 1 else ''}")
