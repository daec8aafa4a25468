"""Counting what became of the jobs of some days, row by row in the ledger.

`ledger.read_progress` answers from the chunks' counters; this counts what they claim.
"""

from collections.abc import Sequence

from psycopg.rows import class_row

from episodes_assets.checks.ledger import OutcomesDay
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.ledger import require_current

_OUTCOMES = """
    WITH current AS MATERIALIZED (
        SELECT plan_id, day, jobs FROM ledger.plans WHERE plan_id = ANY (%(plan_ids)s)
    ), stored AS (
        SELECT plan_id, count(*) AS stored
        FROM ledger.jobs WHERE plan_id = ANY (%(plan_ids)s) GROUP BY plan_id
    ), accounted AS (
        -- Whatever accounts for a job stands here once: a job that is waived has no outcome.
        SELECT plan_id, position, false AS is_waived
        FROM ledger.outcomes WHERE plan_id = ANY (%(plan_ids)s)
        UNION ALL
        SELECT plan_id, position, true
        FROM ledger.lone_jobs WHERE waiver_id IS NOT NULL AND plan_id = ANY (%(plan_ids)s)
    ), counted AS (
        SELECT plan_id, count(*) FILTER (WHERE NOT is_waived) AS outcomes,
            count(*) FILTER (WHERE is_waived) AS waived, count(*) - count(DISTINCT position) AS repeated
        FROM accounted GROUP BY plan_id
    ), superseded AS (
        SELECT day, sum(outcomes) AS superseded
        FROM ledger.plans CROSS JOIN LATERAL (
            SELECT count(*) AS outcomes FROM ledger.outcomes WHERE outcomes.plan_id = plans.plan_id
        ) AS of_plan
        WHERE superseded_at IS NOT NULL AND day = ANY (ARRAY(SELECT day FROM current)) GROUP BY day
    )
    SELECT day, jobs, coalesce(stored, 0) AS stored, coalesce(outcomes, 0) AS outcomes,
        coalesce(waived, 0) AS waived, coalesce(repeated, 0) AS repeated,
        coalesce(superseded, 0)::bigint AS superseded
    FROM current LEFT JOIN stored USING (plan_id) LEFT JOIN counted USING (plan_id)
        LEFT JOIN superseded USING (day)
    ORDER BY day
"""


def count_outcomes(connection: Connection, plan_ids: Sequence[int]) -> list[OutcomesDay]:
    """What became of the jobs of some days, in order.

    Args:
        connection: To `queue`.
        plan_ids: The days' plans.

    Raises:
        PlanOvertaken: If one of them was replaced meanwhile.
    """
    with connection.cursor(row_factory=class_row(OutcomesDay)) as cursor:
        cursor.execute(_OUTCOMES, {"plan_ids": list(plan_ids)})
        counted = cursor.fetchall()
    require_current(connection, plan_ids)
    return counted
