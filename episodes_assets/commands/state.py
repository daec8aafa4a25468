"""`episodes state`: carry the accumulated state from one system to another."""

from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from episodes_assets.commands.console import err, out
from episodes_assets.commands.databases import ready_databases
from episodes_assets.commands.state_file import read_state
from episodes_assets.days import parse_date, parse_day
from episodes_assets.errors import StateGap
from episodes_assets.postgres.connect import connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results.state import export_state, import_state, only_writer, read_day
from episodes_assets.settings import load_settings
from episodes_assets.user_files import names_a_stream, user_path, written_whole

app = typer.Typer(no_args_is_help=True, help="Export and import the accumulated tracked episodes.")

AsOf = Annotated[str, typer.Option("--as-of", help="The day whose end the state describes.")]
CODE_VERSION = "import-1"


@app.command()
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


@app.command("import")
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
