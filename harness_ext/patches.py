"""Patches of lm-eval 0.4.13, applied by the hook right after a harness module is imported.

Each has its own test of whether it is needed; where it is not, it steps aside and says why in the log. `VALUESHIFT_HOOK=off`
disables all of them.

- discovery: our tasks are found without `--include_path`.
- untied head: `HFLM` ties the head of untied encoder-decoder models (transformers 5 forces the flag); it is kept.
- results: the samples of our tasks reach the run record without `--log_samples`; our errors end the command line cleanly.
- guests: what cannot work is said before weights are loaded; a call of our tasks alone that has no number ends with it.
- model in the keys: `--use_cache` and `--cache_requests` do not mix models on our tasks.
- models: `--model hf-mlm` and `--model hf-encdec` are known without the entry points that later releases read.
"""

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import ValueshiftError
from ..core.paths import task_folders
from .heads import keep_untied_head

log = logging.getLogger("valueshift.hook")

OnResults = Callable[[Mapping[str, Any], Mapping[str, list[dict[str, Any]]]], None]
BaseFaults = Callable[[Sequence[Mapping[str, str]]], dict[str, str]]


def _not_needed(patch: str, reason: str) -> None:
    log.info("%s patch not applied: %s", patch, reason)


def discovery(manager: Any) -> None:
    """Let every `TaskManager` with defaults index our tasks; a user's own `--include_path` wins over them."""
    original = manager.TaskManager.__init__
    if hasattr(manager, "discover_plugin_task_paths") or "entry_points" in inspect.getsource(manager):
        _not_needed("discovery", "this lm-eval discovers plugins itself")
        return
    if "include_path" not in inspect.signature(original).parameters:
        _not_needed("discovery", "this lm-eval has another TaskManager; pass --include_path $(valueshift tasks path)")
        return

    @functools.wraps(original)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        call = inspect.signature(original).bind(self, *args, **kwargs)
        call.apply_defaults()
        given = call.arguments["include_path"]
        if call.arguments.get("include_defaults", True):
            theirs = list(given) if isinstance(given, list | tuple) else [given] if given else []
            call.arguments["include_path"] = [*task_folders(), *theirs]
        original(*call.args, **call.kwargs)
        self.include_path = given

    match = manager.TaskManager.match_tasks

    @functools.wraps(match)
    def match_tasks(self: Any, task_list: list[str]) -> list[str]:
        from .guests import matching

        matched = {pattern: match(self, [pattern]) for pattern in task_list}
        return sorted({name for pattern, names in matched.items() for name in matching(pattern, names)})

    manager.TaskManager.__init__, manager.TaskManager.match_tasks = init, match_tasks


