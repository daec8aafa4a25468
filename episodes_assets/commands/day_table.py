"""The table of days: what came in, what was planned, what was published, and how long it took."""

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from episodes_assets.commands.databases import open_drops
from episodes_assets.lake.viewings import Viewings
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results import publish, state
from episodes_assets.settings import Settings

if TYPE_CHECKING:
    import dagster as dg

_COUNTS = (
    "catalogue rows",
    "quarantined",
    "viewings",
    "newly tracked",
    "jobs",
    "succeeded",
    "failed",
    "rows published",
)
# The asset that has a stage's seconds, and what its column is called.
STAGES = {
    "input_episodes": "input",
    "tracked_episodes": "tracked",
    "episode_jobs": "jobs",
    "job_outcomes": "outcomes",
    "published_results": "publish",
}


def day_table(
    settings: Settings, dsns: Dsns, instance: "dg.DagsterInstance", days: Sequence[dt.date]
) -> Table:
    """A row for each day; the stages' times are those of their latest materialisation."""
    drops = open_drops(settings).find_all(days)
    newest = Viewings(settings.lake).newest()
    viewings = newest.files if newest else {}
    seconds = stage_seconds(instance, days)
    with (
        connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue,
        connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results,
    ):
        progress = {each.day: each for each in read_progress(queue, days)}
        rows = []
        for day in days:
            drop = drops.get(day)
            tracked = state.read_day(results, day)
            jobs = progress.get(day)
            publication = publish.find_day(results, day)
            counts = [
                drop and drop.drop_rows,
                drop and drop.quarantined_rows,
                viewings[day].rows if day in viewings else None,
                tracked and tracked.newly_tracked,
                jobs and jobs.jobs,
                jobs and jobs.succeeded,
                jobs and jobs.failed,
                publication and publication.rows,
            ]
            times = [seconds.get((stage, day)) for stage in STAGES]
            rows.append(
                [
                    str(day),
                    *("-" if count is None else f"{count:,}" for count in counts),
                    *("-" if time is None else f"{time:.1f}" for time in times),
                ]
            )
    table = Table(caption="The last five columns are seconds for each stage.", box=None, padding=(0, 1, 0, 0))
    table.add_column("day", no_wrap=True)
    for name in (*_COUNTS, *STAGES.values()):
        table.add_column(name, justify="right", vertical="bottom")
    for row in rows:
        table.add_row(*row)
    return table


def stage_seconds(
    instance: "dg.DagsterInstance", days: Sequence[dt.date]
) -> dict[tuple[str, dt.date], float]:
    """Seconds of each stage for each day; in a run over many days, its mean."""
    import dagster as dg  # a second

    seconds: dict[tuple[str, dt.date], float] = {}
    for stage in STAGES:
        for day in days:
            records = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=dg.AssetKey(stage), asset_partitions=[day.isoformat()]),
                limit=1,
            ).records
            for record in records:
                materialization = record.asset_materialization
                metadata = materialization.metadata if materialization else {}
                if "seconds" in metadata:
                    # Materialisations of older releases do not say; their table has all days.
                    said, table = metadata.get("days in this run"), metadata.get("days")
                    listed = len(table.records) if isinstance(table, dg.TableMetadataValue) else 1
                    count = int(str(said.value)) if said else listed
                    seconds[stage, day] = float(str(metadata["seconds"].value)) / max(count, 1)
    return seconds
