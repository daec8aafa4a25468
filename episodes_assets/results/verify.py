"""Reading `results` back: the state, published lines beside the ledger's outcomes, and what is recorded.

The comparisons are in `checks/results.py`, and in `checks/consistency.py` across databases and the lake.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from psycopg.rows import class_row, dict_row

from episodes_assets.checks.consistency import RecordedPublication, RecordedState, Records
from episodes_assets.checks.results import (
    LIVE_DAYS,
    LIVE_WITHIN,
    PublicationDay,
    Publications,
    Rows,
    StateDay,
)
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.plans import require_current
from episodes_assets.ledger.verify import OUTCOME_LINES, read_lines, read_recorded_plans
from episodes_assets.planning.episode_set import EpisodeIds, state_checksum
from episodes_assets.postgres.connect import Connection
from episodes_assets.results.publications import PublishedDay, newest_plan
from episodes_assets.results.publish import NO_ROWS, read_published


def read_publication(
    queue: Connection, results: Connection, manifests: Sequence[PublishedDay]
) -> list[PublicationDay]:
    """What is published of some days and what their outcomes are, in the order of their manifests.

    Args:
        queue: To `queue`.
        results: To `results`.
        manifests: Of the days.

    Raises:
        PlanOvertaken: If the plan of one of them was replaced meanwhile.
    """
    with ThreadPoolExecutor(1) as thread:  # two servers, or two processes of one
        reading = thread.submit(read_published, results, [day.day for day in manifests])
        outcomes = read_lines(queue, OUTCOME_LINES, [day.plan_id for day in manifests])
        published = reading.result()
    require_current(queue, [day.plan_id for day in manifests])
    return [
        PublicationDay(
            day=each.day,
            manifest=Rows(each.rows, each.checksum),
            published=published.get(each.day, NO_ROWS),
            outcomes=outcomes.get(each.day, NO_ROWS),
        )
        for each in manifests
    ]


def read_publications(results: Connection, due: dt.date) -> Publications:
    """Whether days are published in time, by the manifests and the history of publications.

    When a day was first published stands in the history alone: a manifest has the time at which the day's
    rows were last replaced.

    Args:
        results: To `results`.
        due: The latest day that is to be published.
    """
    with results.cursor(row_factory=class_row(Publications)) as cursor:
        cursor.execute(
            """
            SELECT (SELECT max(day) FROM published.days) AS newest,
                EXISTS (SELECT FROM published.days WHERE day = %(due)s) AS has_due,
                EXISTS (
                    SELECT FROM (SELECT day FROM published.days ORDER BY day DESC LIMIT %(most)s) AS newest
                    CROSS JOIN LATERAL (
                        SELECT min(published_at) AS first_at FROM published.history
                        WHERE history.day = newest.day OFFSET 0
                    ) AS publications
                    WHERE first_at < (day + 1)::timestamp AT TIME ZONE 'UTC' + %(within)s
                ) AS is_live
            """,
            {"due": due, "most": LIVE_DAYS, "within": LIVE_WITHIN},
        )
        found = cursor.fetchone()
    assert found is not None  # noqa: S101  a statement without FROM has one row
    return found


_NONE: EpisodeIds = np.array([], dtype=np.int64)
_DAYS = """
    WITH added AS (
        -- `+ 0` avoids the index on tracked_on, which would fetch nearly all rows one by one.
        SELECT tracked_on + 0 AS tracked_on, count(epid) AS episodes FROM state.tracked_episodes
        WHERE tracked_on + 0 <= %(last)s GROUP BY 1
    ), chain AS (
        SELECT day, newly_tracked, total, checksum, previous_checksum,
            lag(total) OVER earlier AS total_before, lag(checksum) OVER earlier AS checksum_before
        FROM state.tracked_days WHERE day <= %(last)s WINDOW earlier AS (ORDER BY day)
    ), stored AS (
        -- Episodes of an import may be tracked on days that the manifest does not know.
        SELECT coalesce(chain.day, added.tracked_on) AS day, coalesce(episodes, 0) AS newly_stored,
            sum(coalesce(episodes, 0)) OVER (ORDER BY coalesce(chain.day, added.tracked_on)) AS stored
        FROM chain FULL JOIN added ON tracked_on = chain.day
    )
    SELECT chain.*, newly_stored::bigint, stored::bigint FROM chain JOIN stored USING (day)
    WHERE day = ANY (%(days)s) ORDER BY day
"""
_EPISODES = """
    SELECT epid, tracked_on FROM state.tracked_episodes
    WHERE tracked_on = ANY ({days}::date[])
