"""`published_results`: the day as consumers see it; with its checks, restore point, titles and top ten.

Publishing itself is `results/publish.py`, restore points `results/restore_points.py`, what the
materialisation shows of the rows `results/rows.py`.
"""

import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.checks.results import (
    PUBLISHED_ROWS_ARE_THE_OUTCOMES,
    YESTERDAY_IS_PUBLISHED,
    due_day,
    published_rows_are_the_outcomes,
    yesterday_is_published,
)
from episodes_assets.checks.verdicts import Verdict
from episodes_assets.days import ONE_DAY
from episodes_assets.defs import metadata, partitions, profiles, steps, tables
from episodes_assets.defs.assets.input import check_late_viewings
from episodes_assets.defs.resources import DagsterDatabase, Lake, OwnDatabase, QueueDatabase, ResultsDatabase
from episodes_assets.errors import EpisodesError
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger import plans
from episodes_assets.planning.throughput import MOST_POINTS
from episodes_assets.postgres.connect import Connection
from episodes_assets.postgres.databases import Database
from episodes_assets.results import publications, publish, restore_points, verify
from episodes_assets.results.publications import PublishedDay
from episodes_assets.results.rows import Order, Selection, read_page
from episodes_assets.settings import Settings

CHECKS = [
    dg.AssetCheckSpec(
        PUBLISHED_ROWS_ARE_THE_OUTCOMES,
        asset="published_results",
        blocking=True,
        description="The rows read back, the outcomes in the ledger and the manifest agree.",
    ),
    dg.AssetCheckSpec(
        YESTERDAY_IS_PUBLISHED,
        asset="published_results",
        description="The day that ended last is published by EPISODES_PUBLISHED_BY_HOUR. Looked at again "
        "every minute by the sensor `freshness`.",
    ),
]


def check_freshness(results: Connection, now: dt.datetime, hour: int) -> Verdict:
    """The verdict of `yesterday_is_published` at a time."""
    due = due_day(now, hour)
    return yesterday_is_published(due, hour, verify.read_publications(results, due))


TOP = 10


@dg.asset(
    deps=["job_outcomes"],
    partitions_def=partitions.daily,
    backfill_policy=partitions.whole_range,
    group_name="results",
    kinds={"postgres"},
    owners=steps.TEAM,
    code_version=publish.CODE_VERSION,
    metadata=tables.RESULTS.metadata,
    check_specs=CHECKS,
    config_schema=steps.RepairOptions.config_schema(),
)
def published_results(
    context: dg.AssetExecutionContext,
    queue_database: QueueDatabase,
    results_database: ResultsDatabase,
    dagster_database: DagsterDatabase,
    lake: Lake,
    settings: dg.ResourceParam[Settings],
) -> steps.Events:
    """The day's outcomes in the results database, replaced in one transaction.

    A reader sees the day as it was or as it is. Publishing the same outcomes again changes nothing.

    The sensor `publish_finished_days` publishes each day as soon as its jobs are done; materialise a day by
    hand only where that is switched off.
    """
    clock = steps.Stopwatch()
    options = steps.RepairOptions.read(context)
    days: list[PublishedDay] = []
    changes = 0
    with (
        profiles.profiled(context, queue_database, settings),
        steps.as_dagster_failure(settings),
        queue_database.connect() as queue,
        results_database.connect() as results,
    ):
        repair = options.decision(context)
        viewings = lake.viewings()
        for day in partitions.days_of(context):
            plans.require_plan(queue, day)
        for day in partitions.days_of(context):
            manifest, changed = publish.publish_day(
                queue, results, viewings, day, publish.CODE_VERSION, repair
            )
            context.log.info(f"{day}: {manifest.rows:,} rows{'' if changed else ' (unchanged)'}")
            if manifest.left_out:
                context.log.warning(f"{day}: without {manifest.left_out:,} failed jobs: {manifest.decision}")
            changes += changed
            days.append(manifest)
        steps.report_repairs(context, results, repair)
        _record_titles(context, results, lake, days)
        _look_at_late_viewings(context, results, viewings, days[-1].day)
        shown = _show(results, days[-1].day)
        verdicts = [
            published_rows_are_the_outcomes(verify.read_publication(queue, results, days)),
            check_freshness(results, dt.datetime.now(dt.UTC), settings.published_by_hour),
        ]
    left_out = sum(day.left_out for day in days)
    yield from steps.conclude(
        {
            "left out": left_out,
            **shown,
            "days changed": changes,
            **metadata.days_table(
                context,
                [
                    {
                        "day": str(day.day),
                        "rows": day.rows,
                        "left out": day.left_out,
                        "decision": day.decision,
                        "checksum": day.checksum,
                        "snapshot": day.snapshot_id,
                    }
                    for day in days
                ],
                row_counts=[day.rows for day in days],
                counted="rows published",
            ),
            "seconds": clock.seconds,
        },
        verdicts,
    )
    # Dagster has recorded the materialisation when it asks for more.
    databases = {
        Database.DAGSTER: dagster_database,
        Database.QUEUE: queue_database,
        Database.RESULTS: results_database,
    }
    _make_restore_point(context, databases, [each.day for each in days])


