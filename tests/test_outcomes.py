"""Facts about commands that do several things: a fault in one loses none of the others, and is said at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_compare import BASE, TUNED, run
from valueshift.cli import probing, results
from valueshift.core.errors import ValueshiftError
from valueshift.core.outcomes import Outcomes
from valueshift.core.records import find_records, read_record
from valueshift.harness_ext.probe_record import write_probe_record

AWAY = "http://127.0.0.1:9"


def full_disk(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


def ctrl_c(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def refused(*_: Any, **__: Any) -> Any:
    raise ValueshiftError("it is bad; mend it")


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)


@pytest.mark.parametrize(
    ("work", "said", "end"),
    [
        (refused, "no b: it is bad; mend it", ValueshiftError),
        (full_disk, "no b: OSError: [Errno 28] No space left on device", ValueshiftError),
        (ctrl_c, "no b: stopped", KeyboardInterrupt),
    ],
)
def test_what_was_tried_is_kept_and_said(work: Callable[[], Any], said: str, end: type[BaseException]) -> None:
    outcomes, made = Outcomes(), []
    for name, one in {"a": str, "b": work, "c": str}.items():
        with outcomes.attempt(f"no {name}"):
            one()
            made.append(name)
    assert made == ["a", "c"]
    assert outcomes.faults == [said]
    with pytest.raises(end):
        outcomes.finish()


def test_short_work_is_done_though_the_user_stops_it() -> None:
    outcomes, calls = Outcomes(), iter([ctrl_c, lambda: "written"])
    assert outcomes.insist(lambda: next(calls)()) == "written"
    with pytest.raises(KeyboardInterrupt):
        outcomes.finish()


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return tuple(write_probe_record(tmp_path / "probed", run(name, odds)) for name, odds in (("a", BASE), ("b", TUNED)))  # type: ignore[return-value]


def test_compare_goes_on_after_a_model_that_is_none(
    tmp_path: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    base, tuned = map(str, pair)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueshiftError, match="is not compared with .*empty: .*is neither a run record nor"):
        probing.compare(base, [str(tmp_path / "empty"), tuned], None, "wvs", tmp_path / "runs")
    (record,) = find_records(tmp_path / "runs", "comparison")
    assert read_record(record).settings["tuned"] == ["b"]
    assert capsys.readouterr().err.count("cannot be reached") == 1


def test_probe_keeps_and_publishes_the_set_that_was_answered(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(model: str, asked: Any, *_: Any) -> Any:
        return run("a", BASE) if asked.name == "wvs" else refused()

    monkeypatch.setattr("valueshift.harness_ext.probing.ask", ask)
    monkeypatch.setattr("valueshift.harness_ext.hub.refuse_absent", lambda *_, **__: None)
    monkeypatch.setattr("valueshift.core.probes.probe_set", lambda name: ProbeSetStub(name))
    with pytest.raises(ValueshiftError, match="there is no record of wvs_arora: it is bad; mend it"):
        probing.probe("a", None, "wvs", tmp_path / "runs", "auto", None, None, None, False, None, "sum", None, True)
    assert len(find_records(tmp_path / "runs", "probe")) == 1
    assert "MLflow at http://127.0.0.1:9 cannot be reached" in capsys.readouterr().err


class ProbeSetStub:
    """A probe set by name, whose probes nobody reads."""

    languages = ("de",)

    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize("fault", [full_disk, refused])
def test_publish_takes_what_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: Callable[..., Any]
) -> None:
    places = {name: tmp_path / name for name in ("bad", "good")}
    for place in places.values():
        place.mkdir()
    monkeypatch.setattr(
        "valueshift.harness_ext.results.read_probe_runs",
        lambda path: [run("a", BASE)] if path.name == "good" else fault(),
    )
    with pytest.raises(ValueshiftError, match="bad is not taken: "):
        results.publish([places["bad"], places["good"]], tmp_path / "runs")
    assert len(find_records(tmp_path / "runs", "probe")) == 1


def test_a_server_that_is_away_is_asked_once(
    tmp_path: Path, pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from valueshift.tracking import publish

    opened, tried = publish.opened, []
    monkeypatch.setattr(publish, "opened", lambda root, uri: tried.append(uri) or opened(root, uri))
    account = publish.publish_all(pair, tmp_path / "probed")
    assert tried == [AWAY]
    assert account.done == [] and set(account.failed) == {folder.name for folder in pair}
