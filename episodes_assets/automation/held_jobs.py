"""The jobs by which people decide in the UI about a day's held and unfinished jobs."""

import dagster as dg
from pydantic import Field

from episodes_assets.assets.partitions import daily
from episodes_assets.assets.reporting import plain_failures
from episodes_assets.assets.run_options import NO_OPTIONS, RunOptions
from episodes_assets.days import parse_date
from episodes_assets.ledger import held
from episodes_assets.ledger.held import cancel_day
from episodes_assets.ledger.held import retry_held_jobs as retry
from episodes_assets.resources.databases import QueueDatabase
from episodes_assets.resources.launched_by import launched_by


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
def waive_held_jobs_op(context: dg.OpExecutionContext, queue_database: QueueDatabase) -> None:
    """Waive a day's held jobs."""
    options = WaiverOptions.read(context)
    day = parse_date(context.partition_key)
    with plain_failures(), queue_database.connect() as queue:
        waiver = held.waive_held_jobs(queue, day, reason=options.reason, decided_by=launched_by(context.run))
    context.log.info(f"{day} is published without {waiver.jobs:,} held jobs")


@dg.job(
    partitions_def=daily,
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
def retry_held_jobs_op(context: dg.OpExecutionContext, queue_database: QueueDatabase) -> None:
    """Retry a day's held jobs."""
    day = parse_date(context.partition_key)
    with plain_failures(), queue_database.connect() as queue:
        released = retry(queue, day)
    context.log.info(f"{released:,} held jobs of {day} wait for the fleet again")


@dg.job(
    partitions_def=daily,
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
def cancel_jobs_op(context: dg.OpExecutionContext, queue_database: QueueDatabase) -> None:
    """Cancel a day's unfinished jobs."""
    options = CancellationOptions.read(context)
    day = parse_date(context.partition_key)
    with plain_failures(), queue_database.connect() as queue:
        cancelled = cancel_day(queue, day, reason=options.reason, cancelled_by=launched_by(context.run))
    context.log.info(f"{cancelled:,} unfinished jobs of {day} are held")


@dg.job(
    partitions_def=daily,
    config={"ops": {"cancel_jobs_op": {"config": {"reason": ""}}}},
    description="Stop working a day: say why under `reason`; the name you are signed in as is recorded. What "
    "is not finished is held, so that the day is not published; `retry_held_jobs` lets it go on where it "
    "was.",
)
def cancel_jobs() -> None:
    """Cancel a day's unfinished jobs."""
    cancel_jobs_op()
