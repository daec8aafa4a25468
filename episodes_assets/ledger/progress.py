"""How far and how fast the days are: counts, open days, expected ends, backlog.

Answered from the counters of chunks, PgQueuer's messages and recent batches (`batches`): the time grows with
the chunks and the waived jobs, not with all jobs. Whether an open day is stalled is decided in
`checks/ledger.py`; speeds and expected ends are computed in `planning/throughput.py`. Counting row by row is
`verify`.
"""

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.checks.ledger import OpenDay
from episodes_assets.ledger.batches import read_recent_work
from episodes_assets.ledger.workers import count_alive
from episodes_assets.planning.throughput import RecentWork, expected_end, jobs_per_second
from episodes_assets.postgres.connect import Connection


def open_days(
    connection: Connection, silence: dt.timedelta, days: Sequence[dt.date] | None = None
) -> list[OpenDay]:
    """Each day with unfinished jobs, the earliest first.

    Args:
        connection: To `queue`.
        silence: A message without a heartbeat for so long counts as silent.
        days: Which days; by default all.
    """
    with connection.cursor(row_factory=class_row(OpenDay)) as cursor:
        cursor.execute(
            """
            WITH open AS (
                SELECT plan_id, chunks.jobs - succeeded - held AS jobs, claim, claimed_by, claimed_at,
                    moved_at, status, attempts,
                    heartbeat < now() - %(silence)s AND status = 'picked' AS is_silent
                FROM ledger.chunks LEFT JOIN LATERAL (
                    SELECT status, heartbeat, attempts FROM pgqueuer WHERE pgqueuer.id = message_id OFFSET 0
                ) AS message ON true
                WHERE succeeded < chunks.jobs AND succeeded + held < chunks.jobs
                    AND (%(days)s::date[] IS NULL OR plan_id = ANY (ARRAY(
                        SELECT plan_id FROM ledger.plans WHERE superseded_at IS NULL AND day = ANY (%(days)s)
                    )))
            ), opened AS MATERIALIZED (
                SELECT plan_id, day, greatest(last_move, coalesce(fanned_out_at, planned_at)) AS last_move
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
                max(last_move) AS moved_at,
                (array_agg(claimed_by ORDER BY is_silent DESC NULLS LAST, claimed_at)
                    FILTER (WHERE claim IS NOT NULL))[1] AS claimed_by,
                min(claimed_at) FILTER (WHERE claim IS NOT NULL) AS claimed_at,
                (count(*) FILTER (WHERE status IN ('queued', 'picked')))::int AS messages,
                (count(*) FILTER (WHERE status IS NULL OR status NOT IN ('queued', 'picked')))::int
                    AS lost_messages,
                (count(*) FILTER (WHERE is_silent))::int AS silent_messages,
                -- A claim that is given back leaves its time and its worker.
                coalesce(max(attempts) FILTER (WHERE claimed_at > last_move), 0) AS times_given_back,
                max(claimed_at) FILTER (WHERE claimed_at > last_move) AS begun_at,
                (array_agg(claimed_by ORDER BY claimed_at DESC) FILTER (WHERE claimed_at > last_move))[1]
                    AS begun_by,
                (SELECT max(moved_at) FROM ledger.chunks) AS fleet_moved_at
            FROM opened JOIN open USING (plan_id) GROUP BY day ORDER BY day
            """,
            {"silence": silence, "days": None if days is None else list(days)},
        )
        return cursor.fetchall()


@dataclass(frozen=True)
class Progress:
    """How far the jobs of a day's current plan are.

    Attributes:
        day: The day.
        plan_id: The plan.
        jobs: How many jobs it has: the sum of the five counts.
        waiting: Not begun, or to be started again.
        running: Claimed by a worker.
        succeeded: With an outcome.
        held: Held and not waived, so that the day is not published.
        is_fanned_out: Whether they were handed to the fleet.
        snapshot_id: The drop they were planned from.
        waived: Held, and left out by a recorded decision.
        decision: Why they are left out, and who decided it; empty when none is.
        plan_uid: The plan's unique id.
    """

    day: dt.date
    plan_id: int
    jobs: int
    waiting: int
    running: int
    succeeded: int
    held: int
    is_fanned_out: bool
    snapshot_id: str = ""
    waived: int = 0
    decision: str = ""
    plan_uid: uuid.UUID | None = None

    @property
    def is_open(self) -> bool:
        """Whether jobs are still to be finished."""
        return self.waiting + self.running > 0

    @property
    def is_done(self) -> bool:
        """Whether each job has succeeded or is left out by decision."""
        return self.succeeded + self.waived == self.jobs

    @property
    def failed(self) -> int:
        """Held jobs, waived or not."""
        return self.held + self.waived


