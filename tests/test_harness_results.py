"""What lm-eval saves is found wherever its options put it, and read whatever is wrong with it."""

import copy
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from valueshift.core.digests import digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.limits import JSON_LINE_BYTES
from valueshift.core.probes import Probe, probe_set
from valueshift.harness_ext.probe_record import write_probe_record
from valueshift.harness_ext.probing import run_of
from valueshift.harness_ext.results import read_probe_runs, runs_from_samples, single_run

FIRST, SECOND = "2026-01-01T10-00-00.000001", "2026-01-02T10-00-00.000001"


@cache
def probes(language: str) -> list[Probe]:
    return probe_set("wvs").probes(language)


def sample(language: str = "de", place: int = 0, first: Any = "-1.5", second: Any = "-2.5") -> dict[str, Any]:
    """A sample as lm-eval 0.4.13 saves it."""
    probe = probes(language)[place]
    asked = {"format": "causal", "model_digest": "0123456789abcdef", "tokens_first": 1, "tokens_second": 2}
    return {
        "doc_id": place,
        "doc": {**probe.model_dump(), **asked, "exact": True},
        "target": "0",
        "resps": [[[first, "False"]], [[second, "False"]]],
        "filter": "none",
        "p_first": math.nan,
    }


THEIRS = {"doc_id": 0, "doc": {"question": "2 + 2?\u2028", "answer": "4\x85"}, "resps": [[["4"]]], "filter": "none"}


def samples(language: str, shift: float = 0, n: int = 20) -> list[dict[str, Any]]:
    return [sample(language, place, str(shift - place % 7 - 1), "-3.5") for place in range(n)]


