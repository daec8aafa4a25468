"""The workers of the fleet, as they say themselves in `ledger.workers`."""

import datetime as dt
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.postgres.connect import Connection

# Workers give a sign every 5 seconds; two may be lost on the way.
ALIVE_FOR = dt.timedelta(seconds=15)


@dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        name: As claims and outcomes name it.
        host: Its machine.
        pid: Its process there.
        release: The release it runs.
        started_at: When it started.
        seen_at: When it gave its last sign of life.
        stopped_at: When it said that it stops; None when it never did.
        is_alive: Whether it has given a sign within `ALIVE_FOR` and has not stopped.
        day: The day of the jobs that it computes; None when it computes none, or their plan is gone.
        plan_id: Their plan.
        chunk: Their chunk.
        jobs: How many they are.
        working_since: When it began with them.
        finished: Jobs whose outcomes it has written since it started.
    """

    name: str
    host: str
    pid: int
    release: str
    started_at: dt.datetime
    seen_at: dt.datetime
    stopped_at: dt.datetime | None
    is_alive: bool
    day: dt.date | None
    plan_id: int | None
    chunk: int | None
    jobs: int | None
    working_since: dt.datetime | None
    finished: int


def read_workers(connection: Connection, gone_for: dt.timedelta = dt.timedelta(0)) -> list[Worker]:
    """The workers that live, the busy ones first.

    Args:
        connection: To `queue`.
        gone_for: Those as well that have fallen silent, or stopped, no longer ago than this; at the end.
    """
    with connection.cursor(row_factory=class_row(Worker)) as cursor:
        cursor.execute(
            """
            SELECT * FROM (
                SELECT worker AS name, host, pid, release, started_at, seen_at, stopped_at,
                    stopped_at IS NULL AND seen_at > now() - %(alive_for)s AS is_alive,
                    day, workers.plan_id, chunk, workers.jobs, working_since, finished
                FROM ledger.workers LEFT JOIN LATERAL (
                    SELECT day FROM ledger.plans WHERE plans.plan_id = workers.plan_id OFFSET 0
                ) AS plan ON true
            ) AS told
            WHERE is_alive OR seen_at > now() - %(gone_for)s
            ORDER BY is_alive DESC, working_since IS NULL, day, working_since, name
            """,
            {"alive_for": ALIVE_FOR, "gone_for": gone_for},
        )
        return cursor.fetchall()


def count_alive(connection: Connection) -> int:
    """How many workers live."""
    row = connection.execute(
        "SELECT count(*) FROM ledger.workers WHERE stopped_at IS NULL AND seen_at > now() - %s", [ALIVE_FOR]
    ).fetchone()
    return int(row[0]) if row else 0
