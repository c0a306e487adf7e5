"""Patches of lm-eval 0.4.13, applied by the hook whenever a harness module is executed.

Each has its own test of whether it is needed; where it is not, it steps aside and says why in the log. Applied twice, it is there
once. `VALUESHIFT_HOOK=off` disables all of them.

- discovery: our tasks are found without `--include_path`.
- untied head: `HFLM` ties the head of untied encoder-decoder models (transformers 5 forces the flag); it is kept.
- asking: our tasks are told which model they ask.
- results: the samples of our tasks reach the run record, however the tasks were named and without `--log_samples`.
- guests: what cannot work is said before weights are loaded; a call of our tasks alone that has no number ends with it.
- model in the keys: `--use_cache` and `--cache_requests` do not mix models on our tasks.
- models: `--model hf-mlm` and `--model hf-encdec` are known without the entry points that later releases read.
- clean exit: our errors end the command line cleanly.
"""

import functools
import inspect
import logging
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from ..core.errors import ValueshiftError
from ..core.paths import task_folders
from .heads import keep_untied_head

log = logging.getLogger("valueshift.hook")

Samples = dict[str, list[dict[str, Any]]]
OnResults = Callable[[Mapping[str, Any], Samples], None]
BaseFaults = Callable[[Sequence[Mapping[str, str]]], dict[str, str]]

_collected: ContextVar[Samples | None] = ContextVar("valueshift_samples", default=None)


def _not_needed(patch: str, reason: str) -> None:
    log.info("%s patch not applied: %s", patch, reason)


def _wrap(patch: str, owner: Any, name: str, wrapped: Callable[[Any], Any]) -> None:
    """Put `wrapped(original)` in the place of a function of a module or class, unless this patch is in it already."""
    original, mark = getattr(owner, name), f"__valueshift_{patch}__"
    if hasattr(original, mark):
        return
    wrapper = functools.wraps(original)(wrapped(original))
    setattr(wrapper, mark, True)
    static = isinstance(inspect.getattr_static(owner, name), staticmethod)
    setattr(owner, name, staticmethod(wrapper) if static else wrapper)


