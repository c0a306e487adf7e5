"""Facts about the contracts of core/: records are whole or absent, digests are of content, scores are stable."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.special import softmax
from valueshift.core.digests import digest, model_digest
from valueshift.core.errors import ValueshiftError
from valueshift.core.files import whole_file, whole_folder
from valueshift.core.languages import FINETUNING_LANGUAGES, LANGUAGES, TEST_LANGUAGES, parse_languages
from valueshift.core.records import find_records, read_record, read_table, record_folder, write_record
from valueshift.core.scores import COLUMNS, answer, p_first, scores_frame
from valueshift.core.sentinels import resolve_sentinels

log_probability = st.floats(-1e4, 0, allow_nan=False)


@given(log_probability, log_probability)
def test_p_first_is_the_softmax_of_scipy(first: float, second: float) -> None:
    assert p_first(first, second) == pytest.approx(softmax([first, second])[0], abs=1e-12)


@given(log_probability, log_probability, st.floats(-100, 100))
def test_swapping_mirrors_and_adding_a_constant_changes_nothing(first: float, second: float, constant: float) -> None:
    assert p_first(first, second) + p_first(second, first) == pytest.approx(1, abs=1e-15)
    assert p_first(first + constant, second + constant) == pytest.approx(p_first(first, second), abs=1e-9)


def test_p_first_of_extreme_differences_is_finite() -> None:
    assert p_first(-1e308, 0) == 0.0
    assert p_first(0, -1e308) == 1.0


def test_an_exact_tie_has_no_answer() -> None:
    assert [answer(-1, -2), answer(-2, -1), answer(-1.5, -1.5)] == ["first", "second", None]


def test_scores_frame_has_all_columns_and_null_for_what_was_not_asked() -> None:
    frame = scores_frame([{"probe_set": "wvs", "language": "de", "question": "Q1", "p_first": 0.5, "answer": None}])
    assert list(frame.columns) == list(COLUMNS)
    assert frame["answer"].isna().all() and frame["closing_first"].isna().all()
    assert frame["p_first"].tolist() == [0.5]


def test_the_papers_languages() -> None:
    assert len(TEST_LANGUAGES) == 13 and len(LANGUAGES) == 16
    assert set(FINETUNING_LANGUAGES) <= set(LANGUAGES)
    assert parse_languages("fa,de,fa", TEST_LANGUAGES) == ("fa", "de")
    assert parse_languages(None, ("de",)) == ("de",)
    with pytest.raises(ValueshiftError, match="unknown language 'xx'; available here are de, fa"):
        parse_languages("de,xx", ("de", "fa"))


def test_a_record_reads_back_and_the_same_inputs_have_the_same_folder(tmp_path: Path) -> None:
    inputs = {"model": "abc", "probe_set": "wvs"}
    table = pd.DataFrame({"question": ["Q1"], "p_first": [0.25]})
    folder = write_record(tmp_path, "probe", inputs, {"scores": table}, metrics={"p_first/de": 0.25})
    assert folder == record_folder(tmp_path, "probe", dict(reversed(inputs.items())))
    assert read_record(folder).metrics == {"p_first/de": 0.25}
    pd.testing.assert_frame_equal(read_table(folder, "scores"), table)
    assert find_records(tmp_path) == [folder]


def test_a_record_that_says_the_same_is_kept_and_another_replaces_it(tmp_path: Path) -> None:
    table = pd.DataFrame({"x": [0.1, None], "name": ["a", None]})

    def written(table: pd.DataFrame, **metrics: float) -> str:
        folder = write_record(tmp_path, "probe", {"a": (1, 2)}, {"scores": table}, metrics=metrics)
        return (folder / "record.json").read_text()

    first = written(table, p=0.5)
    assert written(table.copy(), p=0.5) == first, "its time included"
    assert written(table, p=0.25) != first
    second = written(table, p=0.5)
    assert written(table.assign(x=0.2), p=0.5) != second


def test_unreadable_records_are_named(tmp_path: Path) -> None:
    folder = write_record(tmp_path, "probe", {"a": 1}, {"scores": pd.DataFrame({"x": [1]})})
    content = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**content, "schema_version": 99}))
    with pytest.raises(ValueshiftError, match="schema 99.*upgrade"):
        read_record(folder)
    (folder / "record.json").write_text(json.dumps({**content, "surprise": 1}))
    with pytest.raises(ValueshiftError, match="surprise"):
        read_record(folder)
    (folder / "record.json").write_text("{")
    with pytest.raises(ValueshiftError, match="damaged"):
        read_record(folder)
    with pytest.raises(ValueshiftError, match="no run record"):
        read_record(tmp_path)


def test_a_record_without_its_table_is_refused(tmp_path: Path) -> None:
    folder = write_record(tmp_path, "probe", {"a": 1}, {"scores": pd.DataFrame({"x": [1]})})
    (folder / "scores.parquet").unlink()
    with pytest.raises(ValueshiftError, match="lacks scores.parquet"):
        read_record(folder)


def test_an_interrupted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with whole_folder(target) as temporary:
        (temporary / "a").write_text("old")
    with pytest.raises(RuntimeError), whole_folder(target) as temporary:
        (temporary / "a").write_text("new")
        raise RuntimeError
    assert (target / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_kill_9_while_writing_leaves_no_half_record(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from valueshift.core.files import whole_file\n"
        "with whole_file(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "record.json")])
    assert done.returncode == -9
    assert not (tmp_path / "record.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueshiftError, match=r"cannot write .*out.*No space left"), whole_file(tmp_path / "out"):
        with Path("/dev/full").open("w") as stream:
            stream.write("x" * 100_000)
            stream.flush()
    assert not (tmp_path / "out").exists()


def test_a_place_that_is_no_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueshiftError, match="cannot write"):
        write_record(tmp_path / "file", "probe", {}, {})


def _checkpoint(folder: Path, weights: dict[str, np.ndarray], **config: object) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"model_type": "mt5", **config}))
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_model_digest_is_of_its_content(tmp_path: Path) -> None:
    a, b = np.arange(6.0).reshape(2, 3), np.ones(2)
    one = _checkpoint(tmp_path / "one", {"a": a, "b": b}, transformers_version="5", _name_or_path="x")
    two = _checkpoint(tmp_path / "two", {"a": a, "b": b}, transformers_version="4")
    assert model_digest(one) == model_digest(two)
    shards = _checkpoint(tmp_path / "shards", {"a": a})
    save_file({"b": b}, shards / "model-2.safetensors")
    assert model_digest(shards) == model_digest(one)
    other = _checkpoint(tmp_path / "other", {"a": a, "b": 2 * b})
    reshaped = _checkpoint(tmp_path / "reshaped", {"a": a.reshape(3, 2), "b": b})
    configured = _checkpoint(tmp_path / "configured", {"a": a, "b": b}, d_model=3)
    assert len({model_digest(folder) for folder in (one, other, reshaped, configured)}) == 4


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueshiftError, match="is no model: it has no config.json"):
        model_digest(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueshiftError, match="has no weights"):
        model_digest(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(
        len(header := b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}').to_bytes(8, "little") + header
    )
    with pytest.raises(ValueshiftError, match="model.safetensors is damaged or truncated"):
        model_digest(tmp_path)


def test_digest_refuses_nan_and_ignores_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    assert len(digest({})) == 16
    with pytest.raises(ValueError):
        digest({"a": math.nan})


class FakeTokenizer:
    """A tokenizer that knows these pieces."""

    unk_token_id = 2
    name_or_path = "fake"

    def __init__(self, pieces: dict[str, int]) -> None:
        self.pieces = pieces

    def convert_tokens_to_ids(self, piece: str) -> int:
        return self.pieces.get(piece, self.unk_token_id)


def test_sentinels_inside_the_vocabulary_win_over_appended_ones() -> None:
    pieces = {f"▁<extra_id_{i}>": 99 - i for i in range(3)} | {f"<extra_id_{i}>": 100 + i for i in range(3)}
    sentinels = resolve_sentinels(FakeTokenizer(pieces), rows=112)
    assert sentinels.ids == (99, 98, 97) and sentinels.needs_space


def test_sentinels_of_t5_need_no_space() -> None:
    sentinels = resolve_sentinels(FakeTokenizer({"<extra_id_0>": 32099, "<extra_id_1>": 32098}), rows=32128)
    assert sentinels.ids == (32099, 32098) and not sentinels.needs_space


def test_a_sentinel_past_the_embedding_or_none_is_refused() -> None:
    with pytest.raises(ValueshiftError, match="as id 32100, but the embedding has 32100 rows"):
        resolve_sentinels(FakeTokenizer({"<extra_id_0>": 32100}), rows=32100)
    with pytest.raises(ValueshiftError, match="has no sentinel <extra_id_0>"):
        resolve_sentinels(FakeTokenizer({}), rows=10)


def test_the_hook_adds_no_module_but_its_own_to_an_unrelated_process() -> None:
    code = "import sys; print(*[name for name in sys.modules if name.startswith(('valueshift', 'lm_eval'))])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.sep, check=True)
    assert loaded.stdout.split() == ["valueshift_lm_eval"]
