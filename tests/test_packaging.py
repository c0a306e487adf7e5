"""Facts about the installed package: what a wheel holds, that it uninstalls cleanly, what a start of Python costs."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from fake_harness import write_harness

ROOT = Path(__file__).parents[1]
HOOK = {"valueshift_lm_eval.pth", "valueshift_lm_eval.py"}
ROOMS = {"cli", "core", "harness_ext", "analysis", "finetune", "tracking", "experiments"}

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")


def _pip(python: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def empty_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder)
    python = folder / "bin" / "python"
    (_site(python) / "of_another_package").touch()  # pip would remove an empty site-packages
    return python


def _site(python: Path) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip())


def _copy_of_source(folder: Path) -> Path:
    """The tracked files alone: a build in the checkout would leave traces there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    return _copy_of_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        target,
        source,
    ]
    subprocess.run([str(part) for part in command], check=True)
    return next(target.glob("*.whl"))


def test_the_wheel_holds_the_rooms_the_tasks_and_the_hook(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names >= HOOK
    assert {"valueshift/py.typed", "valueshift/tasks/cloze_yaml", "valueshift/tasks/wvs/items.csv"} <= names
    assert {"valueshift/tasks/wvs/wvs_de.yaml", "valueshift/tasks/wvs/probes/de.csv"} <= names
    assert all(f"valueshift/{room}/__init__.py" in names for room in ROOMS)
    assert not [
        name for name in names if name.startswith(("valueshift/tests/", "valueshift/benchmarks/", "valueshift/docs/"))
    ]
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"valueshift", *HOOK}


def _patched(python: Path, folder: Path) -> str:
    """Whether a harness on the path is patched without anybody's importing the package."""
    code = "import lm_eval.api.model as m; print(hasattr(m.hash_args, '__wrapped__'))"
    path = {"PYTHONPATH": str(write_harness(folder))}
    done = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd="/", env=path)
    return done.stdout.strip() + done.stderr


def test_a_wheel_uninstalls_without_a_trace(wheel: Path, empty_python: Path, tmp_path: Path) -> None:
    before = {path.name for path in _site(empty_python).iterdir()}
    _pip(empty_python, "install", "--no-deps", str(wheel))
    assert _patched(empty_python, tmp_path) == "True"
    _pip(empty_python, "uninstall", "-y", "valueshift")
    assert {path.name for path in _site(empty_python).iterdir()} == before


def test_an_editable_install_has_the_hook_and_uninstalls(source: Path, empty_python: Path, tmp_path: Path) -> None:
    build = "import sys; from setuptools.build_meta import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    _pip(empty_python, "install", "--no-deps", str(next(tmp_path.glob("*.whl"))))
    assert _patched(empty_python, tmp_path) == "True"
    _pip(empty_python, "uninstall", "-y", "valueshift")
    assert not [path for path in _site(empty_python).iterdir() if "valueshift" in path.name]


def test_python_starts_and_the_harness_is_imported_where_the_package_is_damaged(
    wheel: Path, empty_python: Path, tmp_path: Path
) -> None:
    """A `.pth` line that fails would print a traceback at every start of every program."""
    _pip(empty_python, "install", "--no-deps", str(wheel))
    for missing in ("valueshift/plugin.py", "valueshift_lm_eval.py"):
        (_site(empty_python) / missing).unlink()
        done = subprocess.run([empty_python, "-c", "print(1)"], check=True, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("1\n", "")
        assert _patched(empty_python, tmp_path).startswith("False")
    _pip(empty_python, "uninstall", "-y", "valueshift")


def test_the_package_runs_as_a_module() -> None:
    """As `accelerate launch -m valueshift` runs it."""
    done = subprocess.run([sys.executable, "-m", "valueshift", "finetune", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: python -m valueshift finetune" in done.stdout, done.stderr


def test_users_folders_of_the_same_names_do_not_hide_ours(tmp_path: Path) -> None:
    for room in ("tasks", "tracking", "finetune", "core", "analysis"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise RuntimeError('the user\\'s own')")
    code = "import valueshift.cli, valueshift.core.probes, valueshift.analysis.profiles; print('fine')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\nfrom valueshift import cli\n"
        "heavy = {'torch', 'pandas', 'mlflow', 'transformers', 'lm_eval', 'pydantic', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd="/")
    assert done.stdout == "[]\n"
