"""The daily partitions and how a day depends on the one before.

Dagster must record no day as materialised that was not worked. So no asset depends on another one's day
before, which would draw the next day into a backfill, and a step does all of its days or refuses first. What
a day is, and which is the first one, is `days.py`.
"""

import datetime as dt
import warnings

import dagster as dg

from episodes_assets.days import FIRST_DAY

# Backfill policies carry Dagster's beta mark; this project is built on them and pins Dagster.
warnings.filterwarnings("ignore", "Parameter `backfill_policy`", dg.BetaWarning)

daily = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat())

# For an asset that builds on itself alone. Dagster targets whatever is downstream of a backfill's roots
# (`AssetBackfillData.from_asset_partitions`, 1.13): were episode_jobs[D + 1] mapped to tracked_episodes[D],
# a backfill up to D would ask for D + 1 of it, and of all that follows from it.
one_day_before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)

# A backfill of N days is one run: Dagster's backfill loop looks every 30 seconds, so a run for each
# partition of a self-dependent asset would cost 7 hours for 878 days.
whole_range = dg.BackfillPolicy.single_run()


def days_of(context: dg.AssetExecutionContext) -> list[dt.date]:
    """The days that a step is to materialise, in order.

    Dagster records each of them as materialised when the step ends, so a step leaves none out: it refuses
    before it writes anything when it cannot do them all.
    """
    return sorted(dt.date.fromisoformat(key) for key in context.partition_keys)
