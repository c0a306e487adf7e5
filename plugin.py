"""What lm-eval loads: the hook, the entry points, and the join of harness and tracking.

`valueshift_lm_eval.pth` calls `install()` at every start of Python, so nothing is imported here before lm-eval is.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Hook:
    """Import finder that applies our patches to harness modules right after they are executed."""

    def __init__(self, patches: "Mapping[str, Callable[[ModuleType], None]]") -> None:
        self.patches = dict(patches)

    def find_spec(self, name: str, path: "Any" = None, target: "ModuleType | None" = None) -> "ModuleSpec | None":
        """Find a harness module where every other finder would, and wrap its execution. Called for every import."""
        if name not in self.patches:
            return None
        patch = self.patches.pop(name)
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = _patched(spec.loader.exec_module, patch)  # type: ignore[method-assign, assignment]
        return spec


def _patched(
    execute: "Callable[[ModuleType], None]", patch: "Callable[[ModuleType], None]"
) -> "Callable[[ModuleType], None]":
    def exec_module(module: "ModuleType") -> None:
        execute(module)
        patch(module)

    return exec_module


def install() -> None:
    """Put the hook in place; `VALUESHIFT_HOOK=off` is read when lm-eval is imported, so that this costs nothing."""
    if not any(isinstance(finder, Hook) for finder in sys.meta_path):
        sys.meta_path.insert(0, Hook(PATCHES))


def _enabled() -> bool:
    from .core.paths import hook_enabled

    return hook_enabled()


def _patch_manager(module: "ModuleType") -> None:
    if _enabled():
        from .harness_ext import patches

        patches.discovery(module)


def _patch_huggingface(module: "ModuleType") -> None:
    if _enabled():
        from .harness_ext import patches

        patches.untied_head(module)


def _patch_evaluator(module: "ModuleType") -> None:
    if _enabled():
        import lm_eval.api.model

        from .core.paths import tracking_enabled
        from .harness_ext import patches

        patches.model_in_keys(lm_eval.api.model, module)
        patches.results(module, record_results, tracking_enabled)


def _patch_models(module: "ModuleType") -> None:
    if _enabled():
        from .harness_ext import patches

        patches.models(module)


def _patch_run(module: "ModuleType") -> None:
    if _enabled():
        from .harness_ext import patches

        patches.clean_exit(module)


PATCHES: "Mapping[str, Callable[[ModuleType], None]]" = {
    "lm_eval.tasks.manager": _patch_manager,
    "lm_eval.models": _patch_models,
    "lm_eval.models.huggingface": _patch_huggingface,
    "lm_eval.evaluator": _patch_evaluator,
    "lm_eval._cli.run": _patch_run,
}


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
