"""The file format of an exported state."""

import datetime as dt
from pathlib import Path

import pandas as pd
import pyarrow as pa

from episodes_assets.errors import BadFile

STATE_SCHEMA = pa.schema([pa.field("epid", pa.int64(), nullable=False), ("tracked_on", pa.date32())])


def check_state(path: Path, table: pa.Table, as_of: dt.date) -> pd.DataFrame:
    """A read state as `import_state` wants it.

    Args:
        path: For messages.
        table: With `STATE_SCHEMA`; a missing `tracked_on` counts as `as_of`.
        as_of: The day whose end it describes.

    Raises:
        BadFile: If an epid is negative or repeated, or was tracked after `as_of`.
    """
    in_memory = pa.schema({"epid": pa.int64(), "tracked_on": pa.timestamp("s")})
    state: pd.DataFrame = table.cast(in_memory).to_pandas()
    day = pd.Timestamp(as_of).as_unit("s")
    state["tracked_on"] = state["tracked_on"].fillna(day)
    problems = {
        "an epid is negative": state["epid"] < 0,
        "an epid is repeated": state["epid"].duplicated(),
        f"an episode was tracked after {as_of}": state["tracked_on"] > day,
    }
    for problem, rows in problems.items():
        if rows.any():
            raise BadFile(
                f"{path}, row {int(rows.to_numpy().argmax()) + 1}: {problem}",
                "fix the file; nothing was imported",
            )
    return state
