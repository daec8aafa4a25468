"""What databases and lake say of each other; `checks/consistency.py` compares it."""

import datetime as dt
from collections import defaultdict
from dataclasses import replace

from psycopg.rows import class_row

from episodes_assets.checks.consistency import RecordedPublication, RecordedState, Records
from episodes_assets.lake.drops import Drops
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.verify import read_recorded_plans
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.publications import newest_plan

_PUBLICATIONS = """
    SELECT day, plan_id, plan_uid, plan_checksum, snapshot_id, viewings_version, viewings_digest
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
    """What they say, of all days.

    Each is asked before those that it was made from: a run that goes on meanwhile adds to those first.

    Args:
        queue: To `queue`, as the orchestrator.
        results: To `results`, as the publisher.
        drops: The lake's.
        viewings: The lake's.
        dagster: To Dagster's own database; None not to ask it.
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
