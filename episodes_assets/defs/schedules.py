"""The schedules: daily planning, and pruning.

A missed night costs nothing: each tick looks for the days that have no plan, and they are planned in order
(catch-up). Which days those are is decided in `decisions`; jobs are `jobs`.
"""

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from episodes_assets.days import ONE_DAY
from episodes_assets.defs import decisions, runs
from episodes_assets.defs.jobs import plan_day, prune_message_log
from episodes_assets.defs.resources import InputDatabase, Lake, QueueDatabase, ResultsDatabase
from episodes_assets.errors import EpisodesError
from episodes_assets.input.reading import days_with_drop, drop_not_arrived
from episodes_assets.ledger import progress
from episodes_assets.results import state


@dg.schedule(
    job=plan_day,
    cron_schedule="*/5 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="Every five minutes, plans the days that ended an hour ago or longer and are not planned, in "
    f"order, up to {decisions.DAYS_PLANNED_AT_ONCE} in one run, as far as their drops are there: at 01:00 "
    "UTC, the day that has just ended, and with it all that were missed before. Off by default.",
)
def daily_plan(
    context: dg.ScheduleEvaluationContext,
    input_database: InputDatabase,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
    lake: Lake,
) -> dg.RunRequest | dg.SkipReason:
    """Request one run for the next days, or say what the first of them waits for.

    Level-triggered: it is decided from the databases' state, and not from earlier ticks.
    """
    now = dt.datetime.now(dt.UTC)
    newest = decisions.newest_day_to_plan(context.scheduled_execution_time)
    try:
        wanted = _days_without_plan(newest, queue_database, results_database)
        if not wanted:
            return dg.SkipReason(f"each day up to {newest} is planned")
        with_input = {*wanted} & {*lake.drops().days()}
        with_input |= days_with_drop(input_database.dsn, [day for day in wanted if day not in with_input])
        in_flight = runs.days_in_flight(context.instance, now)
        failures = runs.failed_plannings(context.instance, wanted, in_flight)
        days = decisions.days_to_plan(wanted, with_input, in_flight, failures, now)
        waiting = wanted[len(days) :]
        reason = ""
        if waiting:
            has_input = waiting[0] in with_input
            missing = "" if has_input else drop_not_arrived(input_database.dsn, waiting[0]).what
            reason = decisions.why_not_planned(waiting[0], missing, in_flight, failures)
    except EpisodesError as error:
        return dg.SkipReason(str(error))
    if waiting[1:]:
        reason += f"; after it wait {len(waiting) - 1} days, up to {waiting[-1]}"
    if not days:
        return dg.SkipReason(reason)
    if reason:
        context.log.info(reason)
    return _request(days)


def _days_without_plan(
    newest: dt.date, queue_database: QueueDatabase, results_database: ResultsDatabase
) -> list[dt.date]:
    """The days to plan next.

    Raises:
        StateGap: If the tracked history has a gap or was built on another past before the first of them.
        EpisodesError: If a database cannot be read.
    """
    with queue_database.connect_to_read() as queue:
        planned = {day.day for day in progress.read_progress(queue)}
    with results_database.connect_to_read() as results:
        latest = state.latest_day(results)
        unplanned: list[dt.date] = []
        tracked = latest
        # Left by runs that tracked a day and could not plan it.
        while tracked and tracked.origin != "import" and tracked.day not in planned:
            unplanned.append(tracked.day)
            tracked = state.read_day(results, tracked.day - ONE_DAY)
            if len(unplanned) == decisions.DAYS_PLANNED_AT_ONCE:
                break
        wanted = decisions.days_without_plan(newest, latest.day if latest else None, unplanned)
        if wanted:
            state.state_before(results, wanted[0])
    return wanted


def _request(days: Sequence[dt.date]) -> dg.RunRequest:
    """A run over days without a gap; it needs no run key, since days in flight are left alone."""
    first, last = days[0].isoformat(), days[-1].isoformat()
    if first == last:
        return dg.RunRequest(partition_key=first)
    return dg.RunRequest(tags={runs.RANGE_START: first, runs.RANGE_END: last})


nightly_pruning = dg.ScheduleDefinition(
    name="nightly_pruning",
    job=prune_message_log,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At 03:30 UTC, prune PgQueuer's log, old profiles, and what old runs have logged. On by "
    "default.",
)

SCHEDULES = (daily_plan, nightly_pruning)
