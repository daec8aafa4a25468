"""`tracked_episodes`: which episodes have been caught up from their premiere; with its check.

Its statements are `results/state.py`.
"""

import datetime as dt

import dagster as dg

from episodes_assets.checks.lake import refuse_large_quarantine
from episodes_assets.checks.results import STATE_ONLY_GROWS, state_only_grows
from episodes_assets.days import ONE_DAY
from episodes_assets.defs import metadata, partitions, profiles, steps, tables
from episodes_assets.defs.resources import Lake, QueueDatabase, ResultsDatabase
from episodes_assets.errors import StateGap
from episodes_assets.planning.jobs import newly_tracked_of_day
from episodes_assets.results import repairs, state, verify
from episodes_assets.settings import Settings

CHECKS = [
    dg.AssetCheckSpec(
        STATE_ONLY_GROWS,
        asset="tracked_episodes",
        blocking=True,
        description="The stored episodes are those of the manifest, never fewer than the day before, and "
        "the chain of checksums is unbroken.",
    )
]


CODE_VERSION = "1"


@dg.asset(
    deps=[
        "input_episodes",
        dg.AssetDep("tracked_episodes", partition_mapping=partitions.one_day_before),
    ],
    partitions_def=partitions.daily,
    backfill_policy=partitions.whole_range,
    group_name="planning",
    kinds={"postgres", "pandas"},
    owners=steps.TEAM,
    code_version=CODE_VERSION,
    metadata=tables.TRACKED_EPISODES.metadata,
    check_specs=CHECKS,
    config_schema=steps.RepairOptions.config_schema(),
)
def tracked_episodes(
    context: dg.AssetExecutionContext,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
    lake: Lake,
    settings: dg.ResourceParam[Settings],
) -> steps.Events:
    """All episodes tracked as of the day: yesterday's, and those of `reach` that have premiered.

    Stored once per episode with the day it was first tracked. A day refuses to build on a missing or
    different yesterday; with no history at all it begins one.

    After a day was corrected, launch `rework_days` for all days after it, which were built on the old one.
    """
    clock = steps.Stopwatch()
    options = steps.RepairOptions.read(context)
    recorded: list[state.TrackedDay] = []
    changes = 0
    with (
        profiles.profiled(context, queue_database, settings),
        steps.as_dagster_failure(settings),
        results_database.connect() as connection,
        results_database.connect() as lock,
        state.only_writer(lock),
    ):
        days = partitions.days_of(context)
        repair = options.decision(context)
        drops = lake.drops()
        taken = drops.require_all(days)
        yesterday = state.state_before(connection, days[0])
        if yesterday is None:
            context.log.info(f"{days[0]} begins the history: nothing is tracked before it")
        tracked = state.read_tracked(results_database.dsn, yesterday)
        if repair and yesterday:
            _refuse_damaged_past(
                verify.find_damaged_state(connection, results_database.dsn, yesterday.day), days[-1]
            )
        before = tracked.as_of(days[0] - ONE_DAY)
        for day, drop in zip(days, taken, strict=True):
            refuse_large_quarantine(day, drop.quarantined_rows, drop.drop_rows, settings.quarantine_limit)
            parts = drops.read_drop(drop, ["epid", "algorithm_id", "premier_date"])
            new = newly_tracked_of_day(parts, before, day)
            yesterday, changed = state.record_day(
                connection,
                day,
                new,
                yesterday=yesterday,
                snapshot_id=drop.snapshot_id,
                code_version=CODE_VERSION,
                repair=repair,
            )
            context.log.info(
                f"{day}: {yesterday.newly_tracked:,} newly tracked, {yesterday.total:,} in all"
                f"{'' if changed else ' (unchanged)'}"
            )
            before = before.plus(new)
            changes += changed
            recorded.append(yesterday)
        steps.report_repairs(context, connection, repair)
        verdict = state_only_grows(verify.read_state_days(connection, results_database.dsn, days), days)
    yield from steps.conclude(
        {
            "newly tracked": sum(day.newly_tracked for day in recorded),
            "tracked in all": recorded[-1].total,
            "origin": recorded[0].origin,
            "checksum": recorded[-1].checksum,
            "days changed": changes,
            **metadata.days_table(
                context,
                [
                    {
                        "day": str(day.day),
                        "newly tracked": day.newly_tracked,
                        "tracked in all": day.total,
                        "snapshot": day.snapshot_id,
                    }
                    for day in recorded
                ],
                row_counts=[day.total for day in recorded],
            ),
            "seconds": clock.seconds,
        },
        [verdict],
    )


def _refuse_damaged_past(damaged: dt.date | None, last: dt.date) -> None:
    """Refuse to repair a day if an earlier one, from which it would be computed, is damaged as well."""
    if damaged is not None:
        raise StateGap(
            f"the tracked episodes of {damaged}, an earlier day, are damaged as well",
            f"run `{repairs.repair_command(damaged, last)}`",
        )
