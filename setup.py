"""The repository root is the package `valueshift`; its rooms are found, and the lm-eval hook is put beside it.

`pyproject.toml` holds everything declarative. Here is what setuptools has no field for: the packages of a root layout, and
`valueshift_lm_eval.pth` with its module at the root of site-packages, in wheels and in editable installs alike.
"""

from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

HOOK = ("valueshift_lm_eval.pth", "valueshift_lm_eval.py")
NOT_PACKAGED = ["tests*", "benchmarks*", "docs*", "build*", "tasks*"]
MODULES = {"__init__", "__main__", "plugin"}


class BuildPy(build_py):
    def find_package_modules(self, package, package_dir):
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if package != "valueshift" or module[1] in MODULES]

    def run(self):
        super().run()
        if not self.editable_mode:
            for name in HOOK:
                self.copy_file(name, str(Path(self.build_lib) / name))

    def get_outputs(self, include_bytecode=True):
        hook = [] if self.editable_mode else [str(Path(self.build_lib) / name) for name in HOOK]
        return [*super().get_outputs(include_bytecode), *hook]


class WithHook:
    """An editable strategy that also writes the hook into the wheel; its module is told where the package is."""

    def __init__(self, strategy):
        self.strategy = strategy

    def __enter__(self):
        self.strategy.__enter__()
        return self

    def __exit__(self, *exception):
        return self.strategy.__exit__(*exception)

    def __call__(self, wheel, files, mapping):
        self.strategy(wheel, files, mapping)
        pth, module = HOOK
        wheel.write(pth, pth)
        source = Path(module).read_text(encoding="utf-8")
        wheel.writestr(module, f"{source}\nPACKAGE = {str(Path.cwd())!r}  # of an editable install\n")


class EditableWheel(editable_wheel):
    def _select_strategy(self, *arguments, **keywords):
        return WithHook(super()._select_strategy(*arguments, **keywords))


setup(
    packages=["valueshift", *(f"valueshift.{room}" for room in find_packages(".", exclude=NOT_PACKAGED))],
    package_dir={"valueshift": "."},
    include_package_data=False,
    cmdclass={"build_py": BuildPy, "editable_wheel": EditableWheel},
)
