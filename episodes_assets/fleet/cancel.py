"""Stop a day's work: what is not finished is held, as if it had failed for the last time."""

import datetime as dt

from episodes_assets.errors import NothingToCancel, ReasonMissing
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.ledger import lock_plan


def cancel_day(connection: Connection, day: dt.date, *, reason: str, cancelled_by: str) -> int:
    """Hold all jobs of a day that are not finished, and take the day's messages from the fleet.

    Outcomes that are written stay, and so does what was held or waived before. A worker that computes
    jobs of the day finds its claim gone and writes nothing more. `retry_held_jobs` lets the day go on.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.
        reason: Why; it becomes part of the jobs' error.
        cancelled_by: Who decided it.

    Returns:
        How many jobs are held by it.

    Raises:
        DayNotPlanned: If the day has no plan.
        NothingToCancel: If all of its jobs are finished, held or waived.
        ReasonMissing: If the reason or the name is blank.
    """
    reason, cancelled_by = " ".join(reason.split()), " ".join(cancelled_by.split())
    if not reason:
        raise ReasonMissing("cancelling needs a reason", "say why the day is not worked any further")
    if not cancelled_by:
        raise ReasonMissing("cancelling needs a name", "say who decided it")
    with connection.transaction():
        plan_id = lock_plan(connection, day, with_chunks=True).plan_id
        cancelled = _hold_open_jobs(connection, plan_id, f"by {cancelled_by}", reason)
        if not cancelled:
            raise NothingToCancel(
                f"no job of {day} waits or runs", f"see `episodes jobs status {day}` for what became of them"
            )
        _take_messages(connection, plan_id)
        # Without its claim a worker writes nothing more.
        connection.execute(
            """
            UPDATE ledger.chunks
            SET held = jobs - succeeded, claim = NULL, message_id = NULL, moved_at = now()
            WHERE plan_id = %s AND succeeded + held < jobs
            """,
            [plan_id],
        )
    return cancelled


def _hold_open_jobs(connection: Connection, plan_id: int, by_whom: str, reason: str) -> int:
    return connection.execute(
        """
        INSERT INTO ledger.lone_jobs AS lone (plan_id, position, is_held, error)
        SELECT jobs.plan_id, jobs.position, true,
            format('cancelled %%s at %%s UTC: %%s', %(by_whom)s::text,
                to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'), %(reason)s::text)
        FROM ledger.chunks
        CROSS JOIN LATERAL (
            SELECT plan_id, position FROM ledger.jobs
            WHERE plan_id = %(plan_id)s
                AND position >= first_position AND position < first_position + chunks.jobs
            EXCEPT ALL
            SELECT plan_id, position FROM ledger.outcomes
            WHERE plan_id = %(plan_id)s
                AND position >= first_position AND position < first_position + chunks.jobs
        ) AS jobs
        WHERE chunks.plan_id = %(plan_id)s AND succeeded + held < chunks.jobs
        -- A job that has failed before keeps the traceback of that.
        ON CONFLICT (plan_id, position) DO UPDATE SET is_held = true, error = excluded.error
        WHERE NOT lone.is_held
        """,
        {"plan_id": plan_id, "by_whom": by_whom, "reason": reason},
    ).rowcount


def _take_messages(connection: Connection, plan_id: int) -> None:
    # PgQueuer locks messages in an order of its own. One that it is busy with now may stay: whoever is
    # given it finds nothing to do, and no chunk names it any more.
    connection.execute(
        """
        WITH free AS (
            SELECT id FROM pgqueuer WHERE id = ANY (ARRAY(
                SELECT message_id FROM ledger.chunks WHERE plan_id = %s AND succeeded + held < jobs
            ))
            FOR UPDATE SKIP LOCKED
        )
        DELETE FROM pgqueuer WHERE id = ANY (ARRAY(SELECT id FROM free))
        """,
        [plan_id],
    )
