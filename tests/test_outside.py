"""JSON that others wrote: what is accepted can be encoded, hashed and walked; everything else is one sentence."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from valueshift.core.errors import ValueshiftError
from valueshift.core.limits import INTEGER, JSON_DEPTH
from valueshift.core.outside import parse_json, read_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER, INTEGER) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(VALUES)
def test_whole_json_comes_back_as_it_was(value: object) -> None:
    assert parse_json(json.dumps(value), "it", "mend it") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "it", "mend it") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ('{"a": 1', "Expecting"),
        (b"\xff", "utf-8"),
        ("[" * 100_000, "nested deeper"),
        ("[" * (JSON_DEPTH + 1) + "]" * (JSON_DEPTH + 1), "nested deeper"),
        ('{"a":' * (JSON_DEPTH + 1) + "1" + "}" * (JSON_DEPTH + 1), "nested deeper"),
        ("9" * 5000, "5000 digits"),
        (str(INTEGER + 1), "19 digits"),
        (r'"\ud800"', "surrogate"),
        (r'{"\uDfff": 1}', "surrogate"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_with_place_and_remedy(text: str | bytes, said: str) -> None:
    with pytest.raises(ValueshiftError) as refused:
        parse_json(text, "some/file.json", "mend it")
    message = str(refused.value)
    assert message.startswith("some/file.json is damaged") and said in message and message.endswith("; mend it")


@pytest.mark.parametrize("text", ["[" * JSON_DEPTH + "]" * JSON_DEPTH, r'"\ud83d\ude00"', str(-INTEGER), "1e400"])
def test_what_is_just_within_the_bounds_is_read(text: str) -> None:
    assert parse_json(text, "it", "mend it") == json.loads(text)


def test_only_regular_files_of_a_bounded_size_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_text(" " * 100)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, said in {
        "fifo": "no file",
        ".": "no file",
        "gone": "not exist",
        "large": "100 bytes",
        "loop": "cannot",
    }.items():
        with pytest.raises(ValueshiftError, match=said):
            read_json(tmp_path / name, "mend it", most=99)
    with pytest.raises(ValueshiftError, match="cannot be read"):
        read_json(tmp_path / ("n" * 5000), "mend it")
