"""`reach` of a day's jobs by one statement of another engine: what the fleet is compared with.

Each engine computes `reach` alone, in one session, and writes nothing. The fleet computes all algorithms and
writes the outcome of each job into the ledger meanwhile.
"""

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import duckdb
import pandas as pd
import psycopg
import pyarrow as pa

from episodes_assets.days import ONE_DAY
from episodes_assets_tests.support.system import System

COLUMNS = ("epid", "views", "viewers", "seconds_watched", "completed_views")
THREADS = 2  # as many as there are workers

# An episode that nobody watched in its window has a row as well.
_REACH = """
    SELECT epid, coalesce(views, 0) AS views, coalesce(viewers, 0) AS viewers,
        coalesce(seconds_watched, 0)::bigint AS seconds_watched,
        coalesce(completed_views, 0) AS completed_views
    FROM {jobs} LEFT JOIN (
        SELECT epid, count(*) AS views, count(DISTINCT viewer_id) AS viewers,
            sum(seconds_watched) AS seconds_watched, count(*) FILTER (WHERE completed) AS completed_views
        FROM {jobs} AS jobs JOIN {viewings} AS viewings USING (epid)
        WHERE viewed_at >= window_begin AND viewed_at < window_end
        GROUP BY epid
    ) AS reached USING (epid)
"""
# The fastest of what was tried. A left join with the viewings themselves is not done in parallel (1.8 x the
# time). The planner expects a sixth of the viewings in a window, so by itself it looks up each job in the
# index by a nested loop (2.6 x).
_SETTINGS = "SET work_mem = '256MB'; SET enable_nestloop = off; SET jit = off"
_TABLE = "benchmark_jobs"  # no temporary one, which parallel workers cannot read

Statement = Callable[[], pd.DataFrame]


def reach_jobs(system: System, day: dt.date) -> pa.Table:
    """The jobs for `reach` of a day's plan: epid, and the first moment of the window and after it."""
    rows = system.query(
        "queue",
        "SELECT epid, window_start FROM ledger.jobs JOIN ledger.plans USING (plan_id)"
        " WHERE day = %s AND superseded_at IS NULL AND algorithm_id = 0 ORDER BY epid",
        [day],
    )
    moment = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "epid": pa.array([epid for epid, _ in rows], pa.int64()),
            "window_begin": pa.array([begin for _, begin in rows]).cast(moment),
            "window_end": pa.array([day + ONE_DAY] * len(rows)).cast(moment),
        }
    )


@contextmanager
def in_postgresql(system: System, jobs: pa.Table) -> Iterator[Statement]:
    """One statement on the input's own `viewings`, with the indexes they have there, beside a table of jobs.

    The session may sort and hash within 256 MB, as our own reading of the input may, and starts as many
    parallel workers as PostgreSQL's defaults let it.
    """
    with psycopg.connect(system.admin["input"], autocommit=True) as connection:
        connection.execute(
            f"CREATE TABLE {_TABLE} (epid bigint, window_begin timestamptz, window_end timestamptz)"
        )
        try:
            with connection.cursor() as cursor, cursor.copy(f"COPY {_TABLE} FROM STDIN") as copy:
                for row in zip(*(column.to_pylist() for column in jobs.columns), strict=True):
                    copy.write_row(row)
            connection.execute(f"VACUUM ANALYZE {_TABLE}")
            connection.execute(_SETTINGS)
            yield partial(_ask_postgresql, connection)
        finally:
            connection.execute(f"DROP TABLE {_TABLE}")


def _ask_postgresql(connection: psycopg.Connection) -> pd.DataFrame:
    rows = connection.execute(_REACH.format(jobs=_TABLE, viewings="viewings")).fetchall()
    return in_order(pd.DataFrame(rows, columns=list(COLUMNS)))


@contextmanager
def in_duckdb(system: System, version: int, jobs: pa.Table, day: dt.date) -> Iterator[Statement]:
    """One statement on the lake's own Parquet files: those of the days that any window reaches."""
    begin = min(jobs["window_begin"].to_pylist()).date()
    folder = Path(system.settings.lake) / system.viewings.name
    files = [str(folder / file.path) for file in system.viewings.at(version).between(begin, day)]
    with duckdb.connect(config={"threads": str(THREADS)}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("jobs", jobs)
        yield partial(_ask_duckdb, connection, files)


def _ask_duckdb(connection: duckdb.DuckDBPyConnection, files: list[str]) -> pd.DataFrame:
    named = ", ".join(f"'{file}'" for file in files)
    parquet = f"read_parquet([{named}], hive_partitioning = false)"
    return in_order(connection.execute(_REACH.format(jobs="jobs", viewings=parquet)).df())


def published_reach(system: System, day: dt.date) -> pd.DataFrame:
    """What consumers read."""
    columns = ", ".join(COLUMNS)
    rows = system.query("results", f"SELECT {columns} FROM published.reach WHERE day = %s", [day])
    return in_order(pd.DataFrame(rows, columns=list(COLUMNS)))


def in_order(reach: pd.DataFrame) -> pd.DataFrame:
    """By epid, so that two can be compared."""
    return reach.astype("int64").sort_values("epid", ignore_index=True)
