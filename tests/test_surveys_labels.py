"""Codes, labels and countries are known however a survey file writes them."""

import csv
import json

from hypothesis import given
from hypothesis import strategies as st
from survey_files import ITEMS, PRIVATE, needs
from valueshift.core.paths import TASKS
from valueshift.core.surveys.countries import countries, country_code
from valueshift.core.surveys.importer import registry_codes
from valueshift.core.surveys.labels import Labels, normalised, number

LABELS = Labels(TASKS / "wvs" / "truth" / "labels.csv")
CODEBOOK = PRIVATE / "codebook_v5.json"


@needs(CODEBOOK)
def test_every_label_of_the_codebook_is_known() -> None:
    codebook = json.loads(CODEBOOK.read_text(encoding="utf-8"))
    wrong = [
        (variable, code, label)
        for variable in registry_codes(ITEMS)
        for code, label in codebook[variable]["choices"].items()
        if LABELS.code(variable, label) != int(code)
    ]
    assert wrong == []


def test_labels_name_only_codes_of_the_registry() -> None:
    codes = registry_codes(ITEMS)
    with (TASKS / "wvs" / "truth" / "labels.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 200
    for variable, known in codes.items():
        own = {code for _, code in LABELS._patterns.get(variable, [])}
        assert own, f"{variable} has no labels"
        assert own <= known, variable
    # scales of five codes and fewer have a label for each
    assert all({code for _, code in LABELS._patterns[v]} == known for v, known in codes.items() if len(known) <= 8)


@given(st.integers(-99, 99))
def test_codes_are_read_however_they_are_written(code: int) -> None:
    assert {LABELS.code("Q1", text) for text in (str(code), f" {code} ", f"{code}.0", f"{code},0")} == {code}


@given(st.text())
def test_any_text_is_a_code_or_none(text: str) -> None:
    assert LABELS.code("Q43", text) is None or isinstance(LABELS.code("Q43", text), int)
    assert normalised(normalised(text)) == normalised(text)
    assert number("nan") is number("1.2.3") is number("1e") is None


def test_dont_mind_is_an_answer_and_dont_know_is_not() -> None:
    assert (LABELS.code("Q43", "Don't mind"), LABELS.code("Q43", "Don’t know")) == (2, -1)


# Countries


def test_countries_are_known_by_every_code_and_name() -> None:
    assert len(countries()) == 249
    assert len({country.alpha2 for country in countries().values()}) == 249
    assert len({country.numeric for country in countries().values()}) == 249
    for country in countries().values():
        for text in (
            country.alpha3,
            country.alpha2,
            str(country.numeric),
            f"{country.numeric:03}",
            country.name.upper(),
        ):
            assert country_code(text) == country.alpha3
    assert [country_code(text) for text in ("909", "Great Britain", "Hong Kong SAR", "Viet Nam", "MOR", "826")] == [
        "NIR",
        "GBR",
        "HKG",
        "VNM",
        "MAR",
        "GBR",
    ]
    assert country_code("Atlantis") is country_code("") is country_code("0") is None


@needs(CODEBOOK)
def test_the_codebook_names_each_country_alike() -> None:
    codebook = json.loads(CODEBOOK.read_text(encoding="utf-8"))
    for variable in ("B_COUNTRY", "B_COUNTRY_ALPHA"):
        for code, name in codebook[variable]["choices"].items():
            assert country_code(code) == country_code(name) is not None, (code, name)
