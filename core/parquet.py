"""Reading a Parquet file that others may have written, or that was damaged since."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import limits
from .errors import ValueshiftError
from .outside import regular_file
from .shown import piece

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read_parquet(
    path: Path, what: str, columns: Mapping[str, Literal["text", "number"]], remedy: str
) -> "pd.DataFrame":
    """These columns of a Parquet file, without a missing value; what pandas wrote as an index is a column like others.

    Args:
        path: of the file.
        what: it should be, for the message.
        columns: by name what they hold: `text` also takes whole numbers and categories, and is given as text.
        remedy: what the user can do about it, for the message.

    Raises:
        ValueshiftError: it is no regular file, no Parquet, too large, lacks a column or holds something else in it.
    """
    import pandas as pd
    import pyarrow.parquet as pq

    regular_file(path, remedy, limits.PARQUET_BYTES)
    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            if rows > limits.PARQUET_ROWS:
                raise ValueError(f"it has {rows:,} rows, at most {limits.PARQUET_ROWS:,} are read")
            table = file.read(columns=[name for name in columns if file.schema_arrow.names.count(name) == 1])
            table = _with_range(table, columns)
        for name, kind in columns.items():
            if name not in table.column_names:
                raise ValueError(f"it has no column {name}")
            if not _holds(table.schema.field(name).type, kind):
                raise ValueError(f"column {name} holds {table.schema.field(name).type}, not {kind}")
        frame = table.select(list(columns)).replace_schema_metadata(None).to_pandas()
    except Exception as error:  # what pyarrow raises of hostile bytes has no common kind
        raise ValueshiftError(f"{path} is no {what} ({piece(error)}); {remedy}") from error
    if (missing := frame.isna().any(axis=1)).any():
        *names, last = columns
        raise ValueshiftError(f"{path}, row {missing.argmax() + 1}: {', '.join(names)} or {last} is missing; {remedy}")
    texts = [name for name, kind in columns.items() if kind == "text"]
    return pd.DataFrame(frame).astype(dict.fromkeys(texts, str))


def _with_range(table: "pa.Table", columns: Iterable[str]) -> "pa.Table":
    """With the index of consecutive numbers, which pandas does not write but in words, as a column."""
    import pyarrow as pa

    for index in (table.schema.pandas_metadata or {}).get("index_columns", ()):
        if isinstance(index, dict) and index["name"] in columns:
            numbers = range(index["start"], index["stop"], index["step"])[: table.num_rows]
            table = table.append_column(index["name"], pa.array(numbers, pa.int64()))
    return table


def _holds(type: "pa.DataType", kind: str) -> bool:
    import pyarrow as pa

    if kind == "number":
        return bool(pa.types.is_integer(type) or pa.types.is_floating(type))
    if pa.types.is_dictionary(type):
        type = type.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(is_text(type) for is_text in texts)
