"""The rows of `ledger.workers`: heartbeats and activity of workers, reading them, and pruning old ones.

PgQueuer never deletes its log of finished messages; it is pruned here as well. When a worker writes its row
is decided in `worker/main.py`.
"""

import datetime as dt
import importlib.metadata
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from psycopg.rows import class_row

from episodes_assets.postgres.admission import needed_version
from episodes_assets.postgres.connect import AsyncConnection, Connection
from episodes_assets.postgres.databases import Database

# Workers send a heartbeat every 5 seconds; two may be lost.
ALIVE_FOR = dt.timedelta(seconds=15)
# Only the server's clock counts, and workers may write any time: a longer lead is no sign of life.
_AHEAD = dt.timedelta(minutes=1)
_IS_ALIVE = "stopped_at IS NULL AND seen_at > now() - %(alive_for)s AND seen_at < now() + %(ahead)s"
_BOUNDS = {"alive_for": ALIVE_FOR, "ahead": _AHEAD}


@dataclass(frozen=True)
class Worker:
    """One worker process.

    Attributes:
        name: As claims and outcomes name it.
        host: Its machine.
        pid: Its process there.
        release: The release it runs.
        started_at: When it started.
        seen_at: When it sent its last heartbeat.
        stopped_at: When it recorded that it stops; None when it never did.
        is_alive: Whether it has sent a heartbeat within `ALIVE_FOR`, not in the future, and has not stopped.
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
    """The workers that are alive, the busy ones first.

    Args:
        connection: To `queue`.
        gone_for: Workers that have fallen silent or stopped no longer ago than this are added at the end.
    """
    with connection.cursor(row_factory=class_row(Worker)) as cursor:
        cursor.execute(
            f"""
            SELECT * FROM (
                SELECT worker AS name, host, pid, release, started_at, seen_at, stopped_at,
                    {_IS_ALIVE} AS is_alive,
                    day, workers.plan_id, chunk, workers.jobs, working_since, finished
                FROM ledger.workers LEFT JOIN LATERAL (
                    SELECT day FROM ledger.plans WHERE plans.plan_id = workers.plan_id OFFSET 0
                ) AS plan ON true
            ) AS told
            WHERE is_alive OR seen_at > now() - %(gone_for)s AND seen_at < now() + %(ahead)s
            ORDER BY is_alive DESC, working_since IS NULL, day, working_since, name
            """,  # noqa: S608  literals alone
            {**_BOUNDS, "gone_for": gone_for},
        )
        return cursor.fetchall()


def count_alive(connection: Connection) -> int:
    """How many workers are alive."""
    row = connection.execute(
        f"SELECT count(*) FROM ledger.workers WHERE {_IS_ALIVE}",  # noqa: S608  literals alone
        _BOUNDS,
    ).fetchone()
    return int(row[0]) if row else 0


def read_older_workers(connection: Connection, version: str) -> list[str]:
    """The workers that are alive and whose release does not know a version of the queue's schema.

    Args:
        connection: To `queue`.
        version: Of the schema.

    Returns:
        Each as a message names it.
    """
    found = connection.execute(
        f"""
        SELECT worker, release FROM ledger.workers
        WHERE {_IS_ALIVE} AND coalesce(knows, '') COLLATE "C" < %(version)s
        ORDER BY worker
        """,  # noqa: S608  literals alone
        {**_BOUNDS, "version": version},
    ).fetchall()
    return [f"worker {worker} of release {release}" for worker, release in found]


# An error that is of a worker and not of a job ends with its name.
_ON_WORKER = "; on "


def name_worker(error: str, worker: str) -> str:
    """An error that another worker may not have, with the name of the one that has it."""
    return f"{error}{_ON_WORKER}{worker}"


async def may_start_elsewhere(connection: AsyncConnection, plan_id: int, position: int, worker: str) -> bool:
    """Whether a worker is alive that may be able to start a job which this one cannot.

    That is one of another host while none of such has failed at the job since this host did, as its error
    tells; and another of the same host by the same rule. So where none can start it, it comes round to each
    in turn, and the answer is no.

    Args:
        connection: To `queue`, as a worker.
        plan_id: The job's plan.
        position: Where it stands in it.
        worker: This one's name.
    """
    cursor = await connection.execute(
        f"""
        WITH failed AS MATERIALIZED (
            SELECT coalesce(max(substring(error FROM '{_ON_WORKER}([^ ]+)$')), %(worker)s) AS worker
            FROM ledger.job_attempts WHERE plan_id = %(plan_id)s AND position = %(position)s
        )
        SELECT EXISTS (
            SELECT FROM ledger.workers, failed
            WHERE {_IS_ALIVE} AND (
                failed.worker = %(worker)s AND workers.worker <> %(worker)s
                OR regexp_replace(failed.worker, '-[0-9]+$', '') = %(host)s AND host <> %(host)s
            )
        )
        """,  # noqa: S608  literals alone
        {
            **_BOUNDS,
            "worker": worker,
            "host": worker.rpartition("-")[0],
            "plan_id": plan_id,
            "position": position,
        },
    )
    row = await cursor.fetchone()
    return bool(row and row[0])


def count_by_release(connection: Connection) -> dict[str, int]:
    """How many workers are alive, by the release that they run."""
    rows = connection.execute(
        f"SELECT release, count(*) FROM ledger.workers WHERE {_IS_ALIVE}"  # noqa: S608  literals alone
        " GROUP BY release ORDER BY count(*) DESC, release",
        _BOUNDS,
    ).fetchall()
    return {str(release): int(count) for release, count in rows}


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
    """Delete the rows of workers that have sent no heartbeat for so long, and rows from the future.

    Returns:
        How many workers are forgotten.
    """
    return connection.execute(
        "DELETE FROM ledger.workers WHERE seen_at < now() - %s OR seen_at > now() + %s", [silence, _AHEAD]
    ).rowcount


@dataclass(frozen=True)
class Work:
    """Jobs that a worker computes together.

    Attributes:
        plan_id: Their plan.
        chunk: Their chunk.
        jobs: How many.
        began: When, by `time.monotonic`.
    """

    plan_id: int
    chunk: int
    jobs: int
    began: float = field(default_factory=time.monotonic)


@dataclass
class Activity:
    """What one worker does, from its start to its end, over all of its sessions.

    Attributes:
        work: What it computes; None when it waits for work.
        finished: Jobs whose outcomes it has written.
        began: When it started, by `time.monotonic`.
    """

    work: Work | None = None
    finished: int = 0
    began: float = field(default_factory=time.monotonic)

    @contextmanager
    def working(self, work: Work) -> Iterator[None]:
        """Set `work` during the block."""
        self.work = work
        try:
            yield
        finally:
            self.work = None


@dataclass(frozen=True)
class WorkerName:
    """What identifies a worker's process, its release, and the schema of the queue that this was made for."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    release: str = field(default_factory=lambda: importlib.metadata.version("episodes-assets"))
    knows: str = field(default_factory=lambda: needed_version(Database.QUEUE))

    def __str__(self) -> str:
        return f"{self.host}-{self.pid}"


