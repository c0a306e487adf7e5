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
    from collections.abc import Callable, Mapping
    from types import ModuleType
    from typing import Any

HARNESS = "lm_eval>=0.4.13,<0.5"
"""The releases that the patches are tested with."""

log = logging.getLogger("valueshift.hook")


def _patch_evaluator(evaluator: "ModuleType") -> None:
    patches.asking(evaluator)
    patches.results(evaluator, record_results, tracking_enabled)


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
    """Write the run records of a harness run and publish them; a failure is said and loses nothing of the run itself."""
    import logging

    from .core.errors import ValueshiftError
    from .core.paths import base_run, runs_root
    from .harness_ext import comparison
    from .harness_ext.probe_record import write_probe_record
    from .harness_ext.results import read_probe_runs, runs_from_samples, single_run
    from .tracking.publish import publish

    root, base_path = runs_root(), base_run()
    try:
        rows = [row for task in samples.values() for row in task]
        for run in runs_from_samples(results["config"], rows, "this run"):
            kept = {}
            records = []
            if base_path is not None:
                base = single_run(read_probe_runs(base_path), base_path, run.inputs["probe_set"])
                kept = comparison.kept_metrics(base, run)
                records.append(comparison.compare(base, run, root)[0])
            for record in [write_probe_record(root, run, extra_metrics=kept), *records]:
                sys.stderr.write(f"valueshift: {record} is in MLflow: {publish(record, root).where}\n")
    except ValueshiftError as error:
        logging.getLogger("valueshift").error("%s", error)
