"""How far and how fast the fleet is: the ledger's progress with its pace, its end and the workers."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.planning.throughput import RECENT, RecentWork, expected_end, jobs_per_second
from episodes_assets.postgres.connect import Connection
from episodes_assets.stores import ledger, workers
from episodes_assets.stores.ledger import Progress


@dataclass(frozen=True)
class DayProgress:
    """How far a day is, and how fast.

    Attributes:
        counts: Its jobs by state.
        jobs_per_second: The pace of the last minute.
        ends_at: When its jobs will be finished at that pace; None when it cannot be told, or they are.
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
        workers: Workers that live.
    """

    now: dt.datetime
    days: Sequence[DayProgress]
    workers: int

    @property
    def jobs_per_second(self) -> float:
        """The pace of all days together."""
        return sum(day.jobs_per_second for day in self.days)

    @property
    def ends_at(self) -> dt.datetime | None:
        """When all of them will be finished at that pace."""
        unfinished = sum(day.counts.waiting + day.counts.running for day in self.days)
        return expected_end(unfinished, self.jobs_per_second, self.now)


def read_fleet_progress(connection: Connection, days: Sequence[dt.date] | None = None) -> FleetProgress:
    """How far and how fast the current plans are.

    Args:
        connection: To `queue`.
        days: Which days; by default all that have a plan.
    """
    progress = ledger.read_progress(connection, days)
    recent = _read_recent_work(connection, [day.plan_id for day in progress if day.is_open])
    now = connection.execute("SELECT clock_timestamp()").fetchone()
    assert now is not None  # noqa: S101  it has no FROM
    return FleetProgress(
        now[0],
        [_pace(day, recent.get(day.plan_id), now[0]) for day in progress],
        workers.count_alive(connection),
    )


def _pace(day: Progress, work: RecentWork | None, now: dt.datetime) -> DayProgress:
    rate = jobs_per_second(work, now)
    return DayProgress(day, rate, expected_end(day.waiting + day.running, rate, now))


def _read_recent_work(connection: Connection, plan_ids: Sequence[int]) -> dict[int, RecentWork]:
    """What was finished within `RECENT`, by plan."""
    rows = connection.execute(
        """
        WITH recent AS MATERIALIZED (SELECT * FROM ledger.batches WHERE finished_at > now() - %s)
        SELECT plan_id, sum(jobs)::int, min(finished_at - make_interval(secs => seconds))
        FROM recent WHERE plan_id = ANY (%s) GROUP BY plan_id
        """,
        [RECENT, list(plan_ids)],
    ).fetchall()
    return {plan_id: RecentWork(jobs, began) for plan_id, jobs, began in rows}
