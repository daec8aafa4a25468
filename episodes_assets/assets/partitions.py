"""The daily partitions and how a day depends on the one before."""

import datetime as dt
from collections.abc import Callable

import dagster as dg

from episodes_assets.days import FIRST_DAY

daily = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat())

one_day_before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

# A backfill of N days is one run: Dagster's backfill loop looks every 30 seconds, so a run for each
# partition of a self-dependent asset would cost 7 hours for 878 days.
whole_range = dg.BackfillPolicy.single_run()


def days_of(context: dg.AssetExecutionContext) -> list[dt.date]:
    """The days that a step is to materialise, in order."""
    return sorted(dt.date.fromisoformat(key) for key in context.partition_keys)


def days_with_ground(
    context: dg.AssetExecutionContext, has_ground: Callable[[dt.date], bool]
) -> list[dt.date]:
    """The days of a step, without the day that a backfill adds and that has nothing to stand on.

    A backfill of the graph from D to E asks for episode_jobs of E + 1 as well, and for what follows from
    it, because the tracked episodes of E feed it: Dagster targets whatever is downstream of the roots
    (`AssetBackfillData.from_asset_partitions`, 1.13). When that day's input has been taken, planning it
    again is right. When it has not, failing would fail the days that were asked for.

    Args:
        context: Of the step.
        has_ground: Whether a day has what the step builds on.
    """
    days = days_of(context)
    if "dagster/backfill" in context.run.tags and len(days) > 1 and not has_ground(days[-1]):
        context.log.warning(
            f"{days[-1]} is left out: the backfill only asks for it because it follows {days[-2]}, "
            "and its input has not been taken"
        )
        return days[:-1]
    return days
