"""`episodes input`: fill an input database with a sample or with your own files.

The work is done in `input/loading.py` and `input/sample.py`.
"""

import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.progress import Progress

from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import ready_databases, writable_input
from episodes_assets.days import FIRST_DAY, ONE_DAY, parse_day
from episodes_assets.errors import BadFile
from episodes_assets.input import loading, sample
from episodes_assets.input.files import read_input_file
from episodes_assets.settings import load_settings
from episodes_assets.user_files import user_path

app = typer.Typer(
    no_args_is_help=True,
    help="Fill an input database. Production input comes from other systems; this is for samples, "
    "trials and development copies, and needs a role that may write (EPISODES_INPUT_WRITER_DSN).",
)

Files = list[Path] | None
_OF_TABLE = "CSV or Parquet of the table `{}`; may be given several times."


@app.command()
def generate(
    episodes: Annotated[int, typer.Option(min=10, help="How many episodes the sample has.")] = 4_000,
    first: Annotated[str, typer.Option("--from", help="The first day, YYYY-MM-DD.")] = FIRST_DAY.isoformat(),
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days of drops.")] = 7,
    history: Annotated[
        int, typer.Option(min=0, max=400, help="Days of viewings before the first drop.")
    ] = 14,
    seed: Annotated[int, typer.Option(help="Of the random generators: same seed, same rows.")] = 1,
) -> None:
    """Write a realistic sample: a growing catalogue, Zipf-shaped viewing, some rows that are wrong.

    Days that are there are replaced by the sample's.

    Example: episodes input generate --episodes 20000 --from 2018-03-01 --days 30
    """
    settings = load_settings()
    start = parse_day(first)
    end = start + (days - 1) * ONE_DAY
    parse_day(end.isoformat())
    dsn = writable_input(settings, ready_databases(settings))
    totals = [0, 0]
    with Progress(console=err, transient=True) as bar:
        task = bar.add_task("generating", total=days + history)

        def report(day: dt.date, rows: int, viewings: int) -> None:
            totals[0] += rows
            totals[1] += viewings
            bar.update(task, advance=1, description=str(day))

        sample.generate_input(
            dsn,
            episodes=episodes,
            seed=seed,
            first=start,
            last=end,
            history_days=history,
            report=report,
        )
    out.print(f"{days} drops with {totals[0]:,} rows and {totals[1]:,} viewings, {start} to {end}")


@app.command()
def load(
    episodes: Annotated[
        Files, typer.Option(parser=user_path, metavar="FILE", help=_OF_TABLE.format("episodes"))
    ] = None,
    viewings: Annotated[
        Files, typer.Option(parser=user_path, metavar="FILE", help=_OF_TABLE.format("viewings"))
    ] = None,
) -> None:
    """Load your own files; all rows of all of them, or nothing.

    A CSV is in UTF-8, separated by commas, with a header line that names the table's columns in any order.
    An empty field is a missing value, "" an empty text. A date is YYYY-MM-DD; a time is a date, T or a
    space, and hh:mm[:ss[.ffffff]], with Z or an offset, else in UTC. Nothing is guessed, rounded or
    repaired: a file with one wrong value, a row that is cut or a quote that is not closed is refused, with
    the line and the column (docs/bad-input.md). Parquet is checked alike. '-' is stdin, './-' a file.

    The drops of the batch_dates in the files, and the viewings of their UTC days (or without a time), are
    replaced, so loading a file again changes nothing.

    Example: episodes input load --episodes drop.csv --viewings views.parquet
    """
    if not episodes and not viewings:
        raise BadFile("no file was given", "name --episodes FILE, --viewings FILE, or both")
    drops, views = _read(episodes, loading.EPISODES_SCHEMA), _read(viewings, loading.VIEWINGS_SCHEMA)
    settings = load_settings()
    dsn = writable_input(settings, ready_databases(settings))
    loading.replace_input(
        dsn,
        drops=drops,
        drop_days=[] if drops is None else drops["batch_date"].unique().to_pylist(),
        viewings=views,
        viewing_days=[] if views is None else _utc_days(views),
    )
    for name, table in (("episodes", drops), ("viewings", views)):
        if table is not None:
            out.print(f"{table.num_rows:,} rows loaded into {name}")


def _read(files: Files, schema: pa.Schema) -> pa.Table | None:
    """The rows of all of a table's files."""
    if not files:
        return None
    seen = set()
    for path in files:
        file = "-" if str(path) == "-" else os.path.realpath(path)
        if file in seen:
            raise BadFile(f"{path} is named twice", "name it once; nothing was loaded")
        seen.add(file)
    return pa.concat_tables(read_input_file(path, schema) for path in files)


def _utc_days(viewings: pa.Table) -> list[dt.date]:
    days: list[dt.date] = (
        (viewings["viewed_at"].drop_null().cast(pa.timestamp("us")).cast(pa.date32(), safe=False))
        .unique()
        .to_pylist()
    )
    return days
