"""`episodes state`: the accumulated tracked episodes, carried from one system to another as a file.

The format of that file is defined here: CSV or Parquet with the columns `epid` and `tracked_on`. Reading a
file exactly is `input/files.py`; the statements are in `results/copies.py`.
"""

import datetime as dt
from pathlib import Path
from typing import Annotated

import pandas as pd
import pyarrow as pa
import typer

from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.days import FIRST_DAY, ONE_DAY, parse_date, parse_day
from episodes_assets.errors import BadDay
from episodes_assets.input.files import BadRow, read_input_file
from episodes_assets.postgres.connect import connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results.copies import export_state, import_state
from episodes_assets.results.state import only_writer
from episodes_assets.settings import load_settings
from episodes_assets.user_files import names_a_stream, user_path, written_whole

_SCHEMA = pa.schema([pa.field("epid", pa.int64(), nullable=False), ("tracked_on", pa.date32())])
_IN_MEMORY = pa.schema({"epid": pa.int64(), "tracked_on": pa.timestamp("s")})


def read_state(path: Path, as_of: dt.date) -> pd.DataFrame:
    """Read a file of tracked episodes for `import_state`.

    Args:
        path: CSV or Parquet; a missing `tracked_on` counts as `as_of`.
        as_of: The day whose end it describes.

    Raises:
        BadFile: If the file cannot be read exactly, or an epid is negative or repeated, or was tracked after
            `as_of`.
        SystemFailure: If the operating system refuses to read it.
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

    Nothing is written if they are not those that the manifests of the days up to it describe, or if one of
    these days was built on another past than there is now.

    Example: episodes state export tracked.parquet --as-of 2018-03-07
    """
    day = parse_day(as_of)
    settings = load_settings()
    dsn = ready_databases(settings).require(Purpose.RESULTS)
    with connect_to_read(dsn, Database.RESULTS):  # refuses a schema of another release
        state = export_state(dsn, day)
    with written_whole(file) as opened:
        if file.suffix.lower() == ".parquet":
            # In one piece: a pipe has no position, which the writer asks for.
            opened.write(state.to_parquet(index=False))
        else:
            state.to_csv(opened, index=False, date_format="%Y-%m-%d")
    console = err if names_a_stream(file) else out
    console.print(f"{len(state):,} tracked episodes as of {day} written to {file}")


def _parse_end(text: str) -> dt.date:
    """Read the day with which an imported state ends: the day after it must be one that can be run.

    A history that begins otherwise could neither be gone on with nor be begun anew.

    Raises:
        BadDay: If it is misspelt, before the day before the first one, or not over yet.
    """
    if parse_date(text) < FIRST_DAY - ONE_DAY:
        raise BadDay(
            f"no history can begin after {text}, as {FIRST_DAY} is the first day",
            f"give the state as of {FIRST_DAY - ONE_DAY} or of a later day",
        )
    return FIRST_DAY - ONE_DAY if parse_date(text) < FIRST_DAY else parse_day(text)


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

    Needs a results database without a history. A missing tracked_on counts as the --as-of day, which is the
    day before the first one (2018-02-28) or a later one that is over.

    Example: episodes state import tracked.csv --as-of 2020-08-31
    """
    day = _parse_end(as_of)
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
