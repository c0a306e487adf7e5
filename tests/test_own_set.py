"""Facts about a user's own survey, by the worked example of the documentation."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from commands import typed
from typer.testing import CliRunner
from valueshift.cli.app import app
from valueshift.cli.comparison import print_comparison
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.own_set import new_probe_set
from valueshift.core.probes import PROBE_HEADER, Item, other_wording, probe_set
from valueshift.core.records import read_record
from valueshift.core.scores import answer, p_first, scores_frame
from valueshift.core.surveys import has_survey_truth, survey_truth
from valueshift.harness_ext.comparison import compare
from valueshift.harness_ext.probe_record import write_probe_record
from valueshift.harness_ext.results import ProbeRun

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


ASKED = [f"X{number}" for number in range(12)]


def survey_of_two_countries(folder: Path, languages: tuple[str, ...], countries: tuple[str, ...]) -> None:
    """The probe set `x`: twelve questions that nobody was asked, in batteries of two."""
    (folder / "probes").mkdir(parents=True)
    items = [",".join(Item.model_fields)]
    items += [f"{name},Example,{name},1,Made up,1,2,,,m,yes {n // 2},no {n // 2},no," for n, name in enumerate(ASKED)]
    (folder / "items.csv").write_text("\n".join(items))
    for language in languages:
        rows = [f"{name},{name} {language} [MASK],yes,no,," for name in ASKED]
        (folder / "probes" / f"{language}.csv").write_text("\n".join([",".join(PROBE_HEADER), *rows]))
    shares = [
        f"{name},{','.join(f'{(7 * n + 3 * k) % 12 / 12:.3f}' for k in range(len(countries)))}"
        for n, name in enumerate(ASKED)
    ]
    (folder / "shares.csv").write_text("\n".join([",".join(["question", *countries]), *shares]))
    new_probe_set("x", folder / "items.csv", folder / "probes", folder / "shares.csv")


def run(seed: int, languages: tuple[str, ...], settings: dict[str, object]) -> ProbeRun:
    odds = np.random.default_rng(seed).normal(size=(len(languages), len(ASKED)))
    rows: list[dict[str, object]] = [
        {"probe_set": "x", "language": language, "question": name, "category": 1}
        | {"logprob_first": odds[k, n] - 9, "logprob_second": -9.0}
        | {"p_first": p_first(odds[k, n], 0.0), "answer": answer(odds[k, n], 0.0)}
        for k, language in enumerate(languages)
        for n, name in enumerate(ASKED)
    ]
    inputs = {"model": digest(seed), "probe_set": "x", "probes": dict.fromkeys(languages, "as they are worded")}
    return ProbeRun(f"m{seed}", {**inputs, "format": "causal", "dtype": "float32"}, settings, scores_frame(rows))


@pytest.mark.parametrize(
    ("languages", "countries", "chosen", "own"),
    [
        (("de", "en"), ("DEU", "USA"), {}, {"de.DEU", "en.USA"}),
        (("de", "fr"), ("DEU", "FRA"), {}, {"de.DEU", "fr.FRA"}),
        (("fr", "es"), ("FRA", "ESP"), {}, {"fr.FRA", "fr.ESP", "es.FRA", "es.ESP"}),
        (("fr", "es"), ("FRA", "ESP"), {"fr": ["FRA"], "es": ["ESP"]}, {"fr.FRA", "es.ESP"}),
        (("de",), ("DEU", "AUT"), {"de": ["DEU", "AUT"]}, {"de.DEU", "de.AUT"}),
        (("de",), ("DEU", "AUT"), {}, {"de.DEU"}),
        (("de",), ("AUT", "CHE"), {}, set()),
    ],
)
def test_no_country_of_an_own_survey_is_lost_in_a_comparison(
    cache: Path,
    tmp_path: Path,
    languages: tuple[str, ...],
    countries: tuple[str, ...],
    chosen: dict[str, list[str]],
    own: set[str],
) -> None:
    survey_of_two_countries(tmp_path / "input", languages, countries)
    record = read_record(write_probe_record(tmp_path, run(1, languages, {}), countries=chosen))
    assert {name.removeprefix("rho/") for name in record.metrics if name.startswith("rho/")} == own
    base, tuned = run(1, languages, record.settings), run(2, languages, record.settings)
    folder, tables = compare(base, tuned, tmp_path)
    changes = tables["alignment_change"]
    assert {*zip(changes["language"], changes["country"], strict=True)} == {*product(languages, countries)}
    metrics = read_record(folder).metrics
    assert {name.removeprefix("rho_change/") for name in metrics if name.startswith("rho_change/")} == own
    print_comparison("base", "tuned", tables, ())


def test_a_country_that_a_record_states_is_one(cache: Path, tmp_path: Path) -> None:
    survey_of_two_countries(tmp_path / "input", ("de",), ("DEU", "AUT"))
    for stated in ({"de": "DEU"}, ["de"], "de=Austria", 7):
        with pytest.raises(ValueshiftError, match="names no country"):
            compare(run(1, ("de",), {"countries": stated}), run(2, ("de",), {}), tmp_path)


@pytest.mark.parametrize(("name", "other"), [("wvs", "wvs_arora"), ("wvs_arora", "wvs")])
def test_the_other_wording_is_of_the_same_items(name: str, other: str) -> None:
    assert other_wording(name) == other


@pytest.mark.parametrize("name", ["trains", "hofstede_arora"])
def test_a_set_without_another_wording_is_not_asked_in_that_of_another_survey(cache: Path, name: str) -> None:
    example()
    done = CliRunner().invoke(app, ["probe", "nowhere", "--probe-set", name, "--paraphrase"])
    assert isinstance(done.exception, ValueshiftError)
    assert str(done.exception) == f"probe set {name} has no other wording; leave --paraphrase out"
