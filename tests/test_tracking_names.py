"""Names and figures of a record in MLflow: any name is taken, figures are the record's, runs are named by their models."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric_name, _validate_param
from valueshift.core.digests import digest
from valueshift.core.records import RunRecord
from valueshift.tracking import schema


def record(metrics: dict[str, float] | None = None, **parts: Any) -> RunRecord:
    whole = {"kind": "comparison", "digest": "0" * 16, "inputs": {}, "versions": {}, "created": "2026-01-01T00:00:00Z"}
    return RunRecord.model_validate({**whole, "metrics": metrics or {}, **parts})


@given(st.lists(st.text(max_size=300), unique=True, max_size=20))
def test_any_name_becomes_one_that_mlflow_takes_and_none_is_lost(names: list[str]) -> None:
    cleaned = schema._distinct((name, position) for position, name in enumerate(names))
    assert list(cleaned.values()) == list(range(len(names)))
    for name in cleaned:
        _validate_metric_name(name)
        _validate_param(name, "value")
        assert len(name) <= 250


def test_a_clean_name_stays() -> None:
    for name in ("kept/de", "rho/de.DEU", "kept", "a b:c-d"):
        assert schema.clean(name) == name
    assert schema.clean("kept (%)/de@x") == "kept ___/de_x"


def test_mlflow_has_the_values_of_the_record_and_no_mean_over_countries() -> None:
    given = {"kept/de": 0.83172, "kept/fa": 0.6, "rho/de.DEU": 0.1234567, "rho_low/de.DEU": -0.2, "rho/fa.IRN": 0.5}
    found = schema.metrics(record({**given, "loss": 2.71828}))
    assert found == {"loss": 2.71828, "kept": pytest.approx((0.83172 + 0.6) / 2), **given}


def test_overview_comes_first_sums_counts_and_leaves_a_given_one_alone() -> None:
    metrics = {"questions/de": 6.0, "kept/de": 0.5, "questions/fa": 5.0, "kept": 0.25}
    assert list(schema.metrics(record(metrics)).items()) == [
        ("questions", 11.0),
        ("kept", 0.25),
        ("questions/de", 6.0),
        ("questions/fa", 5.0),
        ("kept/de", 0.5),
    ]


def test_metrics_are_bounded_and_the_description_says_how_many_are_elsewhere() -> None:
    many = record({f"kept/l{number}": 0.5 for number in range(170)}, notes=("First.", "Second."))
    names = list(schema.metrics(many))
    assert len(names) == schema.METRICS_LIMIT == 150
    assert names[0] == "kept"
    assert schema.description(many) == ("- First.\n- Second.\n- 21 more metrics are in the artifact `record.json`.")


def test_params_are_flat_short_and_name_the_model_first() -> None:
    comparison = record(
        inputs={
            "base": "b" * 16,
            "tuned": ["c" * 16, "d" * 16],
            "probes": {"fa": "1", "de": "2"},
            "seed": 0,
            "lora": {"r": 8, "targets": ["q", "v"]},
            "questions": [f"Q{number}" for number in range(200)],
            "limit": None,
        },
        settings={"base": "toy/base", "seed": 1},
        versions={"torch": "2.13.0"},
    )
    found = schema.params(comparison)
    assert found == {
        "base": "toy/base",
        "languages": "fa, de",
        "probes": digest({"fa": "1", "de": "2"}),
        "seed": "0",
        "lora.r": "8",
        "lora.targets": "q, v",
        "questions": "1088 characters, whole in record.json",
        "setting.seed": "1",
        "version.torch": "2.13.0",
    }
    assert next(iter(found)) == "base"


def test_runs_are_linked_by_the_digests_of_their_models() -> None:
    comparison = record(
        inputs={
            "base": {"digest": "b" * 16},
            "tuned": ["c" * 16, "d" * 16],
            "runs": {"base": "e" * 16, "tuned": "f" * 16},
        },
        settings={"base": "google/mt5-small", "tuned": ["x/moved", "x/other"]},
    )
    tags = schema.tags(comparison)
    assert tags["valueshift.base"] == "b" * 16
    assert tags["valueshift.tuned"] == f"{'c' * 16} {'d' * 16}"
    assert tags["valueshift.runs.base"] == "e" * 16
    assert "valueshift.model" not in tags
    assert schema.models(comparison) == {
        "b" * 16: ("mt5-small", "google/mt5-small"),
        "c" * 16: ("moved", "x/moved"),
        "d" * 16: ("other", "x/other"),
    }
    assert schema.run_name(comparison) == "moved other ← mt5-small comparison"


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"kind": "probe", "inputs": {"probes": {"de": "", "fa": ""}}, "settings": {"model": "a/m"}}, "m probe de fa"),
        ({"kind": "probe", "inputs": {"probes": dict.fromkeys("abcde", "")}}, f"{'0' * 16} probe 5 languages"),
        (
            {"kind": "finetune", "inputs": {"corpus": "tanzil", "languages": ["fa"]}, "settings": {"model": "a/m"}},
            "m finetune fa tanzil",
        ),
        ({"kind": "report", "inputs": {"runs": ["a", "b"]}}, "report of 2 runs"),
        ({"inputs": {"tuned": list("abcde")}}, "5 models comparison"),
    ],
)
def test_run_names(parts: dict[str, Any], name: str) -> None:
    assert schema.run_name(record(**parts)) == name
