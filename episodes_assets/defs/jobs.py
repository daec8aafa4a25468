"""All jobs: those that automation starts, and those by which people correct a day or decide about held jobs.

`episodes correct` and `episodes jobs` do the same from the command line. When jobs are started is
`schedules` and `sensors`.
"""

import datetime as dt

import dagster as dg
from pydantic import Field

from episodes_assets.days import parse_date
from episodes_assets.defs import launches, partitions
from episodes_assets.defs.profiles import PROFILE_TAG
from episodes_assets.defs.resources import QueueDatabase
from episodes_assets.defs.steps import NO_OPTIONS, RunOptions, as_dagster_failure
from episodes_assets.ledger import held
from episodes_assets.ledger.held import retry_held_jobs as retry
from episodes_assets.ledger.profiles import prune_profiles
from episodes_assets.ledger.workers import forget_dead_workers
from episodes_assets.ledger.workers import prune_message_log as prune
from episodes_assets.outbox.records import prune_alerts
from episodes_assets.settings import Settings

_REWORK = {"episode_jobs": {"config": {"rework": True}}}
correct_day = dg.define_asset_job(
    "correct_day",
    selection=dg.AssetSelection.all(),
    config={"ops": {"take_input": {"config": {"refresh": True, "reason": ""}}, **_REWORK}},
    description="Take the input of a day anew that was wrong, plan it anew, work all its jobs again, "
    "and publish it. Choose *Open launchpad* beside *Materialize all*, pick the day, say why under `reason`: "
    "without a reason it is refused. Every later day of the history was built on the wrong one: "
    "launch `rework_days` for all of them afterwards.",
)
rework_days = dg.define_asset_job(
    "rework_days",
    selection=dg.AssetSelection.all(),
    config={"ops": _REWORK},
    description="Plan days anew from the drops they have, work all their jobs again, and publish them. "
    "Launched for a range of days, it is one run.",
)
profile_day = dg.define_asset_job(
    "profile_day",
    selection=dg.AssetSelection.all(),
    config={"ops": {"episode_jobs": {"config": {"rework": False, "as_planned": False}}}},
    tags={PROFILE_TAG: "true"},
    description="Run a day and profile it: each step, and three micro-batches of the fleet. What was seen "
    "stands with what is materialised, and on the page *Profiles*. Choose *Open launchpad* beside "
    "*Materialize all*, pick the day. Of a day that is done little is done again: set `rework` to have all "
    "its jobs worked again, and `as_planned` to have that done from the same viewings as before.",
)
_REPAIR = {"config": {"repair": True}}
repair_days = dg.define_asset_job(
    "repair_days",
    selection=dg.AssetSelection.all(),
    config={
        "ops": {
            "tracked_episodes": {"config": {"repair": True, "reason": ""}},
            "episode_jobs": _REPAIR,
            "published_results": _REPAIR,
        }
    },
    description="Put back what something else has changed, added or deleted of days in the databases `queue` "
    "and `results`: what is whole stays, and what is published again is what was published before. Choose "
    "*Open launchpad* beside *Materialize all*, pick the days that a check names, say why under `reason`: "
    "without a reason it is refused. What was repaired, why and by whom stays on record.",
)


class WaiverOptions(RunOptions):
    """The decision, as it is recorded with the name of whoever launches it. It may not stay empty."""

    reason: str = Field(
        default="",
        description="Why the day is published without its held jobs. Consumers read it in published.days.",
    )