def _make_restore_point(
    context: dg.AssetExecutionContext, databases: Mapping[Database, OwnDatabase], days: Sequence[dt.date]
) -> None:
    """Make a restore point; the days are published also where that is refused or does not succeed."""
    try:
        with contextlib.ExitStack() as stack:
            servers = {name: stack.enter_context(each.connect()) for name, each in databases.items()}
            made = restore_points.make_restore_point(servers, days)
    except EpisodesError as error:
        context.log.warning(f"no restore point was made: {error}")
        return
    if made is None:
        return
    if made.databases:
        context.log.info(f"restore point {made.name} in {', '.join(made.databases)}")
    for database, reason in made.refused.items():
        context.log.warning(
            f"no restore point in {database}: {reason}; docs/backup.md says who may make them"
        )


def _record_titles(
    context: dg.AssetExecutionContext, results: Connection, lake: Lake, days: Sequence[PublishedDay]
) -> None:
    """Keep what the published episodes are called; the days are published also where that is not known."""
    try:
        publish.record_titles(results, lake.drops(), [each.day for each in days])
    except EpisodesError as error:
        context.log.warning(f"the titles of published episodes are not up to date: {error}")


def _look_at_late_viewings(
    context: dg.AssetExecutionContext, results: Connection, viewings: Viewings, last: dt.date
) -> None:
    """Evaluate the check again that looked when the input was taken, before these days were published.

    It is one of `input_viewings`, so it is recorded as those of sensors are: of a step Dagster keeps none but
    its own.
    """
    try:
        verdict = check_late_viewings(results, viewings, last)
    except EpisodesError as error:
        context.log.warning(f"it was not looked whether late viewings are published: {error}")
        return
    context.instance.report_runless_asset_event(steps.check_evaluation(verdict, "input_viewings"))


def _show(results: Connection, day: dt.date) -> dict[str, Any]:
    """The day's first episodes by the first metric of the first algorithm, and how many rows days have."""
    before = publications.read_days(results, day - MOST_POINTS * ONE_DAY, day)
    shown: dict[str, Any] = {
        "rows by day": metadata.image(
            metadata.counts_by_day({each.day: each.rows for each in before}), "rows by day"
        )
    }
    algorithm = next(iter(get_registry().by_id.values()), None)
    if algorithm is None:
        return shown
    metric = next(iter(algorithm.columns))
    selection, order = Selection(day, algorithm.algorithm_id), Order(metric, is_descending=True)
    top = [
        {"epid": row.epid, "series": row.series, "title": row.title, metric: row.metrics.get(metric)}
        for row in read_page(results, selection, order, TOP).rows
    ]
    return {
        f"top {TOP} by {metric}": metadata.table(top),
        "all rows": metadata.links([(f"{algorithm.name} of {day}", f"/results/{day}/{algorithm.name}")]),
        **shown,
    }
