"""Reading a Parquet file that others may have written, or that was damaged since."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import limits
from .errors import ValueshiftError
from .outside import regular_file

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


def read_parquet(path: Path, columns: Mapping[str, Literal["text", "number"]], remedy: str) -> "pd.DataFrame":
    """These columns of a Parquet file, without a missing value; what pandas wrote as an index is a column like others.

    Args:
        path: of the file.
        columns: by name what they hold: `text` also takes whole numbers and categories, and is given as text.
        remedy: what the user can do about it, for the message.

    Raises:
        ValueshiftError: it is no regular file, no Parquet, too large, lacks a column or holds something else in it.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    regular_file(path, remedy, limits.PARQUET_BYTES)
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > limits.PARQUET_ROWS:
                rows = f"{file.metadata.num_rows:,} rows, at most {limits.PARQUET_ROWS:,} are read"
                raise ValueshiftError(f"{path} has {rows}; {remedy}")
            schema = file.schema_arrow
            indexes = (schema.pandas_metadata or {}).get("index_columns", ())
            ranges = [index for index in indexes if isinstance(index, dict) and index.get("name") in columns]
            held = [name for name in columns if schema.names.count(name) == 1]
            table = file.read(columns=held).replace_schema_metadata(None)
            for index in ranges:  # pandas keeps an index of consecutive numbers in words only
                numbers = range(index["start"], index["stop"], index["step"])
                table = table.append_column(index["name"], pa.array(numbers, pa.int64()))
        if lacking := [name for name in columns if name not in table.column_names]:
            raise ValueshiftError(f"{path} has no column {lacking[0]}; {remedy}")
        for name, kind in columns.items():
            if not _holds(table.schema.field(name).type, kind):
                raise ValueshiftError(
                    f"{path}, column {name}: it holds {table.schema.field(name).type}, not {kind}; {remedy}"
                )
        frame = table.select(list(columns)).to_pandas()
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError, pa.ArrowException) as error:
        raise ValueshiftError(f"{path} is damaged or no Parquet file ({error}); {remedy}") from error
    if (missing := frame.isna().any(axis=1)).any():
        *names, last = columns
        raise ValueshiftError(f"{path}, row {missing.argmax() + 1}: {', '.join(names)} or {last} is missing; {remedy}")
    texts = [name for name, kind in columns.items() if kind == "text"]
    return pd.DataFrame(frame).astype(dict.fromkeys(texts, str))


def _holds(type: "pa.DataType", kind: str) -> bool:
    import pyarrow as pa

    if kind == "number":
        return bool(pa.types.is_integer(type) or pa.types.is_floating(type))
    if pa.types.is_dictionary(type):
        type = type.value_type
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(is_text(type) for is_text in texts)
