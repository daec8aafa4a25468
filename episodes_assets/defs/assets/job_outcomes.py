"""`job_outcomes`: waits until the workers have finished the day's jobs; with its checks and metadata.

The step reports progress and fails when a day stalls. Its metadata are a plot, durations, the slowest batches
and the jobs that are left out. The check `each_open_day_progresses` can be run by hand, and a sensor raises
it as an alert. Jobs are computed by `worker/`, never here.
"""

import datetime as dt
import time
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.checks import ledger
from episodes_assets.checks.verdicts import Verdict, name_days
from episodes_assets.defs import partitions, profiles, steps, tables
from episodes_assets.defs.metadata import days_table, image, jobs_over_time, table
from episodes_assets.defs.progress import FAILED_SHOWN, ProgressReports, failed_table
from episodes_assets.defs.resources import QueueDatabase
from episodes_assets.errors import FleetStalled, JobsHeld, PlanDamaged
from episodes_assets.ledger import batches, dispatch, held, plans, verify
from episodes_assets.ledger import progress as ledger_progress
from episodes_assets.ledger.held import read_held
from episodes_assets.postgres.connect import Connection, one_snapshot
from episodes_assets.settings import Settings


@dg.asset_check(
    asset="job_outcomes",
    name=ledger.EACH_OPEN_DAY_PROGRESSES,
    description="Of each day with unfinished jobs, some job was finished within EPISODES_STALL_MINUTES.",
    config_schema=steps.NO_OPTIONS,
)
def each_open_day_progresses(
    queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> dg.AssetCheckResult:
    """Look at all days with unfinished jobs."""
    with steps.as_dagster_failure(settings), queue_database.connect_to_read() as queue:
        return steps.check_result(check_progress(queue, settings))


def check_progress(queue: Connection, settings: Settings) -> Verdict:
    """The verdict of `each_open_day_progresses` on all days, as the settings define a stall."""
    found = ledger_progress.open_days(queue, dt.timedelta(seconds=settings.heartbeat_seconds))
    return ledger.each_open_day_progresses(
        found, dt.datetime.now(dt.UTC), dt.timedelta(minutes=settings.stall_minutes)
    )


CHECKS = [
    dg.AssetCheckSpec(
        ledger.EVERY_JOB_HAS_ONE_OUTCOME,
        asset="job_outcomes",
        blocking=True,
        description="Each job of the plan is accounted for once: jobs = outcomes + waived jobs.",
    )
]


SLOWEST_SHOWN = 10


def describe_work(connection: Connection, progress: Sequence[ledger_progress.Progress]) -> dict[str, Any]:
    """Metadata of bounded size, however many days and jobs there were.

    Plans that were worked before durations were kept have no plot, and none in the tables.

    Args:
        connection: To `queue`.
        progress: The days, finished.
    """
    plans = [day.plan_id for day in progress]
    metadata: dict[str, Any] = {}
    if points := batches.finished_over_time(connection, plans):
        metadata["jobs over time"] = image(
            jobs_over_time(points, sum(day.jobs for day in progress)), "jobs finished over time"
        )
    if by_algorithm := batches.durations_by_algorithm(connection, plans):
        metadata["durations by algorithm"] = table([_duration(each) for each in by_algorithm])
        metadata["slowest jobs"] = table(
            [_slow(each) for each in batches.slowest_batches(connection, plans, SLOWEST_SHOWN)]
        )
    if failed := [day.plan_id for day in progress if day.failed]:
        metadata["failed jobs"] = failed_table(held.read_held_first(connection, failed, FAILED_SHOWN))
    return metadata


def _duration(each: batches.AlgorithmDuration) -> dict[str, Any]:
    return {
        "algorithm": get_registry().name_of(each.algorithm_id),
        "jobs": each.jobs,
        "batches": each.batches,
        "seconds": round(each.seconds, 3),
        "jobs per second": round(each.jobs / each.seconds, 1) if each.seconds else 0.0,
        "median of a batch": round(each.median, 4),
        "95th percentile": round(each.p95, 4),
    }


def _slow(each: batches.SlowBatch) -> dict[str, Any]:
    is_alone = each.epid is not None and each.algorithm_id is not None
    return {
        "day": str(each.day),
        "what": f"epid {each.epid}, {get_registry().name_of(each.algorithm_id or 0)}"
        if is_alone
        else f"{each.jobs:,} jobs",
        "chunk": each.chunk,
        "seconds": round(each.seconds, 3),
        "seconds for each": round(each.seconds / each.jobs, 5),
        "worker": each.worker,
    }


CODE_VERSION = "1"
POLL_SECONDS = 0.25
REPORT_SECONDS = 10.0
RESEND_SECONDS = 10.0
HELD_SHOWN = 50


@dg.asset(
    deps=["episode_jobs"],
    partitions_def=partitions.daily,
    backfill_policy=partitions.whole_range,
    group_name="fleet",
    kinds={"postgres"},
    owners=steps.TEAM,
    code_version=CODE_VERSION,
    metadata=tables.OUTCOMES.metadata,
    check_specs=CHECKS,
    config_schema=steps.NO_OPTIONS,
)
def job_outcomes(
    context: dg.AssetExecutionContext, queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> steps.Events:
    """An outcome for each of the day's jobs, worked by the fleet.

    Makes sure the day is handed to the fleet, waits until every job is finished, and fails with the
    list of what is held, or when no job finishes for too long. It does not fail for jobs that are waived.

    When jobs are held, fix the cause and launch `retry_held_jobs`, or let the day be published without
    them by `waive_held_jobs`. To stop the work on a day, launch `cancel_jobs`.
    """
    clock = steps.Stopwatch()
    with (
        profiles.profiled(context, queue_database, settings, is_of_fleet=True),
        steps.as_dagster_failure(settings),
        queue_database.connect() as queue,
    ):
        days = partitions.days_of(context)
        for day in days:
            plans.require_plan(queue, day)
        for day in days:
            sent = dispatch.fan_out_day(queue, day)
            context.log.info(f"{day}: {sent.jobs:,} jobs, {sent.messages:,} messages enqueued")
        reports = ProgressReports(context, queue)
        progress = _wait(context, queue, days, settings, reports)
        for each in progress:
            if each.waived:
                context.log.warning(f"{each.day}: without {each.waived:,} failed jobs: {each.decision}")
        reports.report_failures(progress)
        _refuse_held(context, queue, progress)
        work = describe_work(queue, progress)
        verdict = ledger.every_job_has_one_outcome(
            verify.count_outcomes(queue, [day.plan_id for day in progress])
        )
    yield from steps.conclude(
        {
            "succeeded": sum(day.succeeded for day in progress),
            "left out": sum(day.waived for day in progress),
            **work,
            **days_table(
                context,
                [
                    {
                        "day": str(day.day),
                        "succeeded": day.succeeded,
                        "left out": day.waived,
                        "decision": day.decision,
                    }
                    for day in progress
                ],
                row_counts=[day.succeeded for day in progress],
            ),
            "seconds": clock.seconds,
        },
        [verdict],
    )


class Every:
    """A timer that is due at an interval, for the first time after the first interval.

    Args:
        seconds: The interval.
        clock: Returns the time, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._last = clock()

    def is_due(self) -> bool:
        """Whether the interval is over; the next one begins if so."""
        now = self._clock()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class StallClock:
    """Detects that no job of the awaited days was finished for too long.

    Only when the limit is over, and again after each further limit, is the database asked which days are
    stalled: the fleet may be working on other days, so that the turn of these has not come.

    Args:
        limit: How long no job may be finished.
        find_stalled: Reads which of the awaited days are stalled.
        clock: Returns the time, in seconds.
    """

    def __init__(
        self,
        limit: dt.timedelta,
        find_stalled: Callable[[], Sequence[ledger.OpenDay]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._find_stalled = find_stalled
        self._clock = clock
        self._finished = -1
        self._moved = clock()

    def refuse_stall(self, finished: int) -> None:
        """Raise if a day is stalled.

        Args:
            finished: How many jobs are finished by now.

        Raises:
            FleetStalled: If none was finished within the limit, and a day is stalled.
        """
        now = self._clock()
        if finished == self._finished:
            if now - self._moved <= self._limit.total_seconds():
                return
            if stalled := self._find_stalled():
                first = min(stalled, key=lambda day: day.moved_at)
                minutes = self._limit / dt.timedelta(minutes=1)
                raise FleetStalled(
                    f"no job finished for {minutes:g} minutes; of {first.day} {first.what_is_stuck}",
                    first.what_to_do,
                )
        self._finished, self._moved = finished, now


def _wait(
    context: dg.AssetExecutionContext,
    queue: Connection,
    days: Sequence[dt.date],
    settings: Settings,
    reports: ProgressReports,
) -> list[ledger_progress.Progress]:
    """Wait until no job of the days is open, and return their progress.

    Raises:
        FleetStalled: If a day is stalled.
    """
    report_due, resend_due = Every(REPORT_SECONDS), Every(RESEND_SECONDS)
    stall = StallClock(
        dt.timedelta(minutes=settings.stall_minutes), lambda: _find_stalled(queue, days, settings)
    )
    while True:
        progress = ledger_progress.read_progress(queue, days)
        open_ones = [day.day for day in progress if day.is_open]
        finished = sum(day.succeeded + day.failed for day in progress)
        if report_due.is_due() or not open_ones:
            context.log.info(f"{finished:,} of {sum(day.jobs for day in progress):,} jobs finished")
        if not open_ones:
            return progress
        reports.report(progress)
        if resend_due.is_due():  # as the sensor `fan_out` does, if Dagster's daemon is running
            _resend(context, queue, open_ones)
        stall.refuse_stall(finished)
        time.sleep(POLL_SECONDS)


def _resend(context: dg.AssetExecutionContext, queue: Connection, days: Sequence[dt.date]) -> None:
    for day in days:
        if messages := dispatch.fan_out_day(queue, day).messages:
            context.log.warning(f"{day}: {messages:,} messages were lost and are sent again")


def _find_stalled(queue: Connection, days: Sequence[dt.date], settings: Settings) -> list[ledger.OpenDay]:
    found = ledger_progress.open_days(queue, dt.timedelta(seconds=settings.heartbeat_seconds), days)
    return ledger.stalled_days(found, dt.datetime.now(dt.UTC), dt.timedelta(minutes=settings.stall_minutes))


def _refuse_held(
    context: dg.AssetExecutionContext, queue: Connection, progress: Sequence[ledger_progress.Progress]
) -> None:
    days = [day.day for day in progress if day.held]
    if not days:
        return
    plan_ids = [day.plan_id for day in progress if day.held]
    with one_snapshot(queue):
        held = read_held(queue, plan_ids, each=HELD_SHOWN, most=HELD_SHOWN, is_waived=False)
        counted = [day for day in ledger_progress.read_progress(queue, days) if day.held]
    for job in held:
        context.log.error(
            f"{job.day} epid {job.epid} algorithm {job.algorithm_id}: {job.error} (after {job.starts} starts)"
        )
    total = sum(day.held for day in progress)
    if counted and not held:
        raise PlanDamaged(
            f"{sum(day.held for day in counted):,} jobs of {name_days([day.day for day in counted])} count as"
            " held, and nothing says which: something else writes to the schema `ledger`",
            f"stop it, then run `episodes run {counted[0].day} --repair --reason WHY`",
        )
    if not held:
        raise JobsHeld(
            f"{total:,} jobs were held, and have been retried, waived or planned anew meanwhile",
            "materialise job_outcomes again",
        )
    first = held[0]
    raise JobsHeld(
        f"{total:,} jobs are held, among them epid {first.epid} of {first.day} "
        f"for algorithm {first.algorithm_id} ({first.error})",
        f"fix the cause, then `episodes jobs retry {days[0]}`, or publish the day without them by "
        f"`episodes jobs waive {days[0]}`{', and so on for each day' if len(days) > 1 else ''}; "
        "the step's log lists them",
    )
