"""A harness of a few lines with all that the hook patches: the real one takes seconds to import, and can be imported only once.

Run as a program, it loads each patched module in each way there is, and prints as JSON what was found wrong, by way and module.
"""

import importlib
import importlib.util
import json
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FAULT = (
    "import sys\ngetattr(sys, 'fault', int)()\n"  # what a way sets `sys.fault` to is raised while a module is imported
)
MODULES = {
    "__init__": "__version__ = '0.4.13'\n",
    "api/__init__": "",
    "api/model": "def hash_args(attr, args):\n    return ''\n",
    "api/registry": "class Registry(dict):\n    def register(self, name, target):\n        self[name] = target\n\n"
    "model_registry = Registry()\n",
    "tasks/__init__": "",
    "tasks/manager": "class TaskManager:\n    def __init__(self, include_path=None, include_defaults=True):\n"
    "        self.asked = include_path\n\n    def match_tasks(self, task_list):\n        return task_list\n",
    "models/__init__": "",
    "models/huggingface": "class HFLM:\n    def __init__(self):\n        self.model.tie_weights()\n\n"
    "    def _create_model(self):\n        pass\n\n    def _get_backend(self):\n        pass\n",
    "evaluator": "def evaluate(lm, task_dict):\n    pass\n\n"
    "def simple_evaluate(tasks, model_args, metadata, task_manager):\n    pass\n",
    "_cli/__init__": "",
    "_cli/run": "class Run:\n    @staticmethod\n    def _execute(args):\n        pass\n",
}
PATCHED = {
    "lm_eval.tasks.manager": {"TaskManager.__init__": 1, "TaskManager.match_tasks": 1},
    "lm_eval.models": {},
    "lm_eval.models.huggingface": {"HFLM._create_model": 1, "HFLM._get_backend": 1},
    "lm_eval.api.model": {"hash_args": 1},
    "lm_eval.evaluator": {"evaluate": 3, "simple_evaluate": 2},
    "lm_eval._cli.run": {"Run._execute": 1},
}
"""Module -> function -> how many patches it has."""


def write_harness(folder: Path, **changed: str | None) -> Path:
    """Write the package `lm_eval` into a folder, some modules with another text or, where None, not at all."""
    for name, text in {**MODULES, **changed}.items():
        if text is not None:
            path = folder / "lm_eval" / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(FAULT + text)
    return folder


def patches_in(module: ModuleType) -> dict[str, int]:
    """How often each function of `PATCHED` is wrapped by us."""
    found = {}
    for name in PATCHED[module.__name__]:
        function: Any = module
        for part in name.split("."):
            function = getattr(function, part)
        layers = []
        while function is not None:
            layers.append(function.__code__.co_filename.endswith("patches.py"))
            function = getattr(function, "__wrapped__", None)
        found[name] = sum(layers)
    return found


def forget(*packages: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in packages]:
        del sys.modules[name]


def faulty(name: str, error: BaseException) -> ModuleType:
    """Import a module for which something raised an error the first time."""

    def fault() -> None:
        raise error

    importlib.import_module(name.rpartition(".")[0])
    sys.fault = fault  # type: ignore[attr-defined]
    try:
        importlib.import_module(name)
    except type(error):
        pass
    else:
        raise AssertionError("the fault was not met")
    finally:
        del sys.fault  # type: ignore[attr-defined]
    return importlib.import_module(name)


def sought(name: str) -> ModuleType:
    assert importlib.util.find_spec(name)
    return importlib.import_module(name)


def reimported(name: str) -> ModuleType:
    importlib.import_module(name)
    del sys.modules[name]
    return importlib.import_module(name)


def by_hand(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lazily(name: str) -> ModuleType:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    assert module.__doc__ is None  # looked at, it is loaded
    return module


class Naive:
    """Asks all other finders, as tools that wrap a loader do."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        others = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        return next((spec for spec in others if spec is not None), None)


class Bypassing:
    """Loads from the path whatever is of the harness, past everybody else."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return PathFinder.find_spec(name, path, target) if name.startswith("lm_eval") else None


def beside(name: str, finder: Any, place: int) -> ModuleType:
    sys.meta_path.insert(place, finder)
    try:
        importlib.util.find_spec("some_other_module")
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)


def late(name: str) -> ModuleType:
    """The harness is there before the package, as in a notebook that installs it."""
    forget("valueshift", "valueshift_lm_eval")
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "Hook"]
    module = importlib.import_module(name)
    assert not any(patches_in(module).values())
    import valueshift  # noqa: F401

    return module


def twice(name: str) -> ModuleType:
    module = importlib.import_module(name)
    import valueshift_lm_eval

    valueshift_lm_eval.install()
    return module


WAYS = {
    "imported": importlib.import_module,
    "imported after a failure": lambda name: faulty(name, ImportError("no accelerate")),
    "imported after Ctrl-C": lambda name: faulty(name, KeyboardInterrupt()),
    "imported after find_spec": sought,
    "imported again": reimported,
    "reloaded": lambda name: importlib.reload(importlib.import_module(name)),
    "executed by hand": by_hand,
    "loaded lazily": lazily,
    "behind a finder that asks all others": lambda name: beside(name, Naive(), 0),
    "before a finder that asks all others": lambda name: beside(name, Naive(), 1),
    "behind a finder that asks nobody": lambda name: beside(name, Bypassing(), 0),
    "before the package": late,
    "patched twice": twice,
}


def wrong(way: str, name: str) -> str:
    """What is wrong with a module after it was loaded this way; an empty text where it is right."""
    forget("lm_eval")
    module = WAYS[way](name)
    found = [] if (counts := patches_in(module)) == PATCHED[name] else [f"patches: {counts}"]
    if name == "lm_eval.models" and len(importlib.import_module("lm_eval.api.registry").model_registry) != 2:
        found.append("our models are not registered")
    spec = module.__spec__
    if spec is None or "valueshift" in type(spec.loader).__module__ or module.__loader__ is not spec.loader:
        found.append(f"loaders: {module.__loader__}, {spec and spec.loader}")
    return "; ".join(found)


if __name__ == "__main__":
    print(json.dumps({way: {name: wrong(way, name) for name in PATCHED} for way in WAYS}))
