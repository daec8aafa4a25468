"""The tracked state carried from one system to another: exported, imported, and copied whole for a lab.

With it, for labs, the manifests of days; decisions and the names of those who made them are not read.
Published rows are not copied: they are the outcomes of the plan, whose checksum the manifest has, and are
published from those (`publish.py`). The format of an exported file is `cli/state.py`; what a day adds to a
state is recorded by `state`.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString

import numpy as np
import pandas as pd
import pyarrow as pa
from psycopg import sql

from episodes_assets.errors import StateGap
from episodes_assets.ledger.plans import copy_rows
from episodes_assets.planning.episode_set import state_checksum
from episodes_assets.postgres.arrow import RepeatableRead
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.state import (
    TRACKED,
    TrackedDay,
    latest_day,
    read_as_recorded,
    unpack_tracked,
    upsert_day,
)

_DAYS = """
    SELECT day, origin, newly_tracked, total, checksum, previous_checksum, snapshot_id, code_version
    FROM state.tracked_days WHERE day <= {until}::date ORDER BY day
"""
_INDEXES = """
    SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), conname,
        pg_get_constraintdef(pg_constraint.oid)
    FROM pg_index LEFT JOIN pg_constraint ON conindid = indexrelid AND contype IN ('p', 'u')
    WHERE indrelid = %(table)s::regclass ORDER BY 1
"""
_TOTAL = "SELECT total FROM state.tracked_days WHERE day <= {until}::date ORDER BY day DESC LIMIT 1"
_PUBLISHED = """
    SELECT day, plan_id, plan_uid::text AS plan_uid, jobs, rows, left_out, checksum, viewings_version,
        viewings_digest, published_at
    FROM published.days WHERE day = ANY ({days}::date[]) ORDER BY day
"""


def read_state(results: RepeatableRead, until: dt.date) -> tuple[pa.Table, pa.Table]:
    """The state as of the end of a day, and the manifests of all days up to then.

    Args:
        results: To `results`, as its reader.
        until: The day.

    Returns:
        `epid` and `tracked_on`, by day and epid; and the days, in order.
    """
    epids, tracked_on = unpack_tracked(results.read(TRACKED, until=until))
    order = np.lexsort((epids, tracked_on))
    episodes = pa.table({"epid": epids[order], "tracked_on": tracked_on[order]})
    return episodes, results.read(_DAYS, until=until)


def read_total(results: RepeatableRead, until: dt.date) -> int:
    """How many episodes are tracked as of the end of a day, by its manifest or the last one before it.

    Args:
        results: To `results`, as its reader.
        until: The day.
    """
    found: list[int] = results.read(_TOTAL, until=until)["total"].to_pylist()
    return found[0] if found else 0


def read_publications(results: RepeatableRead, days: Sequence[dt.date]) -> pa.Table:
    """The manifests of those of some days that are published, by day, without who decided what.

    Args:
        results: To `results`, as its reader.
        days: The days.
    """
    return results.read(_PUBLISHED, days=list(days))


def put_state(results: Connection, episodes: pa.Table, days: pa.Table) -> bool:
    """Begin a history with all of another one, in one transaction.

    Rows that are all added at once are indexed afterwards, in less than half the time.

    Args:
        results: To `results` in autocommit mode, as the owner of its tables.
        episodes: As `read_state` gives them.
        days: As `read_state` gives them.

    Returns:
        Whether it was put; a history that ends with the same day stays as it is.

    Raises:
        StateGap: If there is another history.
    """
    with results.transaction():
        latest = latest_day(results)
        last = days.slice(len(days) - 1)
        if latest is not None:
            ends = list(zip(last["day"].to_pylist(), last["checksum"].to_pylist(), strict=True))
            if ends == [(latest.day, latest.checksum)]:
                return False
            raise StateGap(
                f"there is a tracked history already, up to {latest.day}",
                "load into a lab of another name",
            )
        with _indexed_afterwards(results, "state.tracked_episodes"):
            copy_rows(results, "COPY state.tracked_episodes ({columns}) FROM STDIN (FORMAT csv)", episodes)
        copy_rows(results, "COPY state.tracked_days ({columns}) FROM STDIN (FORMAT csv)", days)
    return True


@contextmanager
def _indexed_afterwards(results: Connection, table: LiteralString) -> Iterator[None]:
    """Drop the indexes of a table, and make them again as they were when the block ends."""
    indexes = results.execute(_INDEXES, {"table": table}).fetchall()
    name = sql.SQL(table)
    for index, _, constraint, _ in indexes:
        results.execute(
            sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(name, sql.Identifier(constraint))
            if constraint
            else sql.SQL("DROP INDEX {}").format(sql.SQL(index))
        )
    yield
    for _, definition, constraint, constraint_definition in indexes:
        results.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                name, sql.Identifier(constraint), sql.SQL(constraint_definition)
            )
            if constraint
            else sql.SQL(definition)
        )


def import_state(
    connection: Connection, state: pd.DataFrame, as_of: dt.date, code_version: str
) -> TrackedDay:
    """Begin a history with a state that was accumulated elsewhere.

    Args:
        connection: To `results`, while there is an `only_writer`.
        state: `epid` (int64, distinct) and `tracked_on` (datetime64[s], up to `as_of`).
        as_of: The day whose end it describes: the first day's yesterday.
        code_version: Recorded with it.

    Raises:
        StateGap: If there is a history already.
    """
    state = state.sort_values("epid")
    recorded = TrackedDay(
        day=as_of,
        origin="import",
        newly_tracked=len(state),
        total=len(state),
        checksum=state_checksum("import", state["epid"].to_numpy(dtype=np.int64)),
        previous_checksum=None,
        snapshot_id=None,
    )
    with connection.transaction():
        latest = latest_day(connection)
        if latest is not None:
            raise StateGap(
                f"there is a tracked history already, up to {latest.day}",
                "import into an empty results database",
            )
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY state.tracked_episodes (epid, tracked_on) FROM STDIN (FORMAT csv)") as copy,
        ):
            copy.write(state[["epid", "tracked_on"]].to_csv(index=False, header=False))
        upsert_day(connection, recorded, code_version)
    return recorded


def export_state(dsn: str, as_of: dt.date) -> pd.DataFrame:
    """The state as of the end of a day: `epid` and `tracked_on` (datetime64[ms]), by epid.

    Raises:
        StateGap: If it is not the state that the manifests of its days describe, as `read_as_recorded`.
    """
    epids, tracked_on = read_as_recorded(dsn, as_of)
    order = np.argsort(epids)
    return pd.DataFrame({"epid": epids[order], "tracked_on": tracked_on[order].astype("datetime64[ms]")})
