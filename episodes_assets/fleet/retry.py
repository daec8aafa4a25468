"""Give held jobs another round."""

import datetime as dt

from episodes_assets.errors import JobNotHeld
from episodes_assets.fleet.fan_out import fan_out_day
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores.ledger import lock_plan


def retry_held_jobs(connection: Connection, day: dt.date) -> int:
    """Let a day's held jobs wait for the fleet again, with their starts forgotten.

    Waived ones as well: what was decided stays on record, and covers none of them any more.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.

    Returns:
        How many jobs were held.

    Raises:
        DayNotPlanned: If the day has no plan.
    """
    with connection.transaction():
        plan_id = lock_plan(connection, day, with_chunks=True).plan_id
        released = connection.execute(
            "DELETE FROM ledger.lone_jobs WHERE plan_id = %s AND is_held", [plan_id]
        ).rowcount
        # A day of long ago begins to move again: it is not stalled at once.
        connection.execute(
            "UPDATE ledger.chunks SET held = 0, starts = 0, moved_at = now() WHERE plan_id = %s AND held > 0",
            [plan_id],
        )
        fan_out_day(connection, day)
    return released


def retry_held_job(connection: Connection, day: dt.date, epid: int, algorithm_id: int) -> None:
    """Let one held or waived job of a day wait for the fleet again.

    Args:
        connection: To `queue` in autocommit mode, as the orchestrator.
        day: A planned day.
        epid: The job's episode.
        algorithm_id: The job's analysis.

    Raises:
        DayNotPlanned: If the day has no plan.
        JobNotHeld: If no such job of the day is held.
    """
    with connection.transaction():
        plan_id = lock_plan(connection, day, with_chunks=True).plan_id
        released = connection.execute(
            """
            DELETE FROM ledger.lone_jobs
            WHERE plan_id = %(plan_id)s AND is_held AND position = (
                -- As its index has it.
                SELECT position FROM ledger.jobs
                WHERE plan_id + 0 = %(plan_id)s AND epid = %(epid)s AND algorithm_id = %(algorithm_id)s
            )
            RETURNING position
            """,
            {"plan_id": plan_id, "epid": epid, "algorithm_id": algorithm_id},
        ).fetchone()
        if released is None:
            raise JobNotHeld(
                f"no job of {day} for epid {epid} and algorithm {algorithm_id} is held",
                f"see `episodes jobs status {day}` for those that are",
            )
        connection.execute(
            """
            UPDATE ledger.chunks SET held = held - 1, starts = 0, moved_at = now()
            WHERE plan_id = %(plan_id)s
                AND %(position)s >= first_position AND %(position)s < first_position + jobs
            """,
            {"plan_id": plan_id, "position": released[0]},
        )
        fan_out_day(connection, day)
