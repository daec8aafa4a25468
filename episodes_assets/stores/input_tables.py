"""Reading the input database, which is other teams' and is never written by the pipeline."""

import datetime as dt
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from episodes_assets.databases.connections import connect, read_arrow
from episodes_assets.stores import drop_table

# PostgreSQL's infinite dates have no calendar date; they are read as missing.
_READ_DROP = """
    SELECT epid, algorithm_id, series, season, episode, title,
        CASE WHEN isfinite(premier_date) THEN premier_date END AS premier_date,
        CASE WHEN isfinite(start_date) THEN start_date END AS start_date
    FROM episodes WHERE batch_date = $1::date
"""
_READ_VIEWED = """
    SELECT DISTINCT epid FROM viewings
    WHERE viewed_at >= $1::date::timestamp AT TIME ZONE 'UTC'
        AND viewed_at < ($1::date + 1)::timestamp AT TIME ZONE 'UTC'
        AND epid IS NOT NULL
"""
_READ_VIEWINGS = """
    SELECT viewings.epid, viewer_id, viewed_at, seconds_watched, completed
    FROM unnest($1::bigint[], $2::text[]) AS wanted (epid, since)
    JOIN viewings ON viewings.epid = wanted.epid
        AND viewed_at >= wanted.since::date::timestamp AT TIME ZONE 'UTC'
    WHERE viewed_at < ($3::date + 1)::timestamp AT TIME ZONE 'UTC'
"""


def read_drop(dsn: str, day: dt.date) -> pd.DataFrame:
    """A day's drop as it lies in the input database, with the columns of `drop_table.SCHEMA`.

    Empty when there is no drop of that day.
    """
    return drop_table.to_frame(read_arrow(dsn, _READ_DROP, [day.isoformat()]))


def read_viewed(dsn: str, day: dt.date) -> npt.NDArray[np.int64]:
    """Ascending epids that were viewed on a UTC day."""
    viewed = read_arrow(dsn, _READ_VIEWED, [day.isoformat()])["epid"].to_numpy()
    return np.sort(viewed.astype(np.int64))


def latest_drop(dsn: str) -> dt.date | None:
    """The newest `batch_date`; None when there is no drop at all."""
    with connect(dsn, read_only=True) as connection:
        row = connection.execute("SELECT max(batch_date) FROM episodes").fetchone()
    return row[0] if row else None


def viewings_begin(dsn: str) -> dt.date | None:
    """The UTC date of the oldest viewing that still exists; None when there is none."""
    with connect(dsn, read_only=True) as connection:
        row = connection.execute(
            "SELECT (min(viewed_at) AT TIME ZONE 'UTC')::date FROM viewings WHERE viewed_at > '0001-01-02'"
        ).fetchone()
    return row[0] if row else None


def read_viewings(dsn: str, epids: Sequence[int], since: Sequence[dt.date], until: dt.date) -> pd.DataFrame:
    """The viewings of many episodes, each from a date of its own.

    Args:
        dsn: The input database.
        epids: Distinct episodes.
        since: For each episode, the first UTC date wanted.
        until: The last UTC date wanted.

    Returns:
        `epid`, `viewer_id` (Int64), `viewed_at` (datetime64[us], UTC without zone),
        `seconds_watched` (Int32), `completed` (boolean), in no settled order.
    """
    parameters = [list(epids), [date.isoformat() for date in since], until.isoformat()]
    table = read_arrow(dsn, _READ_VIEWINGS, parameters)
    at = table.schema.get_field_index("viewed_at")
    table = table.set_column(at, "viewed_at", table["viewed_at"].cast(pa.timestamp("us")))
    frame: pd.DataFrame = table.to_pandas(
        types_mapper={
            pa.int64(): pd.Int64Dtype(),
            pa.int32(): pd.Int32Dtype(),
            pa.bool_(): pd.BooleanDtype(),
        }.get
    )
    return frame
