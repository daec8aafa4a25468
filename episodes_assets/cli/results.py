"""`episodes results`: what was published for a day; and the table of days, which other commands show too.

That table says what came in, what was planned, what was published, and how long it took. Nothing is published
here; what was published is read by `results/publications.py`.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.days import parse_day
from episodes_assets.errors import BadFile, NotPublished
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results import publications
from episodes_assets.results.repairs import read_repairs_of_run
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import require_standard_output, user_path, written_whole

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
# The asset whose metadata has a stage's seconds, and the name of the stage's column.
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
    from episodes_assets.lake.opening import open_lake
    from episodes_assets.results import state

    lake = open_lake(settings)
    drops = lake.complete_drops().find_all(days)
    newest = lake.viewings().newest()
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
            publication = publications.find_day(results, day)
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


def print_repairs(dsns: Dsns, run_id: str) -> None:
    """Print what a run has repaired, or that there was nothing to repair."""
    with connect_to_read(dsns.require(Purpose.RESULTS), Database.RESULTS) as results:
        repairs = read_repairs_of_run(results, run_id)
    for each in repairs:
        out.print(f"{each.day}: repaired: {each.what}", soft_wrap=True)
    if not repairs:
        out.print("There was nothing to repair.")


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


def results(
    day: Annotated[str, typer.Argument(help="The day, YYYY-MM-DD.")],
    csv: Annotated[
        list[Path] | None,
        typer.Option(
            parser=user_path, metavar="FILE", help="Write all rows to this file instead ('-': stdout)."
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Rows to show for each algorithm.")] = 5,
) -> None:
    """Show what was published for a day, or write it all to a CSV file.

    The CSV has a row for each result: day, epid, algorithm_id, window_start, window_end,
    covered_from, then the metric columns of all algorithms, empty where one does not return them. Every
    value is a number or a date, so there is nothing that a spreadsheet would take for a formula.

    Example: episodes results 2018-03-01 --csv results.csv
    """
    parsed = parse_day(day)
    if not csv:
        require_standard_output()
    elif len(csv) > 1:
        raise BadFile("--csv is given more than once", "name one file")
    dsns = ready_databases(load_settings())
    # By the consumers' role, if this process has its DSN.
    purpose = Purpose.CONSUMER if Purpose.CONSUMER in dsns.by_purpose else Purpose.RESULTS
    with connect_to_read(dsns.require(purpose), Database.RESULTS) as connection:
        manifest = publications.find_day(connection, parsed)
        if manifest is None:
            raise NotPublished(
                f"{day} is not published",
                f"run `episodes run {day}`, or see `episodes jobs status {day}`",
            )
        if csv:
            frame = publications.read_rows(connection, parsed)
        else:
            first_rows = publications.read_first_rows(connection, parsed, rows)
    if csv:
        with written_whole(csv[0]) as file:
            frame.to_csv(file, index=False)
        err.print(f"{len(frame):,} rows of {day} written to {csv[0]}")
        return
    out.print(
        f"{day}: {manifest.rows:,} rows, published {manifest.published_at:%Y-%m-%d %H:%M:%S %Z}, "
        f"checksum {manifest.checksum[:16]}"
    )
    if manifest.left_out:
        out.print(f"without {manifest.left_out:,} failed jobs: {manifest.decision}")
    for own in first_rows:
        out.print(_table_of(own))


def _table_of(own: publications.FirstRows) -> Table:
    registry = get_registry()
    declared = registry.by_id.get(own.algorithm_id)
    columns = declared.columns if declared else {}
    table = Table(
        title=f"{registry.name_of(own.algorithm_id)}: {own.rows:,} rows", title_justify="left", box=None
    )
    for name in ("epid", "window_start", "covered_from", *columns):
        table.add_column(name, justify="right")
    for epid, window_start, covered_from, metrics in own.first:
        values = (metrics.get(name) for name in columns)
        table.add_row(
            str(epid),
            str(window_start),
            str(covered_from),
            *("-" if value is None else str(value) for value in values),
        )
    return table
