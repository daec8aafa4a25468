"""The jobs that automation starts, and people may."""

import dagster as dg

from episodes_assets.assets.run_options import NO_OPTIONS
from episodes_assets.ledger.workers import forget_dead_workers
from episodes_assets.ledger.workers import prune_message_log as prune
from episodes_assets.resources.databases import QueueDatabase
from episodes_assets.settings import load_settings

plan_day = dg.define_asset_job(
    "plan_day",
    selection=["input_episodes", "input_viewings", "tracked_episodes", "episode_jobs"],
    description="Take the day's drop and viewings, extend the tracked episodes, plan the jobs.",
    # For whoever launches it to wait six hours for the drop, and an hour to work.
    tags={"dagster/max_runtime": str(7 * 3600)},
)

publish_day = dg.define_asset_job(
    "publish_day",
    selection=["job_outcomes", "published_results"],
    description="Collect the outcomes of a day whose jobs are done, and publish them.",
    tags={"dagster/max_runtime": str(3600)},
)


@dg.op(
    description="Delete old rows of PgQueuer's log of finished messages, and workers that are gone.",
    config_schema=NO_OPTIONS,
)
def prune_message_log_op(context: dg.OpExecutionContext, queue_database: QueueDatabase) -> None:
    """Prune PgQueuer's log."""
    with queue_database.connect() as connection:
        rows = prune(connection, load_settings().queue_log_days)
        workers = forget_dead_workers(connection)
    context.log.info(f"{rows:,} log rows deleted, {workers:,} workers forgotten")


@dg.job(
    description="Keep PgQueuer's log of finished messages, and the list of workers, from growing for ever."
)
def prune_message_log() -> None:
    """Prune PgQueuer's log."""
    prune_message_log_op()