def untied_head(huggingface: Any) -> None:
    """Keep the head of untied encoder-decoder models through `HFLM.__init__`, which calls `tie_weights()`."""
    lm = huggingface.HFLM
    if "tie_weights" not in inspect.getsource(lm.__init__):
        _not_needed("untied head", "this lm-eval does not tie weights")
        return
    create, backend = lm._create_model, lm._get_backend

    @functools.wraps(create)
    def create_model(self: Any, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        keep_untied_head(self._model)

    @functools.wraps(backend)
    def get_backend(self: Any, *args: Any, **kwargs: Any) -> None:
        backend(self, *args, **kwargs)
        if (given := getattr(self, "_model", None)) is not None:
            keep_untied_head(given)

    lm._create_model, lm._get_backend = create_model, get_backend


def results(evaluator: Any, on_results: OnResults, wanted: Callable[[], bool]) -> None:
    """Pass results and samples of our tasks to `on_results` after each `simple_evaluate` while `wanted()` is true.

    Samples are collected also without `log_samples` and are then taken out of what the caller gets.
    """
    original = evaluator.simple_evaluate
    if "log_samples" not in inspect.signature(original).parameters:
        _not_needed(
            "results", "this simple_evaluate has no log_samples; give `valueshift publish` the saved files instead"
        )
        return

    @functools.wraps(original)
    def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
        call = inspect.signature(original).bind(*args, **kwargs)
        call.apply_defaults()
        if not wanted() or not any(map(_is_ours, call.arguments["tasks"] or ())):
            return original(*args, **kwargs)
        asked_for_samples = call.arguments["log_samples"]
        call.arguments["log_samples"] = True
        found = original(*call.args, **call.kwargs)
        if found is not None:
            samples = found["samples"]
            on_results(found, {name: rows for name, rows in samples.items() if _is_ours(name)})
            if not asked_for_samples:
                del found["samples"]
        return found

    evaluator.simple_evaluate = simple_evaluate


def guests(evaluator: Any, base_faults: BaseFaults) -> None:
    """Refuse what a call of our tasks alone cannot do, before weights are loaded where that is possible (see `guests`)."""
    simple, plain = evaluator.simple_evaluate, evaluator.evaluate
    if not {"tasks", "model_args", "metadata", "task_manager"} <= inspect.signature(simple).parameters.keys():
        _not_needed("guests", "this simple_evaluate has other arguments")
        return

    @functools.wraps(simple)
    def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
        from .guests import refuse_before

        call = inspect.signature(simple).bind(*args, **kwargs)
        call.apply_defaults()
        refuse_before(call.arguments, base_faults)
        return simple(*args, **kwargs)

    @functools.wraps(plain)
    def evaluate(lm: Any, task_dict: Any, *args: Any, **kwargs: Any) -> Any:
        from .guests import refuse_after

        found = plain(lm, task_dict, *args, **kwargs)
        if found is not None:
            refuse_after(task_dict)
        return found

    evaluator.simple_evaluate, evaluator.evaluate = simple_evaluate, evaluate


def _is_ours(task: Any) -> bool:
    """Whether a task specification (name, configuration or object) is one of our tasks or groups."""
    if isinstance(task, Mapping):
        task = task.get("task") or task.get("group")
    name = task if isinstance(task, str) else getattr(getattr(task, "config", None), "task", None)
    return isinstance(name, str) and name in our_names()


def our_names() -> set[str]:
    """Names of all our tasks and groups, and of those of users' own probe sets."""
    return {path.stem for folder in task_folders() for path in folder.rglob("*.yaml")}


def model_in_keys(model: Any, evaluator: Any) -> None:
    """Tell our tasks which model they ask, and put it into the keys of cached responses and requests."""
    if not hasattr(model, "hash_args"):
        _not_needed(
            "model in the keys", "this lm-eval keys its cache differently; do not share --use_cache between models"
        )
    else:
        original_hash = model.hash_args

        @functools.wraps(original_hash)
        def hash_args(attr: str, args: Iterable[Any]) -> str:
            args = list(args)
            keyed = [
                model for arg in args if (model := getattr(arg, "model", None)) is not None and isinstance(arg, str)
            ]
            return str(original_hash(attr, args + keyed))

        model.hash_args = hash_args
    original = evaluator.evaluate

    @functools.wraps(original)
    def evaluate(lm: Any, *args: Any, **kwargs: Any) -> Any:
        from .families import asking

        with asking(lm):
            return original(lm, *args, **kwargs)

    evaluator.evaluate = evaluate


OUR_MODELS = {
    "hf-mlm": "valueshift.harness_ext.lms:MaskedLM",
    "hf-encdec": "valueshift.harness_ext.lms:EncoderDecoderLM",
}


def models(module: Any) -> None:
    """Register our harness models, loaded when they are first asked for."""
    from lm_eval.api import registry

    if any("entry_points" in inspect.getsource(source) for source in (module, registry)):
        _not_needed("models", "this lm-eval discovers plugins itself")
        return
    for name, target in OUR_MODELS.items():
        registry.model_registry.register(name, target=target)


def clean_exit(run: Any) -> None:
    """End the harness's command line with one sentence and status 2 on our errors, as our own commands do."""
    original = run.Run._execute

    @functools.wraps(original)
    def execute(*args: Any, **kwargs: Any) -> None:
        try:
            original(*args, **kwargs)
        except ValueshiftError as error:
            sys.stderr.write(f"error: {error}\n")
            sys.exit(2)

    run.Run._execute = staticmethod(execute)
