"""The file format of an exported state."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pyarrow as pa

from episodes_assets.input.files import BadRow, read_input_file

_SCHEMA = pa.schema([pa.field("epid", pa.int64(), nullable=False), ("tracked_on", pa.date32())])
_IN_MEMORY = pa.schema({"epid": pa.int64(), "tracked_on": pa.timestamp("s")})


def read_state(path: Path, as_of: dt.date) -> pd.DataFrame:
    """A state as `import_state` wants it.

    Args:
        path: CSV or Parquet; a missing `tracked_on` counts as `as_of`.
        as_of: The day whose end it describes.

    Raises:
        BadFile: If the file cannot be read exactly, or an epid is negative or repeated, or was tracked after
            `as_of`.
        SystemFailure: If the machine does not let it be read.
    """
    table = read_input_file(path, _SCHEMA, lambda table: _check(_frame(table, as_of), as_of))
    return _frame(table, as_of)


def _frame(table: pa.Table, as_of: dt.date) -> pd.DataFrame:
    state: pd.DataFrame = table.cast(_IN_MEMORY).to_pandas()
    state["tracked_on"] = state["tracked_on"].fillna(pd.Timestamp(as_of).as_unit("s"))
    return state


def _check(state: pd.DataFrame, as_of: dt.date) -> None:
    problems = [
        ("epid", "it is negative", state["epid"] < 0),
        ("epid", "it is repeated", state["epid"].duplicated()),
        ("tracked_on", f"it is after {as_of}", state["tracked_on"] > pd.Timestamp(as_of)),
    ]
    for column, problem, rows in problems:
        if rows.any():
            raise BadRow(int(rows.to_numpy().argmax()), column, problem)
