"""The environment that all tests run in, the mark of those that compare numbers, and the fixtures that several files share."""

import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

sys.path.insert(0, str(Path(__file__).parent))  # what several test files import: the modules here that are no tests
from tiny_models import TOKENIZERS, random_model, random_mt5, train_sentencepiece

if TYPE_CHECKING:
    from tracking_stores import Server
    from valueshift.tracking.report.arms import Study
    from valueshift.tracking.report.exhibit import Exhibit

TinyMT5 = Callable[..., Path]
TinyModel = Callable[[str], Path]

_OF_THE_USER = re.compile(
    "(MLFLOW|VALUESHIFT|HF|HUGGINGFACE|TRANSFORMERS|ACCELERATE|RAY|XDG)_.*|.*_PROXY"
    "|(WORLD_SIZE|RANK|LOCAL_RANK|MASTER_ADDR|MASTER_PORT)"  # of a training that is started by torchrun
    "|(COLUMNS|LINES|NO_COLOR|FORCE_COLOR|PY_COLORS|GITHUB_ACTIONS|TTY_.*)"  # what rich and typer print by
    "|(PYTHONWARNINGS|MPLBACKEND|MPLCONFIGDIR)",
    re.IGNORECASE,
)
_COMPARES_NUMBERS = re.compile(
    r"^ *(import|from) (numpy|scipy|torch)|approx\(|allclose|array_equal|assert_(frame|series)_equal|\.equals\(", re.M
)


def _isolate() -> None:
    """Neither settings nor caches of the user, in this process and those it starts; worker processes inherit it all."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for name in [name for name in os.environ if _OF_THE_USER.fullmatch(name) and name != "VALUESHIFT_TEST_DATA"]:
        del os.environ[name]
    os.environ["HOME"] = tempfile.mkdtemp(prefix="home-of-tests-")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are tiny and tests run side by side
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads of processes side by side would spin for one another


_isolate()


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["HOME"], ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that compare floating-point numbers are marked `numeric`, which `make test-machines` runs."""
    numeric = {
        path: bool(_COMPARES_NUMBERS.search(path.read_text(encoding="utf-8"))) for path in {i.path for i in items}
    }
    for item in items:
        if numeric[item.path]:
            item.add_marker("numeric")


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all worker processes; they read it and never write there."""
    shared = factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder, making = shared / name, shared / f"{name}.making"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            make(making)
            making.rename(folder)
    return folder


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real inputs that are not part of the project: `VALUESHIFT_TEST_DATA`, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("VALUESHIFT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real inputs are not on this machine ({folder}); set VALUESHIFT_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test or a library sets while it runs is gone in the next."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "VALUESHIFT_")) and "_TEST_" not in name]:
        monkeypatch.delenv(name)
    yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its tables and no run: making them takes seconds."""
    from valueshift.tracking.client import opened

    def make(folder: Path) -> None:
        with opened(folder, f"sqlite:///{folder / 'mlflow.db'}"):
            pass

    return made_once(tmp_path_factory, "empty", make) / "mlflow.db"


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """A runs root whose MLflow store is empty."""
    shutil.copy(empty_store, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def served_root(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A runs root with one record in its SQLite store."""
    from tracking_stores import probe_record
    from valueshift.tracking.publish import publish

    root = tmp_path_factory.mktemp("served")
    shutil.copy(empty_store, root)
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
            environment.delenv(name)
        publish(probe_record(root), root)
    return root


@pytest.fixture(scope="session")
def server(served_root: Path) -> Iterator["Server"]:
    """MLflow's server of that root; tests that use it are of the group `mlflow_server`."""
    from tracking_stores import Server, free_port

    running = Server(served_root, free_port())
    yield running
    running.kill()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """A host and port at which nothing answers: they are taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds of every sleep that this thread asks for, none of which is slept: a wait that is the same on every machine."""
    asked: list[float] = []
    ours, sleep = threading.current_thread(), time.sleep
    monkeypatch.setattr(
        time, "sleep", lambda seconds: asked.append(seconds) if threading.current_thread() is ours else sleep(seconds)
    )
    return asked


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of imported corpora and surveys, of this test alone."""
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def release(tmp_path: Path, cache: Path) -> Path:
    """An empty folder for the files of a corpus as published, which are then imported to `cache`."""
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def study_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of a made-up study of two pretrained models and their fine-tuned ones (see `write_study`)."""
    from report_records import write_study

    return made_once(tmp_path_factory, "study", write_study)


@pytest.fixture(scope="session")
def study(study_runs: Path) -> "Study":
    """Those records, collected."""
    from valueshift.tracking.report.study import collect

    return collect([study_runs])


@pytest.fixture(scope="session")
def made(study: "Study") -> dict[str, "Exhibit"]:
    """The exhibits of that study by their names: making them takes seconds."""
    from valueshift.tracking.report.exhibits import exhibits

    return {exhibit.name: exhibit for exhibit in exhibits(study)}


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    """Every packaged probe filled in with each of its options: the 16 languages and their scripts."""
    from valueshift.core.probes import probe_set

    packaged = probe_set("wvs")
    return [
        probe.filled(pole)
        for language in packaged.languages
        for probe in packaged.probes(language)
        for pole in ("first", "second")
    ]


@pytest.fixture(scope="session")
def tiny_mt5(sentences: list[str], tmp_path_factory: pytest.TempPathFactory) -> TinyMT5:
    """Factory `tiny_mt5(untied=True, appended=False) -> Path` of random mT5 checkpoints with a tokenizer of all our scripts.

    untied: whether the head is its own, as in real mT5. appended: sentinels are ids `<extra_id_i>` after the vocabulary, as in
    T5, instead of the pieces `▁<extra_id_i>` inside it, as in mT5. The same checkpoint is made once a session.
    """

    def made(untied: bool = True, appended: bool = False) -> Path:
        def make(folder: Path) -> None:
            train_sentencepiece(sentences, folder, sentinels=0 if appended else 20)
            random_mt5(folder, untied)

        name = f"mt5-{'untied' if untied else 'tied'}-{'appended' if appended else 'inside'}"
        return made_once(tmp_path_factory, name, make)

    return made


@pytest.fixture(scope="session")
def tiny_model(sentences: list[str], tiny_mt5: TinyMT5, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Factory `tiny_model(kind) -> Path` of random checkpoints with tokenizers trained on all packaged probes.

    Kinds: untied, tied, appended (see `tiny_mt5`), gpt2, llama, bert, xlm-roberta, deberta. Made once a session.
    """

    def made(name: str) -> Path:
        if name in ("untied", "tied", "appended"):
            return tiny_mt5(untied=name != "tied", appended=name == "appended")

        def make(folder: Path) -> None:
            TOKENIZERS[name](sentences, folder)
            random_model(name, folder)

        return made_once(tmp_path_factory, name, make)

    return made