def write(
    folder: Path,
    tasks: Mapping[str, list[Any]],
    date: str = FIRST,
    name: str = "results",
    model: str = "org/model",
    **content: Any,
) -> Path:
    """Results and samples as `lm_eval --log_samples` names and writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    configs = {
        task: {"task": task, "metadata": {"version": 1.0, **({"probes_digest": "x"} if "wvs" in task else {})}}
        for task in tasks
    }
    results = {
        "results": {task: {"rho_DEU,none": math.nan} for task in tasks},
        "configs": configs,
        "n-samples": {task: {"original": 273, "effective": len(rows)} for task, rows in tasks.items()},
        "config": {"model": "hf", "model_args": {"pretrained": model}, "model_dtype": "torch.float32"}
        | {"batch_size": "16", "device": "cpu"},
        "chat_template": None,
        "system_instruction": None,
        **content,
    }
    path = folder / f"{name}_{date}.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    for task, rows in tasks.items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"samples_{task}_{date}.jsonl").write_text(lines, encoding="utf-8", newline="\n")
    return path


# Found wherever lm-eval's options put them


@pytest.mark.parametrize(
    ("folder", "name", "given"),
    [
        ("out/org__model", "results", "out"),  # --output_path out
        ("out/org__model", "results", "out/org__model"),
        ("out", "run1", "out/run1.json"),  # --output_path out/run1.json, which lm-eval does not write
        ("out", "run1", "out"),
        ("out", "results", "out/results.json"),
        ("out v1.5/[a]*", "results", "out v1.5"),
        ("out v1.5/[a]*", "run [1]*", "out v1.5/[a]*/run [1]*.json"),
        ("out", "run1", f"out/run1_{FIRST}.json"),
        ("out", "run1_2026-01-01T10-00-00", "out/run1_2026-01-01T10-00-00.json"),
    ],
)
def test_results_are_found_by_the_path_that_lm_eval_was_given(
    folder: str, name: str, given: str, tmp_path: Path
) -> None:
    write(tmp_path / folder, {"wvs_de": samples("de"), "wvs_fa": samples("fa", n=5)}, name=name)
    run = run_of(str(tmp_path / given), "wvs", None, tmp_path)
    assert run.scores.groupby("language", sort=False).size().to_dict() == {"de": 20, "fa": 5}
    assert run.name == "org/model"
    assert run.settings["engine"] == "lm-eval hf" and "template" not in run.settings


def test_what_is_of_other_suites_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    write(out / "a", {"their_group_wvs_de": samples("de"), "gsm8k": [THEIRS] * 3})
    write(out / "b", {"gsm8k": [THEIRS]}, SECOND)
    (out / f"notes_{SECOND}.json").write_text("[1, 2]")
    (out / "a" / f"samples_other_{FIRST}.jsonl").write_bytes(b'{"doc": \xff\n{]\n')
    (run,) = read_probe_runs(out)
    assert len(run.scores) == 20
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and any("these are results of other tasks" in line for line in said)
    assert any(f"notes_{SECOND}.json has no config and configs" in line for line in said)


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    odd = sample()
    odd["doc"]["text"] = "Eins\u2028zwei\x85drei\x0b [MASK]."
    write(tmp_path, {"wvs_de": [odd, *samples("de")[1:]]})
    (run,) = read_probe_runs(tmp_path)
    assert len(run.scores) == 20


def test_of_a_call_that_was_repeated_the_newest_is_taken_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"wvs_de": samples("de")})
    newest = write(tmp_path, {"wvs_de": samples("de", shift=-0.25)}, SECOND)
    (run,) = read_probe_runs(tmp_path)
    assert run.source == newest and run.scores["logprob_first"].iloc[0] == -1.25
    assert [record.getMessage() for record in caplog.records] == [
        f"2 results of the same run; the newest is taken: {newest}"
    ]


def test_runs_that_differ_are_listed(tmp_path: Path) -> None:
    paths = [
        write(tmp_path, {"wvs_de": samples("de")}),
        write(tmp_path, {"wvs_de": samples("de", n=10)}, SECOND, model="b"),
    ]
    with pytest.raises(ValueshiftError, match="holds 2 probe runs, 2 of them: give one of ") as raised:
        run_of(str(tmp_path), "wvs", None, tmp_path)
    assert all(str(path) in str(raised.value) for path in paths)
    assert single_run(read_probe_runs(paths[0]), paths[0]).name == "org/model"


def test_records_beside_results_and_in_the_folder_alone(tmp_path: Path) -> None:
    results = write(tmp_path / "out", {"wvs_de": samples("de")})
    (run,) = read_probe_runs(results)
    record = write_probe_record(tmp_path / "out", run)
    assert [found.source for found in read_probe_runs(tmp_path / "out")] == [results]
    assert [found.source for found in read_probe_runs(record)] == [record]
    alone = shutil.copytree(record, tmp_path / "runs" / record.name)
    with pytest.raises(ValueshiftError, match=f"give one of the records in it: {alone.name}"):
        read_probe_runs(tmp_path / "runs")


def test_samples_that_were_not_logged_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = write(tmp_path, {"wvs_de": samples("de"), "wvs_fa": samples("fa")})
    (tmp_path / f"samples_wvs_fa_{FIRST}.jsonl").unlink()
    (run,) = read_probe_runs(tmp_path)
    assert set(run.scores["language"]) == {"de"}
    assert f"{results} has no samples of wvs_fa beside it; run lm_eval again with --log_samples" in caplog.text
    (tmp_path / f"samples_wvs_de_{FIRST}.jsonl").unlink()
    with pytest.raises(ValueshiftError, match=r"has no samples of wvs_de beside.* has no samples of wvs_fa beside it"):
        read_probe_runs(tmp_path)


def test_several_processes_leave_the_order_of_one(tmp_path: Path) -> None:
    write(tmp_path / "one", {"wvs_de": samples("de")})
    rows = samples("de")
    write(tmp_path / "two", {"wvs_de": rows[::2] + rows[1::2]})
    one, two = (read_probe_runs(tmp_path / name)[0] for name in ("one", "two"))
    assert one.inputs == two.inputs and one.scores.equals(two.scores)


def test_one_set_of_two_is_chosen_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = [{**row, "doc": {**row["doc"], "probe_set": "wvs_arora"}} for row in samples("de")]
    write(tmp_path, {"wvs_de": samples("de"), "wvs_arora_de": other})
    for name in ("wvs", "wvs_arora"):
        assert run_of(str(tmp_path), name, None, tmp_path).inputs["probe_set"] == name


# What a run was asked with


@pytest.mark.parametrize("how", [{"chat_template": "{{ x }}"}, {"system_instruction": "Be brief."}])
def test_a_template_is_recorded_as_ignored(how: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path, {"wvs_de": samples("de")}, **how)
    (run,) = read_probe_runs(tmp_path)
    assert run.settings["template"] == "ignored"
    assert runs_from_samples(how, samples("de"), "this run")[0].settings["template"] == "ignored"


def test_a_sample_says_that_its_template_was_ignored() -> None:
    asked = [{**row, "doc": {**row["doc"], "template": "ignored"}} for row in samples("de")]
    assert runs_from_samples({}, asked, "this run")[0].settings["template"] == "ignored"


def test_a_task_without_a_number_says_why(tmp_path: Path) -> None:
    results = write(tmp_path, {"wvs_de": [{"doc_id": 0, "doc": {"unanswered": "no sentinels"}}]})
    content = json.loads(results.read_text())
    content["configs"]["wvs_de"]["metadata"]["unanswered"] = "no sentinels"
    results.write_text(json.dumps(content))
    with pytest.raises(ValueshiftError, match=r"wvs_de has no number \(no sentinels\)"):
        read_probe_runs(tmp_path)


@pytest.mark.parametrize(
    "config", [{}, {"model_args": 3}, {"model_args": ["a"]}, {"model_args": {"pretrained": ["x"]}, "batch_size": [1]}]
)
def test_a_configuration_of_any_shape_gives_a_record(config: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, {"wvs_de": samples("de")}, config=config)
    (run,) = read_probe_runs(tmp_path)
    assert write_probe_record(tmp_path / "runs", run).is_dir()


# Log-probabilities


@pytest.mark.parametrize(
    ("first", "second", "answer", "p"),
    [
        ("nan", "-1.0", None, math.nan),
        (-1.0, math.nan, None, math.nan),
        ("-inf", "-1", "second", 0.0),
        (-1, "-Infinity", "first", 1.0),
        ("-inf", "-inf", None, math.nan),
        ("-1", "-1", None, 0.5),
    ],
)
def test_a_question_without_a_number_stays_and_is_unanswered(
    first: Any, second: Any, answer: str | None, p: float, tmp_path: Path
) -> None:
    write(tmp_path, {"wvs_de": [sample("de", 0, first, second), *samples("de")[1:]]})
    (run,) = read_probe_runs(tmp_path)
    row = run.scores.iloc[0]
    assert len(run.scores) == 20 and row["p_first"] == pytest.approx(p, nan_ok=True)
    assert (None if row.isna()["answer"] else row["answer"]) == answer
    assert write_probe_record(tmp_path / "runs", run).is_dir()


# Whatever is wrong with them: one sentence that names file, line and field

MISSING = object()


def changed(field: str, value: Any) -> dict[str, Any]:
    """A sample whose field is another."""
    whole = copy.deepcopy(sample("de", 1))
    *path, last = field.split(".")
    inner = whole
    for part in path:
        inner = inner[part]
    if value is MISSING:
        del inner[last]
    else:
        inner[last] = value
    return whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(f"doc.{name}", MISSING) for name in ("question", "language", "text", "first", "format", "model_digest")],
        *[(f"doc.{name}", value) for name in ("question", "text", "first") for value in (None, 3, [], {"a": 1})],
        *[("doc.language", value) for value in ("../../x", "d\x1be", "deu", 7)],
        *[("doc.tokens_first", value) for value in ("many", 0, -1, 1.5, [1])],
        *[("doc.format", value) for value in ("poem", None, ["causal"])],
        ("doc.category", "one"),
        ("doc.text", "no mask"),
        ("doc.first", " "),
        ("doc_id", "a"),
        *[("resps", value) for value in (MISSING, None, 3, [], {}, [[]], [[[-1.0, True]]], "ab", [[], []])],
        *[("resps", [[[value, True]], [[-1.0, True]]]) for value in ("", "x", None, [], "inf", math.inf, {})],
        ("resps", [[[-1.0, True]]] * 3),
        ("resps", [[-1.0], [-2.0]]),
    ],
)
def test_a_damaged_sample_is_named(field: str, value: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = samples("de")
    rows[1] = changed(field, value)
    write(tmp_path, {"wvs_de": rows})
    file = tmp_path / f"samples_wvs_de_{FIRST}.jsonl"
    with pytest.raises(ValueshiftError) as raised:
        read_probe_runs(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{file}, line 2, {field.split('.')[0]}") and message.endswith("; run lm_eval again")
    write(tmp_path, {"wvs_fa": samples("fa")}, SECOND)
    assert [set(run.scores["language"]) for run in read_probe_runs(tmp_path)] == [{"fa"}]
    assert "left out: " in caplog.text and str(file) in caplog.text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"doc": {"probe_set": "wvs"', "is damaged"),
        (b'{"doc": {"probe_set": "\xff"}}', "is damaged"),
        (b'{"doc": {"probe_set": "\\ud800"}}', "half a surrogate pair"),
        (b'{"doc": {"probe_set": "wvs", "category": ' + b"9" * 5000 + b"}}", "an integer of 5000 digits"),
        (b'{"doc": {"probe_set": ' + b"[" * 5000 + b"]" * 5000 + b"}}", "nested deeper"),
        (b'{"doc": {"probe_set": "' + b"x" * JSON_LINE_BYTES + b'"}}', "which no sample has"),
    ],
)
def test_a_damaged_line_is_named(line: bytes, said: str, tmp_path: Path) -> None:
    write(tmp_path, {"wvs_de": samples("de")})
    file = tmp_path / f"samples_wvs_de_{FIRST}.jsonl"
    file.write_bytes(file.read_bytes() + line + b"\n")
    with pytest.raises(ValueshiftError, match=said) as raised:
        read_probe_runs(tmp_path)
    assert f"{file}, line 21" in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"null",
        b"\xff",
        b"[" * 9000,
        b'{"config": {}}',
        b'{"config": [], "configs": {}}',
        b'{"config": {}, "configs": 3}',
        b'{"config": {"model": "\\udc80"}, "configs": {}}',
    ],
)
def test_damaged_results_are_named_and_others_read(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, {"wvs_de": samples("de")})
    path.write_bytes(content)
    with pytest.raises(ValueshiftError, match=path.name):
        read_probe_runs(tmp_path)
    write(tmp_path, {"wvs_fa": samples("fa")}, SECOND)
    assert len(read_probe_runs(tmp_path)) == 1
    assert path.name in caplog.text


@pytest.mark.parametrize("counts", [{}, [], {"wvs_de": 3}, {"wvs_de": {"effective": "x"}}, None])
def test_counts_of_any_shape_are_no_counts(counts: Any, tmp_path: Path) -> None:
    write(tmp_path, {"wvs_de": samples("de")}, **{"n-samples": counts})
    assert len(read_probe_runs(tmp_path)[0].scores) == 20


def test_samples_that_a_full_disk_cut_off_are_no_whole_language(tmp_path: Path) -> None:
    write(tmp_path, {"wvs_de": samples("de")}, **{"n-samples": {"wvs_de": {"original": 273, "effective": 273}}})
    with pytest.raises(ValueshiftError, match="says 273 samples of wvs_de, its file has 20; run lm_eval again"):
        read_probe_runs(tmp_path)


@pytest.mark.parametrize("name", [f"results_{SECOND}.json", f"samples_wvs_fa_{FIRST}.jsonl"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_ends_nothing(
    name: str, make: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {"wvs_de": samples("de")})
    make(tmp_path / name)
    assert len(read_probe_runs(tmp_path)) == 1
    assert f"{name} is no file" in caplog.text


def test_two_samples_of_one_question_are_one_or_refused(tmp_path: Path) -> None:
    write(tmp_path, {"wvs_de": samples("de"), "their_wvs_de": samples("de")})
    assert len(read_probe_runs(tmp_path)[0].scores) == 20
    write(tmp_path, {"wvs_de": samples("de"), "their_wvs_de": samples("de", shift=-1)})
    with pytest.raises(ValueshiftError, match="two samples of question Q1 in de of wvs, which differ"):
        read_probe_runs(tmp_path)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["doc_id", "resps", *(f"doc.{name}" for name in sample()["doc"])]


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(FIELDS), ANYTHING)
@example("doc.tokens_first", 2**63)  # an integer, but none that a table holds
@example("doc.category", 2**64)
def test_a_sample_of_any_shape_is_read_or_refused(field: str, value: Any) -> None:
    try:
        (run,) = runs_from_samples({}, [changed(field, value)], "here")
    except ValueshiftError as error:
        assert str(error).startswith("here, sample 0")
    else:
        assert len(run.scores) == 1 and digest(run.inputs)