def discovery(manager: Any) -> None:
    """Let every `TaskManager` with defaults index our tasks; a user's own `--include_path` wins over them."""
    if hasattr(manager, "discover_plugin_task_paths") or "entry_points" in inspect.getsource(manager):
        _not_needed("discovery", "this lm-eval discovers plugins itself")
        return
    signature = inspect.signature(manager.TaskManager.__init__)
    if "include_path" not in signature.parameters:
        _not_needed("discovery", "this lm-eval has another TaskManager; pass --include_path $(valueshift tasks path)")
        return

    def with_ours(original: Callable[..., None]) -> Callable[..., None]:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            call = signature.bind(self, *args, **kwargs)
            call.apply_defaults()
            given = call.arguments["include_path"]
            if call.arguments.get("include_defaults", True):
                theirs = list(given) if isinstance(given, list | tuple) else [given] if given else []
                call.arguments["include_path"] = [*task_folders(), *theirs]
            original(*call.args, **call.kwargs)
            self.include_path = given

        return init

    def without_absent(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
        def match_tasks(self: Any, task_list: list[str]) -> list[str]:
            from .guests import matching

            matched = {pattern: original(self, [pattern]) for pattern in task_list}
            return sorted({name for pattern, names in matched.items() for name in matching(pattern, names)})

        return match_tasks

    _wrap("discovery", manager.TaskManager, "__init__", with_ours)
    _wrap("discovery", manager.TaskManager, "match_tasks", without_absent)


def untied_head(huggingface: Any) -> None:
    """Keep the head of untied encoder-decoder models through `HFLM.__init__`, which calls `tie_weights()`."""
    lm = huggingface.HFLM
    if "tie_weights" not in inspect.getsource(lm.__init__):
        _not_needed("untied head", "this lm-eval does not tie weights")
        return

    def kept(original: Callable[..., None]) -> Callable[..., None]:
        def create(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if (model := getattr(self, "_model", None)) is not None:
                keep_untied_head(model)

        return create

    _wrap("head", lm, "_create_model", kept)
    _wrap("head", lm, "_get_backend", kept)  # a model object is there before it


def head_is_kept() -> bool:
    """Whether `HFLM` as imported now has the patch."""
    lm = getattr(sys.modules.get("lm_eval.models.huggingface"), "HFLM", None)
    return hasattr(getattr(lm, "_create_model", None), "__valueshift_head__")


def asking(evaluator: Any) -> None:
    """Tell our tasks which model they ask."""

    def with_model(original: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(lm: Any, *args: Any, **kwargs: Any) -> Any:
            from . import families

            with families.asking(lm):
                return original(lm, *args, **kwargs)

        return evaluate

    _wrap("asking", evaluator, "evaluate", with_model)


def results(evaluator: Any, on_results: OnResults, wanted: Callable[[], bool]) -> None:
    """Pass results and samples of our tasks to `on_results` after each evaluation in which some ran, while `wanted()` is true.

    The samples are made of what our tasks were answered, so that other tasks' are not held for it, and the caller gets what was
    asked for.
    """

    def collecting(original: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(lm: Any, task_dict: Any, *args: Any, **kwargs: Any) -> Any:
            found = original(lm, task_dict, *args, **kwargs)
            whole = _collected.get()
            if whole is not None:
                whole.update(_samples(lm, task_dict))
            elif wanted() and (samples := _samples(lm, task_dict)) and found is not None:
                on_results({**found, "config": _config(lm)}, samples)
            return found

        return evaluate

    def handing_over(original: Callable[..., Any]) -> Callable[..., Any]:
        def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
            if not wanted():
                return original(*args, **kwargs)
            samples: Samples = {}
            token = _collected.set(samples)
            try:
                found = original(*args, **kwargs)
            finally:
                _collected.reset(token)
            if samples and found is not None:
                on_results(found, samples)
            return found

        return simple_evaluate

    _wrap("results", evaluator, "evaluate", collecting)
    _wrap("results", evaluator, "simple_evaluate", handing_over)


def guests(evaluator: Any, base_faults: BaseFaults) -> None:
    """Refuse what a call of our tasks alone cannot do, before weights are loaded where that is possible (see `guests`)."""
    signature = inspect.signature(evaluator.simple_evaluate)
    if not {"tasks", "model_args", "metadata", "task_manager"} <= signature.parameters.keys():
        _not_needed("guests", "this simple_evaluate has other arguments")
        return

    def refusing_before(original: Callable[..., Any]) -> Callable[..., Any]:
        def simple_evaluate(*args: Any, **kwargs: Any) -> Any:
            from .guests import refuse_before

            call = signature.bind(*args, **kwargs)
            call.apply_defaults()
            refuse_before(call.arguments, base_faults)
            return original(*args, **kwargs)

        return simple_evaluate

    def refusing_after(original: Callable[..., Any]) -> Callable[..., Any]:
        def evaluate(lm: Any, task_dict: Any, *args: Any, **kwargs: Any) -> Any:
            from .guests import refuse_after

            found = original(lm, task_dict, *args, **kwargs)
            if found is not None:
                refuse_after(task_dict)
            return found

        return evaluate

    _wrap("guests", evaluator, "simple_evaluate", refusing_before)
    _wrap("guests", evaluator, "evaluate", refusing_after)


def _samples(lm: Any, task_dict: Mapping[Any, Any]) -> Samples:
    """What our tasks among these were asked and answered, in the harness's form of samples; of all processes on the first."""
    samples: Samples = {}
    for name, task in _ours(task_dict):
        requests = defaultdict(list)
        for request in sorted(task.instances, key=lambda request: request.idx):
            requests[request.doc_id].append(request)
        samples[name] = [
            {"doc_id": doc_id, "doc": asked[0].doc, "resps": [request.resps for request in asked]}
            for doc_id, asked in sorted(requests.items())
        ]
    if lm.world_size > 1 and samples:
        gathered = lm.gather_object(samples, dst=0) or []
        samples = {name: [row for one in gathered for row in one[name]] for name in samples}
    return samples


def _ours(tasks: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Our tasks in what the harness evaluates, however deep (older callers nest groups), by name."""
    module = sys.modules.get(f"{__package__}.task")  # where it was never imported, no task is ours
    for name, task in tasks.items():
        if isinstance(task, Mapping):
            yield from _ours(task)
        elif module is not None and isinstance(task, module.ClozeTask):
            yield str(name), task


def _config(lm: Any) -> dict[str, Any]:
    """What `simple_evaluate` would say of the model, where `evaluate` was called without it."""
    lm = getattr(lm, "lm", lm)  # inside its cache
    about = lm.get_model_info() if hasattr(lm, "get_model_info") else {}
    named = getattr(lm, "pretrained", None)
    return {
        "model": type(lm).__name__,
        "model_args": {"pretrained": named} if isinstance(named, str) else {},
        **about,
        "batch_size": getattr(lm, "batch_size", None),
        "device": str(getattr(lm, "device", None)),
    }


def model_in_keys(model: Any) -> None:
    """Put the model that our tasks ask into the keys of cached responses."""
    if not hasattr(model, "hash_args"):
        _not_needed(
            "model in the keys", "this lm-eval keys its cache differently; do not share --use_cache between models"
        )
        return

    def keyed(original: Callable[..., str]) -> Callable[..., str]:
        def hash_args(attr: str, args: Iterable[Any]) -> str:
            args = list(args)
            keys = [key for arg in args if isinstance(arg, str) and (key := getattr(arg, "model", None)) is not None]
            return original(attr, args + keys)

        return hash_args

    _wrap("keys", model, "hash_args", keyed)


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
        if name not in registry.model_registry:
            registry.model_registry.register(name, target=target)


def clean_exit(run: Any) -> None:
    """End the harness's command line with one sentence and status 2 on our errors, as our own commands do."""

    def ending(original: Callable[..., None]) -> Callable[..., None]:
        def execute(*args: Any, **kwargs: Any) -> None:
            try:
                original(*args, **kwargs)
            except ValueshiftError as error:
                sys.stderr.write(f"error: {error}\n")
                sys.exit(2)

        return execute

    _wrap("exit", run.Run, "_execute", ending)
