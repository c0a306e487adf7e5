"""What lm-eval loads: the hook, the entry points, and the join of harness and tracking.

`valueshift_lm_eval.pth` calls `install()` at every start of Python, so nothing is imported here before lm-eval is.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
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
        patches.guests(module, base_faults)


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
