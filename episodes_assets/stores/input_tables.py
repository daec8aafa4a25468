"""Reading the input database, which is other teams' and is never written by the pipeline."""

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from episodes_assets.databases.arrow import read_arrow, stream_arrow
from episodes_assets.databases.connections import connect_to_input
from episodes_assets.errors import DropNotArrived
from episodes_assets.stores import drop_table
from episodes_assets.stores.episode_parts import DROP_PART_ROWS, whole_episodes

# PostgreSQL's infinite dates have no calendar date; they are read as missing.
_READ_DROP = """
    SELECT epid, algorithm_id, series, season, episode, title,
        CASE WHEN isfinite(premier_date) THEN premier_date END AS premier_date,
        CASE WHEN isfinite(start_date) THEN start_date END AS start_date
    FROM episodes WHERE batch_date = {day}::date
    ORDER BY epid, algorithm_id
"""
_READ_VIEWED = """
    SELECT DISTINCT epid FROM viewings
    WHERE viewed_at >= {day}::date::timestamp AT TIME ZONE 'UTC'
        AND viewed_at < ({day}::date + 1)::timestamp AT TIME ZONE 'UTC'
        AND epid IS NOT NULL
"""
_READ_VIEWINGS = """
    SELECT viewings.epid, viewer_id, viewed_at, seconds_watched, completed
    FROM unnest({epids}::bigint[], {since}::date[]) AS wanted (epid, since)
    JOIN viewings ON viewings.epid = wanted.epid
        AND viewed_at >= wanted.since::timestamp AT TIME ZONE 'UTC'
    WHERE viewed_at < ({until}::date + 1)::timestamp AT TIME ZONE 'UTC'
    ORDER BY viewings.epid, viewed_at
"""
_DROPS_BESIDE = """
    SELECT (SELECT max(batch_date) FROM episodes WHERE batch_date >= %(min)s AND batch_date < %(day)s),
        (SELECT min(batch_date) FROM episodes WHERE batch_date > %(day)s AND batch_date <= %(max)s)
"""
_READ_BEGIN = """
    SELECT (min(viewed_at) AT TIME ZONE 'UTC')::date AS begin FROM viewings WHERE viewed_at > '0001-01-02'
"""


class DropReading:
    """A day's drop, read once in parts by iterating over it.

    Attributes:
        rows: Rows that have come from the database so far, counted before they are cut or converted.
    """

    def __init__(self, dsn: str, day: dt.date) -> None:
        self._dsn = dsn
        self._day = day
        self.rows = 0

    def __iter__(self) -> Iterator[pd.DataFrame]:
        """The parts, ordered by epid and algorithm, every episode in one part.

        Yields:
            The columns of `drop_table.SCHEMA`; nothing when there is no drop of that day.

        Raises:
            DatabaseUnreachable: If the server does not answer or refuses, or goes away.
        """
        with stream_arrow(self._dsn, _READ_DROP, is_ours=False, day=self._day) as batches:
            for part in whole_episodes(self._counted(batches), DROP_PART_ROWS):
                yield drop_table.to_frame(part)

    def _counted(self, batches: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows += batch.num_rows
            yield batch


def read_viewed(dsn: str, day: dt.date) -> npt.NDArray[np.int64]:
    """Ascending epids that were viewed on a UTC day."""
    viewed = read_arrow(dsn, _READ_VIEWED, is_ours=False, day=day)["epid"].to_numpy()
    return np.sort(viewed.astype(np.int64))


def days_with_drop(dsn: str, days: Sequence[dt.date]) -> set[dt.date]:
    """Those of some days of which the input has any row.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    with connect_to_input(dsn) as connection:
        found = connection.execute(
            "SELECT day FROM unnest(%s::date[]) AS day"
            " WHERE EXISTS (SELECT FROM episodes WHERE batch_date = day)",
            [list(days)],
        ).fetchall()
    return {day for (day,) in found}


def drop_not_arrived(dsn: str, day: dt.date) -> DropNotArrived:
    """What is said of a drop that is not there, with what is there of other days.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    before, after = drops_beside(dsn, day)
    seen = [f"the newest one before it is of {before}"] if before else []
    seen += [f"the next one after it is of {after}"] if after else []
    return DropNotArrived(
        f"the drop of {day} has not arrived in the input database, "
        f"{'where ' + ' and '.join(seen) if seen else 'which has none of any other day either'}",
        "try again later, or load it with `episodes input load` or `episodes input generate`; if it was "
        "deleted there before a snapshot was taken, only its source can bring it back",
    )


def drops_beside(dsn: str, day: dt.date) -> tuple[dt.date | None, dt.date | None]:
    """The newest drop before a day and the next one after it; None where there is none.

    Neither says that the day's own drop was there and is gone: drops arrive in any order, and a single row
    with the date of a typing error is a drop as well. `infinity` and dates that Python lacks are left out.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    with connect_to_input(dsn) as connection:
        row = connection.execute(
            _DROPS_BESIDE, {"day": day, "min": dt.date.min, "max": dt.date.max}
        ).fetchone()
    return (row[0], row[1]) if row else (None, None)


def viewings_begin(dsn: str) -> dt.date | None:
    """The UTC date of the oldest viewing that still exists; None when there is none.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    return cast("dt.date | None", read_arrow(dsn, _READ_BEGIN, is_ours=False)["begin"][0].as_py())


def read_viewings(
    dsn: str, epids: npt.NDArray[np.int64], since: npt.NDArray[np.datetime64], until: dt.date
) -> Iterator[pa.RecordBatch]:
    """The viewings of many episodes, each from a date of its own, ordered by epid and time.

    Args:
        dsn: The input database.
        epids: Distinct episodes.
        since: For each episode, the first UTC date wanted.
        until: The last UTC date wanted.

    Yields:
        `epid`, `viewer_id`, `viewed_at` (timestamp[us], UTC), `seconds_watched`, `completed`; at
        least one batch, which may be empty.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    wanted = {"epids": epids.tolist(), "since": since.astype("datetime64[D]").tolist(), "until": until}
    with stream_arrow(dsn, _READ_VIEWINGS, is_ours=False, **wanted) as batches:
        yield pa.RecordBatch.from_pylist([], batches.schema)
        yield from batches
