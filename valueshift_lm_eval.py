"""The import hook of valueshift for lm-eval, put in place by `valueshift_lm_eval.pth` at every start of Python.

It stands beside the package, not inside it: a start of Python runs nothing that is named `valueshift`, as a folder of that name
in front on the path may be anybody's. The package is imported when lm-eval is, if it is the one that came with this file.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

    Patch = Callable[[ModuleType], None]

PACKAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "valueshift")  # noqa: PTH100, PTH118, PTH120


class Hook:
    """Import finder that has harness modules patched each time they are executed: imported, imported again, reloaded."""

    def __init__(self) -> None:
        self._patches: Mapping[str, Patch] | None = None
        self._seeking: set[str] = set()

    def find_spec(self, name: str, path: "Any" = None, target: "ModuleType | None" = None) -> "ModuleSpec | None":
        """Find a harness module where every other finder would, and wrap its loader. Called for every import."""
        if sys.meta_path[0] is not self:  # who came in front would load past the patches; from here on we ask them
            sys.meta_path[:] = [self, *(finder for finder in sys.meta_path if finder is not self)]
        if not name.startswith("lm_eval.") or name in self._seeking or name not in self.patches():
            return None
        self._seeking.add(name)  # a finder that asks all others asks this one again
        try:
            finders = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
            specs = (finder.find_spec(name, path, target) for finder in finders)
            spec = next((spec for spec in specs if spec is not None), None)
        finally:
            self._seeking.discard(name)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = Loader(spec.loader, self.patches()[name])  # type: ignore[assignment]
        return spec

    def patches(self) -> "Mapping[str, Patch]":
        """What patches which module; nothing, which is said once, where the package is hidden or damaged."""
        if self._patches is None:
            try:
                self._patches = _patches()
            except Exception as error:  # noqa: BLE001  (lm-eval is imported whatever is wrong with us)
                if self._patches is None:  # the package, when imported, comes here itself
                    import logging

                    logging.getLogger("valueshift.hook").warning("valueshift leaves lm-eval as it is: %s", error)
                    self._patches = {}
        return self._patches

    def patch_imported(self) -> None:
        """Patch what was imported before this hook was there, or past it."""
        for name, patch in self.patches().items():
            module = sys.modules.get(name)
            if module is not None and not getattr(module.__spec__, "_initializing", False):
                patch(module)


class Loader:
    """Another loader; what it executes is patched then."""

    def __init__(self, loader: "Any", patch: "Patch") -> None:
        self._loader, self._patch = loader, patch

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def exec_module(self, module: "ModuleType") -> None:
        """Execute the module, which has its own loader again from here on, and patch it."""
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._patch(module)


def _patches() -> "Mapping[str, Patch]":
    """Those of the package that was installed with this file.

    Raises:
        ImportError: the name means something else here, or the package is damaged.
    """
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec("valueshift")
    found, installed = spec and spec.origin, Path(PACKAGE, "__init__.py")
    if not found or not installed.exists() or not installed.samefile(found):
        raise ImportError(f"'valueshift' is {found} here, not {installed}; rename that, or start Python elsewhere")
    from valueshift.plugin import PATCHES

    patches: Mapping[str, Patch] = PATCHES
    return patches


def install() -> None:
    """Put the hook in place, if it is not, and patch what is imported of lm-eval already."""
    hook = next((finder for finder in sys.meta_path if isinstance(finder, Hook)), None)
    if hook is None:
        hook = Hook()
        sys.meta_path.insert(0, hook)
    if "lm_eval" in sys.modules:
        hook.patch_imported()
