"""Give held jobs another round."""

import datetime as dt

from episodes_assets.databases.connections import Connection
from episodes_assets.fleet.fan_out import fan_out_day
from episodes_assets.stores.ledger import require_plan


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
        plan = require_plan(connection, day)
        # The plan before its chunks, as planning and fanning out do: otherwise they wait for each other.
        connection.execute("SELECT FROM ledger.plans WHERE plan_id = %s FOR UPDATE", [plan.plan_id])
        # Workers lock the chunk first as well, so none holds a job in between.
        connection.execute(
            "SELECT FROM ledger.chunks WHERE plan_id = %s ORDER BY chunk FOR UPDATE", [plan.plan_id]
        )
        released = connection.execute(
            "DELETE FROM ledger.lone_jobs WHERE plan_id = %s AND is_held", [plan.plan_id]
        ).rowcount
        connection.execute(
            "UPDATE ledger.chunks SET held = 0, starts = 0 WHERE plan_id = %s AND held > 0", [plan.plan_id]
        )
        fan_out_day(connection, day)
    return released