"""
# Without the index, as above.
_ALL_EPISODES = "SELECT epid, tracked_on FROM state.tracked_episodes WHERE tracked_on + 0 <= {until}::date"


def read_state_days(connection: Connection, dsn: str, days: Sequence[dt.date]) -> list[StateDay]:
    """What is recorded and stored of some days, in order; nothing of a day that has no manifest.

    Args:
        connection: To `results`.
        dsn: The same database, for whole columns.
        days: Which.
    """
    return _compare_state(connection, days, _episodes_by_day(dsn, _EPISODES, days=list(days)))


def _compare_state(
    connection: Connection, days: Sequence[dt.date], episodes: Mapping[dt.date, EpisodeIds]
) -> list[StateDay]:
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(_DAYS, {"days": list(days), "last": max(days)})
        rows: list[dict[str, Any]] = cursor.fetchall()
    return [
        StateDay(
            **row,
            stored_checksum=state_checksum(row["previous_checksum"] or "", episodes.get(row["day"], _NONE)),
        )
        for row in rows
    ]


def find_damaged_state(connection: Connection, dsn: str, until: dt.date) -> dt.date | None:
    """The first day whose stored episodes or manifest are damaged; None if none is.

    An imported day has no drop to compare with, so only the days after it are checked.

    Args:
        connection: To `results`.
        dsn: The same database, for whole columns.
        until: The last day to look at.
    """
    rows = connection.execute(
        "SELECT day FROM state.tracked_days WHERE day <= %s AND origin <> 'import' ORDER BY day", [until]
    ).fetchall()
    if not rows:
        return None
    days = [day for (day,) in rows]
    found = _compare_state(connection, days, _episodes_by_day(dsn, _ALL_EPISODES, until=until))
    return next((each.day for each in found if each.faults), None)


def _episodes_by_day(dsn: str, statement: str, **parameters: Any) -> dict[dt.date, EpisodeIds]:  # noqa: ANN401
    from episodes_assets.postgres.arrow import read_arrow

    table = read_arrow(dsn, statement, **parameters)
    table = table.sort_by([("tracked_on", "ascending"), ("epid", "ascending")])
    tracked_on = table["tracked_on"].to_numpy().astype("datetime64[D]")
    present, first = np.unique(tracked_on, return_index=True)
    parts = np.split(table["epid"].to_numpy(), first[1:])
    return dict(zip(present.tolist(), parts, strict=False))


_PUBLICATIONS = """
    SELECT day, plan_id, plan_uid, plan_checksum, snapshot_id, rows, viewings_version, viewings_digest
    FROM published.days ORDER BY day
"""
_STATE = "SELECT day, origin, checksum, previous_checksum, snapshot_id FROM state.tracked_days ORDER BY day"


def read_records(
    queue: Connection,
    results: Connection,
    drops: Drops,
    viewings: Viewings,
    dagster: Connection | None,
) -> Records:
    """What the databases and the lake record, of all days.

    Each is read before those from which it is made, so that what a run adds meanwhile does not look missing.

    Args:
        queue: To `queue`, as the orchestrator.
        results: To `results`, as the publisher.
        drops: The lake's.
        viewings: The lake's.
        dagster: To Dagster's own database; None to leave it out.
    """
    recorded = None if dagster is None else _read_recorded(dagster)
    with results.cursor(row_factory=class_row(RecordedPublication)) as cursor:
        publications = cursor.execute(_PUBLICATIONS).fetchall()
    newest = newest_plan(results)
    plans, last_plan_id = read_recorded_plans(queue)
    with results.cursor(row_factory=class_row(RecordedState)) as cursor:
        state = cursor.execute(_STATE).fetchall()
    found = Records(
        plans=plans,
        last_plan_id=last_plan_id,
        publications=publications,
        newest_published_plan=newest,
        state=state,
        drops={},
        recorded_by_dagster=recorded,
    )
    named = defaultdict(set)
    for day, snapshot_id in found.named_drops:
        named[day].add(snapshot_id)
    version = viewings.newest()
    return replace(
        found,
        drops=drops.find_named(named),
        viewings_version=version.number if version else None,
        viewings_digests=viewings.digests({version for _, version, _ in found.named_versions}),
    )


def _read_recorded(dagster: Connection) -> list[dt.date] | None:
    """The days whose publication Dagster has recorded; None before it has made its tables."""
    row = dagster.execute("SELECT to_regclass('dagster.event_logs')").fetchone()
    if row is None or row[0] is None:
        return None
    found = dagster.execute(
        """
        SELECT DISTINCT partition::date FROM dagster.event_logs
        WHERE asset_key = '["published_results"]' AND dagster_event_type = 'ASSET_MATERIALIZATION'
            AND partition IS NOT NULL
        """
    )
    return [day for (day,) in found]