@dg.op(
    description="Record the decision to publish the day without the jobs that are held now.",
    config_schema=WaiverOptions.config_schema(),
)
def waive_held_jobs_op(
    context: dg.OpExecutionContext, queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> None:
    """Waive a day's held jobs."""
    options = WaiverOptions.read(context)
    day = parse_date(context.partition_key)
    with as_dagster_failure(settings), queue_database.connect() as queue:
        waiver = held.waive_held_jobs(
            queue, day, reason=options.reason, decided_by=launches.launched_by(context.run)
        )
    context.log.info(f"{day} is published without {waiver.jobs:,} held jobs")


@dg.job(
    partitions_def=partitions.daily,
    config={"ops": {"waive_held_jobs_op": {"config": {"reason": ""}}}},
    description="Let a day be published without the jobs that are held now. In the *Launchpad* pick the day, "
    "say why under `reason`: without it the run is refused. The decision is recorded with the name you are "
    "signed in as, and published with the day. Jobs that are held later are not covered; "
    "`retry_held_jobs` takes jobs out of it again.",
)
def waive_held_jobs() -> None:
    """Waive a day's held jobs."""
    waive_held_jobs_op()


@dg.op(
    description="Let the day's held jobs wait for the fleet again, with their starts forgotten.",
    config_schema=NO_OPTIONS,
)
def retry_held_jobs_op(
    context: dg.OpExecutionContext, queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> None:
    """Retry a day's held jobs."""
    day = parse_date(context.partition_key)
    with as_dagster_failure(settings), queue_database.connect() as queue:
        released = retry(queue, day)
    context.log.info(f"{released:,} held jobs of {day} wait for the fleet again")


@dg.job(
    partitions_def=partitions.daily,
    description="Give a day's held jobs another round, waived ones as well. In the *Launchpad* pick the day; "
    "there is nothing to fill in. When they have succeeded, the "
    "day is published with them.",
)
def retry_held_jobs() -> None:
    """Retry a day's held jobs."""
    retry_held_jobs_op()


class CancellationOptions(RunOptions):
    """Why the work is stopped, as it is recorded with the name of whoever launches it; never empty."""

    reason: str = Field(
        default="", description="Why the day is not worked any further; it becomes part of the jobs' error."
    )


@dg.op(
    description="Hold all jobs of the day that are not finished.",
    config_schema=CancellationOptions.config_schema(),
)
def cancel_jobs_op(
    context: dg.OpExecutionContext, queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> None:
    """Cancel a day's unfinished jobs."""
    options = CancellationOptions.read(context)
    day = parse_date(context.partition_key)
    with as_dagster_failure(settings), queue_database.connect() as queue:
        cancelled = held.cancel_day(
            queue, day, reason=options.reason, cancelled_by=launches.launched_by(context.run)
        )
    context.log.info(f"{cancelled:,} unfinished jobs of {day} are held")


@dg.job(
    partitions_def=partitions.daily,
    config={"ops": {"cancel_jobs_op": {"config": {"reason": ""}}}},
    description="Stop working a day: say why under `reason`; the name you are signed in as is recorded. What "
    "is not finished is held, so that the day is not published; `retry_held_jobs` lets it go on where it "
    "was.",
)
def cancel_jobs() -> None:
    """Cancel a day's unfinished jobs."""
    cancel_jobs_op()


plan_day = dg.define_asset_job(
    "plan_day",
    selection=["input_episodes", "input_viewings", "tracked_episodes", "episode_jobs"],
    description="Take the day's drop and viewings, extend the tracked episodes, plan the jobs.",
    tags={
        # Up to six hours of waiting for the drop, where a launch configures that, and one of work.
        "dagster/max_runtime": str(7 * 3600),
        # Before days that wait to be published, in Dagster's queue: workers have nothing to do without it.
        "dagster/priority": "1",
    },
)
publish_day = dg.define_asset_job(
    "publish_day",
    selection=["job_outcomes", "published_results"],
    description="Collect the outcomes of a day whose jobs are done, and publish them.",
    tags={"dagster/max_runtime": str(3600)},
)


@dg.op(
    description="Delete old rows of PgQueuer's log of finished messages, old profiles, old alerts, old "
    "events of runs, and workers that are gone.",
    config_schema=NO_OPTIONS,
)
def prune_message_log_op(
    context: dg.OpExecutionContext, queue_database: QueueDatabase, settings: dg.ResourceParam[Settings]
) -> None:
    """Prune the queue's and Dagster's logs."""
    with queue_database.connect() as connection:
        rows = prune(connection, settings.queue_log_days)
        workers = forget_dead_workers(connection)
        old = prune_profiles(connection, settings.profile_days)
        alerts = prune_alerts(connection)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=settings.run_log_days)
    from episodes_assets.defs import storage  # half a second to import, for this job alone

    events = storage.prune_run_events(context.instance, before)
    context.log.info(
        f"{rows:,} log rows, {old:,} profiles, {alerts:,} alerts and {events:,} events of runs deleted,"
        f" {workers:,} workers forgotten"
    )


@dg.job(
    description="Keep PgQueuer's log of finished messages, profiles, alerts, Dagster's event log, and the "
    "list of workers from growing for ever."
)
def prune_message_log() -> None:
    """Delete what is old. Its name is of when that was the log alone, and its runs are found by it."""
    prune_message_log_op()


JOBS = (
    plan_day,
    publish_day,
    correct_day,
    rework_days,
    profile_day,
    repair_days,
    retry_held_jobs,
    waive_held_jobs,
    cancel_jobs,
    prune_message_log,
)
