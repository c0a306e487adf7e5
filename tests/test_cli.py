"""Every command as it is typed: what it prints, what it leaves, and one sentence on bad input."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import typed
from tolerances import PROBABILITY
from valueshift.core.probes import probe_set
from valueshift.core.records import find_records, read_record, read_table

pytestmark = pytest.mark.xdist_group("cli")  # what its tests share takes long to make

TinyMT5 = Callable[..., Path]


def valueshift(*arguments: object, cwd: Path, status: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    done = typed("valueshift", *arguments, cwd=cwd, **environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def probed(tiny_mt5: TinyMT5, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two models were probed in two languages."""
    folder = tmp_path_factory.mktemp("cli")
    for untied in (True, False):
        valueshift("probe", tiny_mt5(untied=untied), "--languages", "de,fa", cwd=folder)
    return folder


def test_probe_writes_a_record_publishes_it_and_says_what_next(probed: Path) -> None:
    records = find_records(probed / "runs", "probe")
    assert len(records) == 2
    record = read_record(records[0])
    assert {"p_first/de", "first_share/fa", "questions/de", "rho/de.DEU", "readings_agree/de"} <= record.metrics.keys()
    assert record.settings["reading"] == "sum" and record.inputs["format"] == "encoder-decoder"
    scores = read_table(records[0], "scores")
    assert len(scores) == 546 and scores["closing_first"].notna().all()
    assert (probed / "runs" / "mlflow.db").is_file()


def test_probe_again_does_nothing_twice_and_resumes_by_language(probed: Path, tiny_mt5: TinyMT5) -> None:
    cached = {path: path.stat().st_mtime_ns for path in (probed / "runs" / "scores").glob("*.parquet")}
    assert len(cached) == 4
    again = valueshift("probe", tiny_mt5(), "--languages", "de,fa", cwd=probed)
    assert "probe/s" not in again.stderr
    assert {path: path.stat().st_mtime_ns for path in cached} == cached


