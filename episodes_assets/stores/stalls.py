"""Days whose jobs are with the fleet and come to no end, and what is stuck in them."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from episodes_assets.databases.connections import Connection


@dataclass(frozen=True)
class OpenDay:
    """A day with unfinished jobs, as the ledger and PgQueuer have it.

    Attributes:
        day: The day.
        waiting: Jobs that no worker has claimed.
        running: Jobs that a worker has claimed.
        moved_at: When a job was finished or retried last, or else when the day was handed to the fleet or
            planned.
        claimed_by: The worker that holds the oldest claim; None when there is none.
        claimed_at: When it took it.
        messages: Live messages of the day.
        lost_messages: Unfinished chunks that no live message names.
        silent_messages: Messages that a worker has picked and does not beat its heart for.
        fleet_moved_at: When a job of any day was finished or retried last; None when none ever was.
    """

    day: dt.date
    waiting: int
    running: int
    moved_at: dt.datetime
    claimed_by: str | None
    claimed_at: dt.datetime | None
    messages: int
    lost_messages: int
    silent_messages: int
    fleet_moved_at: dt.datetime | None

    @property
    def jobs(self) -> int:
        """Unfinished jobs."""
        return self.waiting + self.running

    def is_stalled(self, now: dt.datetime, limit: dt.timedelta) -> bool:
        """Whether nothing has been finished for too long, and not because others are served first."""
        if now - self.moved_at <= limit:
            return False
        fleet_moves = self.fleet_moved_at is not None and now - self.fleet_moved_at <= limit
        has_its_turn = self.claimed_at is not None and now - self.claimed_at > limit
        return has_its_turn or not fleet_moves or self.lost_messages > 0 or self.silent_messages > 0

    def describe(self) -> str:
        """What is stuck since when and what to do, as a line for people."""
        return (
            f"{self.day}: nothing finished since {self.moved_at:%Y-%m-%d %H:%M} UTC: {self.what_is_stuck}. "
            f"What to do: {self.what_to_do}"
        )

    @property
    def what_is_stuck(self) -> str:
        """One clause for people."""
        if self.silent_messages:
            return (
                f"{self.running:,} jobs are claimed, and the workers of {self.silent_messages:,} messages "
                f"have fallen silent, among them {self.claimed_by}"
            )
        if self.running:
            return (
                f"{self.running:,} jobs are running and none has ended; "
                f"{self.claimed_by} has had its own since {self.claimed_at:%H:%M:%S} UTC"
            )
        if self.lost_messages:
            return f"{self.waiting:,} jobs wait, and {self.lost_messages:,} of their messages are missing"
        return f"{self.waiting:,} jobs wait in {self.messages:,} messages, and no worker takes them"

    @property
    def what_to_do(self) -> str:
        """One clause for people."""
        if self.running:
            return (
                "read the log of that worker; a job that hangs is ended at its time limit "
                "(EPISODES_JOB_TIMEOUT_SECONDS), a worker that is gone loses its jobs to the others"
            )
        if self.lost_messages:
            return "switch the sensor fan_out on, or materialise job_outcomes: both send them again"
        return (
            "see that workers run (`episodes worker`) and reach the queue and the lake, then "
            "materialise job_outcomes again"
        )


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
