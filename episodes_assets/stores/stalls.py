"""Days whose jobs are with the fleet and come to no end, and what is stuck in them."""

import datetime as dt
from collections.abc import Sequence

from psycopg.rows import class_row

from episodes_assets.checks.ledger import OpenDay
from episodes_assets.postgres.connect import Connection


def open_days(
    connection: Connection, silence: dt.timedelta, days: Sequence[dt.date] | None = None
) -> list[OpenDay]:
    """Each day with unfinished jobs, the earliest first.

    Args:
        connection: To `queue`.
        silence: A worker that has not beaten its heart for so long counts as silent.
        days: Which days; by default all.
    """
    with connection.cursor(row_factory=class_row(OpenDay)) as cursor:
        cursor.execute(
            """
            WITH open AS (
                SELECT plan_id, chunks.jobs - succeeded - held AS jobs, claim, claimed_by, claimed_at,
                    moved_at, status, heartbeat < now() - %(silence)s AND status = 'picked' AS is_silent
                FROM ledger.chunks LEFT JOIN LATERAL (
                    SELECT status, heartbeat FROM pgqueuer WHERE pgqueuer.id = message_id OFFSET 0
                ) AS message ON true
                WHERE succeeded < chunks.jobs AND succeeded + held < chunks.jobs
                    AND (%(days)s::date[] IS NULL OR plan_id = ANY (ARRAY(
                        SELECT plan_id FROM ledger.plans WHERE superseded_at IS NULL AND day = ANY (%(days)s)
                    )))
            ), opened AS MATERIALIZED (
                SELECT plan_id, day, fanned_out_at, planned_at, last_move
                FROM (SELECT DISTINCT plan_id FROM open) AS named
                CROSS JOIN LATERAL (
                    SELECT day, fanned_out_at, planned_at, superseded_at FROM ledger.plans
                    WHERE plans.plan_id = named.plan_id OFFSET 0
                ) AS plan
                CROSS JOIN LATERAL (
                    SELECT max(moved_at) AS last_move FROM (
                        SELECT moved_at FROM ledger.chunks WHERE chunks.plan_id = named.plan_id OFFSET 0
                    ) AS of_plan
                ) AS moved
                WHERE superseded_at IS NULL
            )
            SELECT day,
                coalesce(sum(open.jobs) FILTER (WHERE claim IS NULL), 0)::int AS waiting,
                coalesce(sum(open.jobs) FILTER (WHERE claim IS NOT NULL), 0)::int AS running,
                greatest(max(last_move), max(coalesce(fanned_out_at, planned_at))) AS moved_at,
                (array_agg(claimed_by ORDER BY is_silent DESC NULLS LAST, claimed_at)
                    FILTER (WHERE claim IS NOT NULL))[1] AS claimed_by,
                min(claimed_at) FILTER (WHERE claim IS NOT NULL) AS claimed_at,
                (count(*) FILTER (WHERE status IN ('queued', 'picked')))::int AS messages,
                (count(*) FILTER (WHERE status IS NULL OR status NOT IN ('queued', 'picked')))::int
                    AS lost_messages,
                (count(*) FILTER (WHERE is_silent))::int AS silent_messages,
                (SELECT max(moved_at) FROM ledger.chunks) AS fleet_moved_at
            FROM opened JOIN open USING (plan_id) GROUP BY day ORDER BY day
            """,
            {"silence": silence, "days": None if days is None else list(days)},
        )
        return cursor.fetchall()