def read_progress(connection: Connection, days: Sequence[dt.date] | None = None) -> list[Progress]:
    """How far the current plans are, by day.

    Args:
        connection: To `queue`.
        days: Which days; by default all that have a plan.
    """
    with connection.cursor(row_factory=class_row(Progress)) as cursor:
        cursor.execute(
            """
            SELECT day, plan_id, plans.jobs, waiting, running,
                plans.jobs - waiting - running - open.held AS succeeded,
                -- A chunk counts its waived jobs as held.
                open.held - coalesce(left_out.jobs, 0) AS held,
                fanned_out_at IS NOT NULL AS is_fanned_out,
                snapshot_id,
                coalesce(left_out.jobs, 0) AS waived,
                coalesce(decision, '') AS decision,
                plan_uid
            FROM ledger.plans
            CROSS JOIN LATERAL (
                -- Few chunks are open at any time, and an index holds just those.
                SELECT coalesce(sum(jobs - succeeded - held) FILTER (WHERE claim IS NULL), 0) AS waiting,
                    coalesce(sum(jobs - succeeded - held) FILTER (WHERE claim IS NOT NULL), 0) AS running,
                    coalesce(sum(held), 0) AS held
                FROM ledger.chunks WHERE chunks.plan_id = plans.plan_id AND succeeded < jobs
            ) AS open
            LEFT JOIN LATERAL (
                SELECT jobs, decision FROM ledger.left_out
                WHERE left_out.plan_id = plans.plan_id AND open.held > 0 OFFSET 0
            ) AS left_out ON true
            WHERE superseded_at IS NULL AND (%(days)s::date[] IS NULL OR day = ANY (%(days)s))
            ORDER BY day
            """,
            {"days": None if days is None else list(days)},
        )
        return cursor.fetchall()


def backlog(connection: Connection) -> int:
    """Jobs that were handed to the fleet and are not finished: the metric for autoscaling."""
    row = connection.execute("SELECT jobs FROM ledger.backlog").fetchone()
    return int(row[0]) if row else 0


@dataclass(frozen=True)
class DayProgress:
    """How far a day is, and how fast.

    Attributes:
        counts: Its jobs by state.
        jobs_per_second: The throughput of the last minute.
        ends_at: When its jobs will be finished at that throughput; None when unknown, or when they are.
    """

    counts: Progress
    jobs_per_second: float
    ends_at: dt.datetime | None


@dataclass(frozen=True)
class FleetProgress:
    """How far some days are, and the fleet that works on them.

    Attributes:
        now: The server's time.
        days: Each day, in order.
        workers: How many workers are alive.
    """

    now: dt.datetime
    days: Sequence[DayProgress]
    workers: int

    @property
    def jobs_per_second(self) -> float:
        """The throughput of all days together."""
        return sum(day.jobs_per_second for day in self.days)

    @property
    def ends_at(self) -> dt.datetime | None:
        """When all of them will be finished at that throughput."""
        unfinished = sum(day.counts.waiting + day.counts.running for day in self.days)
        return expected_end(unfinished, self.jobs_per_second, self.now)


def read_fleet_progress(connection: Connection, days: Sequence[dt.date] | None = None) -> FleetProgress:
    """How far and how fast the current plans are.

    Args:
        connection: To `queue`.
        days: Which days; by default all that have a plan.
    """
    progress = read_progress(connection, days)
    recent = read_recent_work(connection, [day.plan_id for day in progress if day.is_open])
    now = connection.execute("SELECT clock_timestamp()").fetchone()
    assert now is not None  # noqa: S101  it has no FROM
    return FleetProgress(
        now[0],
        [_with_throughput(day, recent.get(day.plan_id), now[0]) for day in progress],
        count_alive(connection),
    )


def _with_throughput(day: Progress, work: RecentWork | None, now: dt.datetime) -> DayProgress:
    rate = jobs_per_second(work, now)
    return DayProgress(day, rate, expected_end(day.waiting + day.running, rate, now))
