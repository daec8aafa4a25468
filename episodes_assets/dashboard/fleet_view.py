"""What the Fleet page shows, read from the queue and cut to what a person can take in."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from episodes_assets.dashboard.sparkline import Sparkline, draw
from episodes_assets.errors import DayNotPlanned
from episodes_assets.postgres.connect import Connection, connect_to_read
from episodes_assets.postgres.databases import Database
from episodes_assets.stores import ledger
from episodes_assets.stores.fleet_progress import DayProgress, read_fleet_progress
from episodes_assets.stores.held_jobs import SharedError, ShownJob, read_held_jobs, read_shared_errors
from episodes_assets.stores.ledger import Progress
from episodes_assets.stores.throughput import read_throughput
from episodes_assets.stores.workers import Worker, read_workers

DAYS_SHOWN = 30
FINISHED_SHOWN = 3
WORKERS_SHOWN = 100
HELD_OF_EACH_DAY = 3
HELD_SHOWN = 12
HELD_ON_A_PAGE = 50
ERRORS_SHOWN = 10
# A worker that falls silent is news for so long.
GONE_FOR = dt.timedelta(minutes=10)
BUCKET_SECONDS = 10
BUCKETS = 60


@dataclass(frozen=True)
class Fleet:
    """The fleet at one moment.

    Attributes:
        now: That moment, by the queue's clock.
        days: Days that are not finished, the first ones.
        more_days: How many more there are.
        finished: The days that were planned last among the finished ones.
        jobs_per_second: The pace of all days together.
        ends_at: When all will be finished at that pace; None when that cannot be told.
        workers: Workers that live, and those that have ended or fallen silent lately.
        alive: How many live.
        more_workers: How many are not shown.
        throughput: Jobs a second over the last minutes.
        held: Some of the held jobs of each day.
        held_total: How many jobs are held, waived ones not counted.
    """

    now: dt.datetime
    days: Sequence[DayProgress]
    more_days: int
    finished: Sequence[Progress]
    jobs_per_second: float
    ends_at: dt.datetime | None
    workers: Sequence[Worker]
    alive: int
    more_workers: int
    throughput: Sparkline
    held: Sequence[ShownJob]
    held_total: int


@dataclass(frozen=True)
class HeldPage:
    """Some of a day's held and waived jobs.

    Attributes:
        counts: The day's jobs by state.
        errors: What jobs of it are held or waived for, the most frequent first.
        jobs: Some of them.
        next_after: Where the next ones begin; None when these are the last.
        is_first: Whether these are the first.
    """

    counts: Progress
    errors: Sequence[SharedError]
    jobs: Sequence[ShownJob]
    next_after: int | None
    is_first: bool


def read_fleet(queue_dsn: str) -> Fleet:
    """The fleet as it is now.

    Raises:
        DatabaseUnreachable: If the queue cannot be reached.
        NotProvisioned: If it has no schema.
    """
    with connect_to_read(queue_dsn, Database.QUEUE) as queue:
        progress = read_fleet_progress(queue)
        unfinished = [day for day in progress.days if not day.counts.is_done]
        shown = unfinished[:DAYS_SHOWN]
        done = sorted((day.counts for day in progress.days if day.counts.is_done), key=lambda d: d.plan_id)
        workers = read_workers(queue, GONE_FOR)
        return Fleet(
            now=progress.now,
            days=shown,
            more_days=len(unfinished) - len(shown),
            finished=done[: -FINISHED_SHOWN - 1 : -1],
            jobs_per_second=progress.jobs_per_second,
            ends_at=progress.ends_at,
            workers=workers[:WORKERS_SHOWN],
            alive=sum(worker.is_alive for worker in workers),
            more_workers=max(len(workers) - WORKERS_SHOWN, 0),
            throughput=draw(read_throughput(queue, bucket_seconds=BUCKET_SECONDS, buckets=BUCKETS)),
            held=_some_held(queue, [day.counts for day in unfinished]),
            held_total=sum(day.counts.held for day in unfinished),
        )


def _some_held(queue: Connection, days: Sequence[Progress]) -> list[ShownJob]:
    plans = [day.plan_id for day in days if day.held][:HELD_SHOWN]
    found = read_held_jobs(queue, plans, HELD_OF_EACH_DAY) if plans else []
    return found[:HELD_SHOWN]


def read_day(queue_dsn: str, day: dt.date) -> Progress:
    """How far a day is.

    Raises:
        DayNotPlanned: If it has no plan.
        DatabaseUnreachable: If the queue cannot be reached.
    """
    with connect_to_read(queue_dsn, Database.QUEUE) as queue:
        return _require_progress(queue, day)


def read_held_page(queue_dsn: str, day: dt.date, after: int) -> HeldPage:
    """The held and waived jobs of a day behind a position.

    Raises:
        DayNotPlanned: If it has no plan.
        DatabaseUnreachable: If the queue cannot be reached.
    """
    with connect_to_read(queue_dsn, Database.QUEUE) as queue:
        counts = _require_progress(queue, day)
        found = read_held_jobs(queue, [counts.plan_id], HELD_ON_A_PAGE + 1, after)
        jobs = found[:HELD_ON_A_PAGE]
        return HeldPage(
            counts=counts,
            errors=read_shared_errors(queue, counts.plan_id, ERRORS_SHOWN),
            jobs=jobs,
            next_after=jobs[-1].position if len(found) > len(jobs) else None,
            is_first=after < 0,
        )


def _require_progress(queue: Connection, day: dt.date) -> Progress:
    for progress in ledger.read_progress(queue, [day]):
        return progress
    raise DayNotPlanned(f"{day} has no planned jobs", f"materialise episode_jobs of {day}")
