"""`episodes results` and `episodes state`: what was published; the accumulated state as a file.

The table of days is shown by other commands too: what came in, what was planned, what was published, and
how long it took. The state is carried from one system to another in the file format that is defined here.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import pandas as pd
import pyarrow as pa
import typer
from rich.table import Table

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import open_drops, ready_databases
from episodes_assets.days import parse_date, parse_day
from episodes_assets.errors import BadFile, NotPublished, StateGap
from episodes_assets.input.files import BadRow, read_input_file
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.results import publish
from episodes_assets.settings import Settings, load_settings
from episodes_assets.user_files import names_a_stream, require_standard_output, user_path, written_whole

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
    from episodes_assets.lake.viewings import Viewings
    from episodes_assets.results import state

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
    # Read as a consumer would, where this process may.
    purpose = Purpose.CONSUMER if Purpose.CONSUMER in dsns.by_purpose else Purpose.RESULTS
    with connect_to_read(dsns.require(purpose), Database.RESULTS) as connection:
        manifest = publish.find_day(connection, parsed)
        if manifest is None:
            raise NotPublished(
                f"{day} is not published",
                f"run `episodes run {day}`, or see `episodes jobs status {day}`",
            )
        frame = publish.read_rows(connection, parsed)
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
    registry = get_registry()
    for algorithm_id, own in frame.groupby("algorithm_id"):
        number = int(str(algorithm_id))
        declared = registry.by_id.get(number)
        columns = ["epid", "window_start", "covered_from", *(declared.columns if declared else ())]
        title = f"{registry.name_of(number)}: {len(own):,} rows"
        table = Table(title=title, title_justify="left", box=None)
        for name in columns:
            table.add_column(name, justify="right")
        text = own[columns].head(rows).astype("object").where(own[columns].notna(), "-")
        for values in text.astype("str").to_numpy().tolist():
            table.add_row(*values)
        out.print(table)


_SCHEMA = pa.schema([pa.field("epid", pa.int64(), nullable=False), ("tracked_on", pa.date32())])
_IN_MEMORY = pa.schema({"epid": pa.int64(), "tracked_on": pa.timestamp("s")})


def read_state(path: Path, as_of: dt.date) -> pd.DataFrame:
    """A state as `import_state` wants it.

    Args:
        path: CSV or Parquet; a missing `tracked_on` counts as `as_of`.
        as_of: The day whose end it describes.

    Raises:
        BadFile: If the file cannot be read exactly, or an epid is negative or repeated, or was tracked after
            `as_of`.
        SystemFailure: If the machine does not let it be read.
    """
    table = read_input_file(path, _SCHEMA, lambda table: _check(_frame(table, as_of), as_of))
    return _frame(table, as_of)


def _frame(table: pa.Table, as_of: dt.date) -> pd.DataFrame:
    state: pd.DataFrame = table.cast(_IN_MEMORY).to_pandas()
    state["tracked_on"] = state["tracked_on"].fillna(pd.Timestamp(as_of).as_unit("s"))
    return state


def _check(state: pd.DataFrame, as_of: dt.date) -> None:
    problems = [
        ("epid", "it is negative", state["epid"] < 0),
        ("epid", "it is repeated", state["epid"].duplicated()),
        ("tracked_on", f"it is after {as_of}", state["tracked_on"] > pd.Timestamp(as_of)),
    ]
    for column, problem, rows in problems:
        if rows.any():
            raise BadRow(int(rows.to_numpy().argmax()), column, problem)


state_app = typer.Typer(no_args_is_help=True, help="Export and import the accumulated tracked episodes.")
AsOf = Annotated[str, typer.Option("--as-of", help="The day whose end the state describes.")]
CODE_VERSION = "import-1"


@state_app.command()
def export(
    file: Annotated[
        Path,
        typer.Argument(
            parser=user_path,
            metavar="FILE",
            help="Written as CSV, or as Parquet if so named; '-': CSV to stdout.",
        ),
    ],
    as_of: AsOf,
) -> None:
    """Write the episodes tracked as of a day, with the day each was first tracked.

    Example: episodes state export tracked.parquet --as-of 2018-03-07
    """
    from episodes_assets.results.state import export_state, read_day

    day = parse_day(as_of)
    settings = load_settings()
    dsn = ready_databases(settings).require(Purpose.RESULTS)
    with connect_to_read(dsn, Database.RESULTS) as connection:
        if read_day(connection, day) is None:
            raise StateGap(
                f"there are no tracked episodes as of {day}",
                f"materialise tracked_episodes of {day} first",
            )
    state = export_state(dsn, day)
    with written_whole(file) as opened:
        if file.suffix.lower() == ".parquet":
            # In one piece: a pipe has no position, which the writer asks for.
            opened.write(state.to_parquet(index=False))
        else:
            state.to_csv(opened, index=False, date_format="%Y-%m-%d")
    console = err if names_a_stream(file) else out
    console.print(f"{len(state):,} tracked episodes as of {day} written to {file}")


@state_app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            parser=user_path, metavar="FILE", help="CSV or Parquet: epid, tracked_on; '-': stdin."
        ),
    ],
    as_of: AsOf,
) -> None:
    """Begin a history where another system's ended; the next day builds on it.

    Needs a results database without a history. A missing tracked_on counts as the --as-of day.

    Example: episodes state import tracked.csv --as-of 2020-08-31
    """
    from episodes_assets.results.state import import_state, only_writer

    day = parse_date(as_of)
    settings = load_settings()
    state: pd.DataFrame = read_state(file, day)
    dsn = ready_databases(settings).require(Purpose.RESULTS)
    with (
        connect_to_write(dsn, Database.RESULTS, settings.environment, autocommit=True) as connection,
        connect_to_write(dsn, Database.RESULTS, settings.environment, autocommit=True) as lock,
        only_writer(lock),
    ):
        recorded = import_state(connection, state, day, CODE_VERSION)
    out.print(f"{recorded.total:,} tracked episodes as of {day} imported; the next day can be run")
