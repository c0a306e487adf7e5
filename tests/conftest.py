"""Fixtures that several test files share."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # what several test files import: the modules here that are no tests
from tiny_models import TOKENIZERS, random_model, random_mt5, train_sentencepiece

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # models are tiny and tests run side by side

if TYPE_CHECKING:
    from tracking_stores import Server
    from valueshift.tracking.report.arms import Study
    from valueshift.tracking.report.exhibit import Exhibit

TinyMT5 = Callable[..., Path]
TinyModel = Callable[[str], Path]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Real inputs that are not part of the project: `VALUESHIFT_TEST_DATA`, else `../shared/data` beside the checkout."""
    folder = Path(os.environ.get("VALUESHIFT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real inputs are not on this machine ({folder}); set VALUESHIFT_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests neither see nor change what the user has set."""
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        monkeypatch.delenv(name)
    for name in ("VALUESHIFT_RUNS", "VALUESHIFT_CACHE", "VALUESHIFT_HOOK", "VALUESHIFT_TRACKING", "VALUESHIFT_BASE"):
        monkeypatch.delenv(name, raising=False)
    yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow SQLite file with its tables and no run: making them takes seconds."""
    from valueshift.tracking.client import opened

    folder = tmp_path_factory.mktemp("empty")
    with opened(folder, f"sqlite:///{folder / 'mlflow.db'}"):
        return folder / "mlflow.db"


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

    root = tmp_path_factory.mktemp("runs")
    write_study(root)
    return root


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
    root = tmp_path_factory.mktemp("tiny_mt5")

    def make(untied: bool = True, appended: bool = False) -> Path:
        folder = root / f"{'untied' if untied else 'tied'}-{'appended' if appended else 'inside'}"
        if not folder.is_dir():
            folder.mkdir()
            train_sentencepiece(sentences, folder, sentinels=0 if appended else 20)
            random_mt5(folder, untied)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(sentences: list[str], tiny_mt5: TinyMT5, tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    """Factory `tiny_model(kind) -> Path` of random checkpoints with tokenizers trained on all packaged probes.

    Kinds: untied, tied, appended (see `tiny_mt5`), gpt2, llama, bert, xlm-roberta, deberta. Made once a session.
    """
    root = tmp_path_factory.mktemp("tiny")

    def make(name: str) -> Path:
        if name in ("untied", "tied", "appended"):
            return tiny_mt5(untied=name != "tied", appended=name == "appended")
        if not (root / name).is_dir():
            (root / name).mkdir()
            TOKENIZERS[name](sentences, root / name)
            random_model(name, root / name)
        return root / name

    return make
