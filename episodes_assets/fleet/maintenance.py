"""What PgQueuer leaves to its users: pruning the log of finished messages."""

from episodes_assets.databases.connections import Connection


def prune_message_log(connection: Connection, keep_days: int) -> int:
    """Delete log rows that PgQueuer has folded into its statistics and that are old enough.

    Returns:
        How many rows were deleted.
    """
    return connection.execute(
        "DELETE FROM pgqueuer_log WHERE aggregated AND created < now() - make_interval(days => %s)",
        [keep_days],
    ).rowcount
