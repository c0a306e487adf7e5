"""What lm-eval loads: the patches of its modules, the entry points, and the join of harness and tracking."""

import logging
import sys
from functools import cache, partial
from importlib.machinery import PathFinder
from pathlib import Path

from .core.paths import hook_enabled, tracking_enabled
from .harness_ext import patches

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType
    from typing import Any

HARNESS = "lm_eval>=0.4.13,<0.5"
"""The releases that the patches are tested with."""

log = logging.getLogger("valueshift.hook")


def _patch_evaluator(evaluator: "ModuleType") -> None:
    patches.asking(evaluator)
    patches.results(evaluator, record_results, tracking_enabled)
    patches.guests(evaluator, base_faults)


def _patch(patch: "Callable[[ModuleType], None]", module: "ModuleType") -> None:
    """Patch a module that was just executed, if it is to be; the harness is imported whatever is wrong with the patch."""
    try:
        if hook_enabled() and _is_known(tuple(sys.modules["lm_eval"].__path__)):
            patch(module)
    except Exception as error:  # noqa: BLE001
        log.warning(
            "%s stays as it is: the patch of valueshift does not fit it (%s: %s); install '%s'",
            module.__name__,
            type(error).__name__,
            error,
            HARNESS,
        )


@cache
def _is_known(harness: tuple[str, ...]) -> bool:
    """Whether the harness in these folders has all modules that are patched; one that has not is left as it is, which is said.

    A harness that is older or much newer would take some patches and not others, and nobody has tried that.
    """
    missing = [
        name
        for name in PATCHES
        if not PathFinder.find_spec(name, [str(Path(root, *name.split(".")[1:-1])) for root in harness])
    ]
    if missing:
        log.warning(
            "the lm-eval in %s has no %s: valueshift leaves it as it is, without tasks and models of its own; install '%s'",
            harness[0],
            missing[0],
            HARNESS,
        )
    return not missing


PATCHES: "Mapping[str, Callable[[ModuleType], None]]" = {
    "lm_eval.tasks.manager": partial(_patch, patches.discovery),
    "lm_eval.models": partial(_patch, patches.models),
    "lm_eval.models.huggingface": partial(_patch, patches.untied_head),
    "lm_eval.api.model": partial(_patch, patches.model_in_keys),
    "lm_eval.evaluator": partial(_patch, _patch_evaluator),
    "lm_eval._cli.run": partial(_patch, patches.clean_exit),
}
"""What the hook (`valueshift_lm_eval.py`) calls with a module, by its name."""


def task_paths() -> list[str]:
    """Folders of task files, for harness releases that discover plugins themselves (entry point `lm_eval.tasks`)."""
    from .core.paths import task_folders

    return [str(folder) for folder in task_folders()]


def record_results(results: "Mapping[str, Any]", samples: "Mapping[str, list[dict[str, Any]]]") -> None:
    """Write the run records of a harness run and publish them; what of that fails is said and costs nothing else.

    Never raises: the results of the run are its caller's, whatever becomes of the records.
    """
    import logging

    from .core.outcomes import Outcomes

    outcomes = Outcomes()
    with outcomes.attempt("this run is not recorded"):
        from .core.paths import base_run, runs_root
        from .harness_ext.recording import write_records
        from .tracking.experiment import store
        from .tracking.publish import callers_run, publish_all

        root = runs_root()
        sent: dict[str, str] = {}
        records = write_records(root, results, samples, base_run(), outcomes)
        if not outcomes.stopped:
            with outcomes.attempt("MLflow lacks records"):
                uri = store(root)
                account = publish_all(records, root, uri, callers_run(uri))
                sent = {one.record: f"is in MLflow: {one.where}" for one in account.done}
                outcomes.faults += [str(complaint)] if (complaint := account.complaint()) else []
        for record in records:
            where = sent.get(record.name, "is written; `valueshift publish` sends it to MLflow")
            sys.stderr.write(f"valueshift: {record} {where}\n")
    for fault in outcomes.faults:
        logging.getLogger("valueshift").error("%s", fault)


def base_faults(tasks: "Sequence[Mapping[str, str]]") -> "dict[str, str]":
    """Why tracked tasks cannot be compared with `VALUESHIFT_BASE`, by probe set."""
    from .core.paths import base_run, tracking_enabled

    if not tracking_enabled() or (path := base_run()) is None:
        return {}
    from .harness_ext import recording

    return recording.base_faults(path, tasks)