async def send_heartbeat(
    connection: AsyncConnection, name: WorkerName, activity: Activity, *, is_last: bool = False
) -> None:
    """Record that a worker is alive and what it does, or that it has stopped.

    Ages are sent, not times, so that only the server's clock counts.

    Args:
        connection: To `queue`, as a worker.
        name: Its process.
        activity: What it does.
        is_last: Whether it has stopped.
    """
    now = time.monotonic()
    work = None if is_last else activity.work
    await connection.execute(
        """
        INSERT INTO ledger.workers AS known (worker, host, pid, release, knows, started_at,
            stopped_at, plan_id, chunk, jobs, working_since, finished)
        VALUES (%(worker)s, %(host)s, %(pid)s, %(release)s, %(knows)s,
            now() - make_interval(secs => %(age)s),
            CASE WHEN %(is_last)s THEN now() END, %(plan_id)s, %(chunk)s, %(jobs)s,
            now() - make_interval(secs => %(busy)s), %(finished)s)
        ON CONFLICT (worker) DO UPDATE SET host = excluded.host, pid = excluded.pid,
            release = excluded.release, knows = excluded.knows,
            started_at = excluded.started_at, seen_at = now(), stopped_at = excluded.stopped_at,
            plan_id = excluded.plan_id, chunk = excluded.chunk, jobs = excluded.jobs,
            working_since = excluded.working_since, finished = excluded.finished
        """,
        {
            "worker": str(name),
            "host": name.host,
            "pid": name.pid,
            "release": name.release,
            "knows": name.knows,
            "age": now - activity.began,
            "is_last": is_last,
            "plan_id": work and work.plan_id,
            "chunk": work and work.chunk,
            "jobs": work and work.jobs,
            "busy": work and now - work.began,
            "finished": activity.finished,
        },
    )
