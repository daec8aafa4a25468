"""Reading the input database, which is other teams' and is never written by the pipeline."""

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import adbc_driver_postgresql.dbapi as adbc
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from episodes_assets.databases.connections import connect, kept_arrow_connection, read_arrow
from episodes_assets.stores import drop_table
from episodes_assets.stores.episode_parts import whole_episodes

DROP_PART_ROWS = 1 << 17

# PostgreSQL's infinite dates have no calendar date; they are read as missing.
_READ_DROP = """
    SELECT epid, algorithm_id, series, season, episode, title,
        CASE WHEN isfinite(premier_date) THEN premier_date END AS premier_date,
        CASE WHEN isfinite(start_date) THEN start_date END AS start_date
    FROM episodes WHERE batch_date = $1::date
    ORDER BY epid, algorithm_id, premier_date, start_date, season, episode,
        series COLLATE "C", title COLLATE "C"
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
    ORDER BY viewings.epid, viewed_at
"""
_READ_BEGIN = """
    SELECT (min(viewed_at) AT TIME ZONE 'UTC')::date AS begin FROM viewings WHERE viewed_at > '0001-01-02'
"""


def read_drop(dsn: str, day: dt.date) -> Iterator[pd.DataFrame]:
    """A day's drop in parts, ordered by all its columns, every episode in one part.

    Yields:
        The columns of `drop_table.SCHEMA`; nothing when there is no drop of that day.

    Raises:
        DatabaseUnreachable: If the server does not answer or refuses, or goes away.
    """
    with kept_arrow_connection(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(_READ_DROP, (day.isoformat(),))
        for part in whole_episodes(cursor.fetch_record_batch(), DROP_PART_ROWS):
            yield drop_table.to_frame(part)


def read_viewed(dsn: str, day: dt.date) -> npt.NDArray[np.int64]:
    """Ascending epids that were viewed on a UTC day."""
    viewed = read_arrow(dsn, _READ_VIEWED, [day.isoformat()])["epid"].to_numpy()
    return np.sort(viewed.astype(np.int64))


def latest_drop(dsn: str) -> dt.date | None:
    """The newest `batch_date`; None when there is no drop at all."""
    with connect(dsn, read_only=True) as connection:
        row = connection.execute("SELECT max(batch_date) FROM episodes").fetchone()
    return row[0] if row else None


@dataclass(frozen=True)
class ViewingsReader:
    """Reads viewings over one connection, which the process keeps for its next micro-batch.

    Attributes:
        connection: To the input database.
    """

    connection: adbc.Connection

    @classmethod
    @contextmanager
    def open(cls, dsn: str) -> Iterator["ViewingsReader"]:
        """A reader on the kept connection.

        Raises:
            DatabaseUnreachable: If the server does not answer or refuses, or goes away.
        """
        with kept_arrow_connection(dsn) as connection:
            yield cls(connection)

    def begin(self) -> dt.date | None:
        """The UTC date of the oldest viewing that still exists; None when there is none."""
        with self.connection.cursor() as cursor:
            cursor.execute(_READ_BEGIN)
            found = cursor.fetch_arrow_table()["begin"][0].as_py()
        return cast("dt.date | None", found)

    def read(
        self, epids: npt.NDArray[np.int64], since: npt.NDArray[np.datetime64], until: dt.date
    ) -> Iterator[pa.RecordBatch]:
        """The viewings of many episodes, each from a date of its own, ordered by epid and time.

        Args:
            epids: Distinct episodes.
            since: For each episode, the first UTC date wanted.
            until: The last UTC date wanted.

        Yields:
            `epid`, `viewer_id`, `viewed_at` (timestamp[us], UTC), `seconds_watched`, `completed`; at
            least one batch, which may be empty.
        """
        dates = np.datetime_as_string(since.astype("datetime64[D]")).tolist()
        with self.connection.cursor() as cursor:
            cursor.execute(_READ_VIEWINGS, (epids.tolist(), dates, until.isoformat()))
            reader = cursor.fetch_record_batch()
            yield pa.RecordBatch.from_pylist([], reader.schema)
            yield from reader