def test_probe_and_lm_eval_find_the_same(probed: Path, tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    command = ["--tasks", "wvs_de", "--model", "hf", "--model_args", f"pretrained={tiny_mt5()}", "--device", "cpu"]
    command += ["--output_path", str(tmp_path / "out"), "--log_samples", "--batch_size", "16"]
    assert typed("lm_eval", *command, cwd=tmp_path).returncode == 0
    valueshift("publish", tmp_path / "out", cwd=tmp_path)
    (record,) = find_records(tmp_path / "runs", "probe")
    stock = read_table(record, "scores").set_index("question")["p_first"]
    digest = read_record(record).inputs["model"]
    (same,) = [r for r in find_records(probed / "runs", "probe") if read_record(r).inputs["model"] == digest]
    ours = read_table(same, "scores").query("language == 'de'").set_index("question")["p_first"]
    assert stock.to_numpy() == pytest.approx(ours[stock.index].to_numpy(), **PROBABILITY)
    assert "MLflow has all records" in valueshift("publish", cwd=tmp_path).stdout


def test_compare_prints_shares_with_intervals_and_the_largest_flips(probed: Path) -> None:
    base, tuned = find_records(probed / "runs", "probe")
    done = valueshift("compare", base, tuned, cwd=probed)
    assert "Unchanged answers" in done.stdout and "Answers that flipped" in done.stdout
    (record,) = find_records(probed / "runs", "comparison")
    kept = read_table(record, "kept").set_index("language")
    one, two = (read_table(folder, "scores").set_index(["language", "question"])["answer"] for folder in (base, tuned))
    paper = [name for name, item in probe_set("wvs").items.items() if item.paper]
    same = (one == two).loc["de"]
    assert len(same) == 273 and kept.loc["de", "n"] == len(paper) == 238
    assert 0 <= kept.loc["de", "low"] <= kept.loc["de", "unchanged"] <= kept.loc["de", "high"] <= 1
    assert len(read_table(record, "flipped").query("language == 'de'")) == (~same[paper]).sum()
    assert kept.loc["de", "unchanged"] == pytest.approx(same[paper].mean())


def test_compare_takes_the_languages_that_are_asked_for(probed: Path) -> None:
    base, tuned = find_records(probed / "runs", "probe")
    valueshift("compare", base, tuned, "--languages", "fa", "--output", "one", cwd=probed)
    (record,) = find_records(probed / "one", "comparison")
    assert set(read_table(record, "kept")["language"]) == {"fa"}
    refused = valueshift("compare", base, tuned, "--languages", "tr", cwd=probed, status=2)
    assert "unknown language 'tr'; available here are de, fa" in refused.stderr


def test_compare_asks_checkpoints_that_were_not_asked_yet(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    done = valueshift("compare", tiny_mt5(), tiny_mt5(appended=True), "--languages", "de", cwd=tmp_path)
    assert "Unchanged answers" in done.stdout


def test_plain_lm_eval_is_tracked_where_mlflow_is_set(tiny_mt5: TinyMT5, probed: Path, tmp_path: Path) -> None:
    base = find_records(probed / "runs", "probe")[0]
    command = ["--tasks", "wvs_de", "--model", "hf", "--model_args", f"pretrained={tiny_mt5()}", "--device", "cpu"]

    tracked = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "VALUESHIFT_BASE": str(base)}
    off = typed("lm_eval", *command, "--limit", 5, cwd=tmp_path, VALUESHIFT_TRACKING="off", **tracked)
    assert off.returncode == 0 and "valueshift:" not in off.stderr
    assert not (tmp_path / "runs").exists()
    run = [sys.executable, "-m", "lm_eval", *command, "--batch_size", "16"]
    done = subprocess.run(run, cwd=tmp_path, env={**os.environ, **tracked}, capture_output=True, text=True, check=True)
    said = done.stderr
    (record,) = find_records(tmp_path / "runs", "probe")
    assert f"{record.relative_to(tmp_path)} is in MLflow: sqlite:///{tmp_path}/mlflow.db" in said
    assert "kept/de" in read_record(record).metrics
    assert len(find_records(tmp_path / "runs", "comparison")) == 1


def test_a_server_that_is_away_costs_nothing(tiny_mt5: TinyMT5, tmp_path: Path, nowhere: str) -> None:
    away = {"MLFLOW_TRACKING_URI": f"http://{nowhere}"}
    done = valueshift("probe", tiny_mt5(), "--languages", "de", "--limit", 20, cwd=tmp_path, **away)
    assert "valueshift publish" in done.stderr
    assert len(find_records(tmp_path / "runs")) == 1
    assert "Sent 1 records" in valueshift("publish", cwd=tmp_path).stdout


def test_probes_check_passes_everything_packaged_and_names_faults(tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("valueshift"))
    done = subprocess.run([script, "probes", "check"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "16 languages x 273 questions" in done.stdout
    (tmp_path / "de.csv").write_text("question,text,first,second,reviewed,note\nQ1,ohne Maske,a,b,,\n")
    bad = valueshift("probes", "check", tmp_path, cwd=tmp_path, status=2)
    assert "no [MASK] in the text" in bad.stdout and "faults in" in bad.stderr


def test_probes_check_shows_token_balance(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    done = valueshift("probes", "check", "--tokenizer", tiny_mt5(), cwd=tmp_path)
    assert "Tokens of the options" in done.stdout and "equally many" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("probe", "nowhere", "--languages", "de"), "give a checkpoint folder or a hub name"),
        (("probe", "MODEL", "--languages", "xx"), "unknown language 'xx'; available here are"),
        (("probe", "MODEL", "--probe-set", "wvs_arora"), "valueshift probes import PATH"),
        (("probe", "MODEL", "--batch-size", "0"), "batch size '0' is neither auto nor a positive number"),
        (("probe", "MODEL", "--dtype", "float16"), "float16"),
        (("probe", "MODEL", "--reading", "best"), "unknown reading 'best'"),
        (("probe", "MODEL", "--languages", "de", "--limit", "3", "--country", "de=Germany"), "write LANGUAGE=ISO3"),
        (("probe", "MODEL", "--output", "FILE"), "cannot write"),
        (("ui", "--output", "nowhere"), "nowhere is no folder"),
        (("publish", "--output", "EMPTY"), "holds no run record"),
        (("report", "FILE"), "is no run record"),
        (("compare", "EMPTY", "EMPTY"), "is neither a run record nor an lm-eval results folder"),
        (("publish", "EMPTY"), "is neither a run record nor an lm-eval results folder"),
        (("probes", "import"), "give either the PATH"),
        (("probes", "import", "EMPTY"), "holds no wvs/<language>.csv"),
        (("survey", "import", "FILE"), "is no WVS wave 7 file"),
        (("corpus", "import", "poems", "EMPTY"), "unknown kind of corpus 'poems'"),
        (("toy", "build", "--output", "EMPTY/..", "--languages", "de"), ""),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(
    arguments: tuple[str, ...], message: str, tiny_mt5: TinyMT5, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "survey.csv").write_text("a;b\n1;2\n")
    places = {"MODEL": str(tiny_mt5()), "EMPTY": str(tmp_path / "empty"), "FILE": str(tmp_path / "survey.csv")}
    shown = [places.get(part, part.replace("EMPTY", places["EMPTY"])) for part in arguments]
    cache = str(tmp_path / "cache")
    done = valueshift(*shown, cwd=tmp_path, status=2, VALUESHIFT_CACHE=cache)
    assert message in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_read_only_runs_folder_is_said(tiny_mt5: TinyMT5, tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file, no folder")
    done = valueshift("probe", tiny_mt5(), "--languages", "de", "--limit", 3, cwd=tmp_path, status=2)
    assert "cannot write" in done.stderr and "runs" in done.stderr
