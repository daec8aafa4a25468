"""The schedules."""

import datetime as dt

import dagster as dg

from episodes_assets.automation.jobs import plan_day, prune_message_log

ARRIVAL_RETRIES = 36
ARRIVAL_RETRY_SECONDS = 600


@dg.schedule(
    job=plan_day,
    cron_schedule="0 1 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="At 01:00 UTC, plan the day that has just ended; wait up to six hours for its drop. "
    "Off by default.",
)
def daily_plan(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Plan the day before the tick's."""
    yesterday = context.scheduled_execution_time.astimezone(dt.UTC).date() - dt.timedelta(days=1)
    return dg.RunRequest(
        partition_key=yesterday.isoformat(),
        run_config=dg.RunConfig(
            ops={
                "input_episodes": {
                    "config": {
                        "arrival_retries": ARRIVAL_RETRIES,
                        "arrival_retry_seconds": ARRIVAL_RETRY_SECONDS,
                    }
                }
            }
        ),
    )


nightly_pruning = dg.ScheduleDefinition(
    name="nightly_pruning",
    job=prune_message_log,
    cron_schedule="30 3 * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="At 03:30 UTC, prune PgQueuer's log. On by default.",
)
