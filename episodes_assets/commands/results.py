"""`episodes results`: what was published."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.algorithms.registry import get_registry
from episodes_assets.commands.console import err, out
from episodes_assets.commands.databases import ready_databases
from episodes_assets.days import parse_day
from episodes_assets.errors import BadFile, NotPublished
from episodes_assets.postgres.connect import connect_to_read
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.results import publish
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output, user_path, written_whole


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
