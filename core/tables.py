"""Reading Parquet tables that others may have written: bounded, and with the columns that their reader relies on."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .errors import ValueshiftError
from .limits import TABLE_BYTES, TABLE_ROWS
from .outside import parse_json, regular_file
from .scores import COLUMNS, KEYS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Kind = Literal["text", "text?", "number", "number?", "whole", "whole?"]
"""What a column holds; `?` where values may be missing. Numbers are finite."""
_ROWS = 1024
"""Read at a time, so that a file that unpacks to far more than it is meets the bound."""


class Needed(NamedTuple):
    """What a reader needs of a table."""

    columns: dict[str, Kind]
    key: tuple[str, ...] = ()
    """Columns of which no two rows have the same values."""
    empty: bool = True
    """Whether it may have no rows."""


_KIND_OF: dict[str, Kind] = {"str": "text?", "Int64": "whole?", "float64": "number?"}
SCORES = Needed(
    {name: "text" if name in KEYS else _KIND_OF[kind] for name, kind in COLUMNS.items()}, tuple(KEYS), empty=False
)
EXAMPLES = Needed({"example": "text", "language": "text", "split": "text"}, ("example",))
LOSSES = Needed({"step": "whole", "epoch": "number", "split": "text", "loss": "number?"})
QUERIES = Needed(dict.fromkeys(("language", "question", "answer_tuned"), "text"), ("language", "question"))
INFLUENCE = Needed(
    {**dict.fromkeys(("language", "question", "side", "example", "train_language"), "text"), "rank": "whole"},
    ("language", "question", "side", "rank"),
)
SHARES = Needed(
    {
        **dict.fromkeys(("language", "side", "train_language"), "text"),
        **dict.fromkeys(("share", "low", "high", "base_rate", "p", "adjusted"), "number?"),
        "n": "whole",
    }
)


def read_parquet(path: Path, remedy: str, needed: Needed | None = None) -> "pd.DataFrame":
    """A Parquet table as pandas wrote it.

    Args:
        path: of the file.
        remedy: what the user can do where it is damaged, for the message.
        needed: what its reader relies on.

    Raises:
        ValueshiftError: it is missing, no regular file, damaged, too large, or lacks what is needed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    regular_file(path, remedy, TABLE_BYTES)
    try:
        file = pq.ParquetFile(path)
        if (rows := file.metadata.num_rows) > TABLE_ROWS:
            raise ValueshiftError(f"{path} has {rows:,} rows, at most {TABLE_ROWS:,} are read; {remedy}")
        if needed and (found := _unfit(file.schema_arrow)):
            raise ValueshiftError(f"{path}, {found}; {remedy}")
        batches, size = [], 0
        for batch in file.iter_batches(_ROWS):
            batches.append(batch)
            if (size := size + batch.nbytes) > TABLE_BYTES:
                raise ValueshiftError(f"{path} unpacks to more than {TABLE_BYTES:,} bytes; {remedy}")
        table: pd.DataFrame = pa.Table.from_batches(batches, file.schema_arrow).to_pandas()
        if attributes := (file.schema_arrow.metadata or {}).get(b"PANDAS_ATTRS"):
            table.attrs = dict(parse_json(attributes, f"{path}, PANDAS_ATTRS", remedy))
    except ValueshiftError:
        raise
    except Exception as error:  # pyarrow's and pandas' own of many kinds, whatever a damaged file makes of them
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise ValueshiftError(f"{path} is damaged ({reason}); {remedy}") from error
    if needed and (found := _fault(table, needed)):
        raise ValueshiftError(f"{path}, {found}; {remedy}")
    return table


def _unfit(schema: "pa.Schema") -> str | None:
    """What no table of ours has: a column twice, or one of other things than numbers, texts and times."""
    import pyarrow as pa

    kinds = ("integer", "floating", "boolean", "string", "large_string", "null", "timestamp")
    plain = [getattr(pa.types, f"is_{kind}") for kind in kinds]
    for name, kind in zip(schema.names, schema.types, strict=True):
        if schema.names.count(name) > 1:
            return f"column {name}: it is there twice"
        if not any(matches(kind.value_type if pa.types.is_dictionary(kind) else kind) for matches in plain):
            return f"column {name}: it holds {str(kind)[:60]}"
    return None


def _fault(table: "pd.DataFrame", needed: Needed) -> str | None:
    """What of a table is not as needed."""
    for name, kind in needed.columns.items():
        if name not in table.columns:
            return f"column {name}: it is missing"
        if found := _column_fault(table[name], kind):
            return f"column {name}: {found}"
    if needed.key and (doubled := table.duplicated(list(needed.key))).any():
        return f"row {int(doubled.argmax()) + 1}: the same {', '.join(needed.key)} as a row before"
    return None if needed.empty or len(table) else "it has no rows"


def _column_fault(column: "pd.Series[Any]", kind: Kind) -> str | None:
    import numpy as np
    from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype

    missing = column.isna()
    if missing.any() and not kind.endswith("?"):
        return f"row {int(missing.argmax()) + 1} has no value"
    if missing.all():
        return None
    if kind.startswith("text"):
        return None if infer_dtype(column, skipna=True) == "string" else f"it holds {column.dtype}, text is needed"
    if not is_numeric_dtype(column) or is_bool_dtype(column):
        return f"it holds {column.dtype}, numbers are needed"
    values = column[~missing].to_numpy(dtype="float64")
    wrong = ~np.isfinite(values) | ((values % 1 != 0) if kind.startswith("whole") else False)
    if wrong.any():
        return f"{values[wrong.argmax()]:g} is no {'whole number' if kind.startswith('whole') else 'finite number'}"
    return None
