"""What nobody deletes by itself: the log of finished messages, and the rows of workers that are gone."""

import datetime as dt

from episodes_assets.postgres.connect import Connection

FORGET_AFTER = dt.timedelta(days=1)


def prune_message_log(connection: Connection, keep_days: int) -> int:
    """Delete log rows that PgQueuer has folded into its statistics and that are old enough.

    Returns:
        How many rows were deleted.
    """
    return connection.execute(
        "DELETE FROM pgqueuer_log WHERE aggregated AND created < now() - make_interval(days => %s)",
        [keep_days],
    ).rowcount


def forget_dead_workers(connection: Connection, silence: dt.timedelta = FORGET_AFTER) -> int:
    """Delete what workers said of themselves that have given no sign of life for so long.

    Returns:
        How many workers are forgotten.
    """
    return connection.execute("DELETE FROM ledger.workers WHERE seen_at < now() - %s", [silence]).rowcount
