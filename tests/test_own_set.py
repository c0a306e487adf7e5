"""Facts about a user's own survey, by the worked example of the documentation."""

from collections.abc import Callable
from pathlib import Path

import pytest
from commands import typed
from valueshift.core.errors import ValueshiftError
from valueshift.core.own_set import new_probe_set
from valueshift.core.probes import probe_set
from valueshift.core.surveys import has_survey_truth, survey_truth

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "own_survey"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VALUESHIFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def example(name: str = "trains") -> None:
    new_probe_set(name, EXAMPLE / "items.csv", EXAMPLE / "probes", EXAMPLE / "shares.csv")


def test_the_example_becomes_a_probe_set_with_truth(cache: Path) -> None:
    example()
    made = probe_set("trains")
    assert made.languages == ("de", "en")
    assert [probe.question for probe in made.probes("de")] == ["T1", "T2", "T3", "T4", "T5"]
    assert made.items["T2"].excluded_codes == (9,)
    truth = survey_truth("trains")
    assert truth.profile["DEU"].to_dict() == {"T1": 0.31, "T2": 0.22, "T3": 0.58, "T4": 0.83, "T5": 0.44}
    assert "your shares" in truth.provenance and has_survey_truth("trains")


def test_lm_eval_finds_and_asks_it(cache: Path, tiny_mt5: Callable[..., Path], tmp_path: Path) -> None:
    example()
    command = ["--tasks", "trains", "--model", "hf", "--model_args", f"pretrained={tiny_mt5()}", "--device", "cpu"]
    done = typed("lm_eval", *command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "trains_de" in done.stdout and "trains_en" in done.stdout
    assert "no alignment of de with DEU: fewer than 10 common questions" in done.stderr


def test_bad_sets_are_refused_and_leave_nothing(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueshiftError, match="probe set wvs is part of valueshift"):
        example("wvs")
    with pytest.raises(ValueshiftError, match="holds no <language>.csv"):
        new_probe_set("x", EXAMPLE / "items.csv", tmp_path)
    shares = tmp_path / "shares.csv"
    for text, message in (
        ("question,DEU\nT1,1.5\n", "question T1, DEU: 1.5 is no share from 0 to 1"),
        ("question,Germany\nT1,0.5\n", "column 'Germany' is no country"),
        ("question,DEU\nT9,0.5\n", "question T9 is not in the registry"),
        ("frage,DEU\nT1,0.5\n", "is no table of shares"),
    ):
        shares.write_text(text)
        with pytest.raises(ValueshiftError, match=message):
            new_probe_set("x", EXAMPLE / "items.csv", EXAMPLE / "probes", shares)
    assert not list(cache.glob("probe_sets/*"))
