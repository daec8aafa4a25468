"""`episodes explain`: why a row of the results is what it is, or is not there.

The records are read by `results/episode.py`, the answer is found and worded in `explanation/`. The dashboard
shows the same (`dashboard/explain.py`).
"""

import datetime as dt
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from episodes_assets.cli.console import escaped, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.days import parse_date
from episodes_assets.explanation import explaining
from episodes_assets.explanation.explaining import Explanation, parse_algorithm, parse_epid
from episodes_assets.postgres import connect, hosts
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output


def explain(
    day: Annotated[str, typer.Argument(help="The day, YYYY-MM-DD.")],
    epid: Annotated[str, typer.Argument(metavar="EPID", help="The episode's id.")],
    algorithm: Annotated[
        str | None, typer.Argument(help="An algorithm, by name or number; default: all that are on record.")
    ] = None,
) -> None:
    """Explain from the records why an episode's results of a day are what they are, or are not there.

    For each algorithm the answer comes first, then what can be done, then what is on record: the row of the
    catalogue or the rules that refused it, since when the episode is tracked, whether it was due or would be
    by viewings that arrived late, its job and what became of that, the viewings by day, what was published,
    and what was before. Any id has an answer, also one that no record names; what is gone is called unknown.
    Nothing is changed.

    Example: episodes explain 2018-03-05 42 reach

    A negative id stands behind two dashes: episodes explain 2018-03-05 -- -7
    """
    parsed, asked = parse_date(day), parse_epid(epid)
    algorithm_id = None if algorithm is None else parse_algorithm(algorithm)
    require_standard_output()
    settings = load_settings()
    dsns = ready_databases(settings)
    lake_url = hosts.allowed_lake_url(settings)
    # What only reads, where this process has it.
    reader = Purpose.RESULTS_READER if Purpose.RESULTS_READER in dsns.by_purpose else Purpose.RESULTS
    from episodes_assets.results.episode import read_episode  # with Delta Lake

    with (
        connect.connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as queue,
        connect.connect_to_read(dsns.require(reader), Database.RESULTS) as results,
    ):
        records = read_episode(
            queue,
            results,
            lake_url,
            parsed,
            asked,
            today=dt.datetime.now(dt.UTC).date(),
            quarantine_limit=settings.quarantine_limit,
        )
    for number, each in enumerate(explaining.explain(records, algorithm_id)):
        if number:
            out.print()
        _print(each)


def _print(found: Explanation) -> None:
    algorithm = f", {found.algorithm}" if found.algorithm else ""
    style = "bold green" if found.cause.is_there else "bold yellow"
    head = f"{found.day}, episode {found.epid}{algorithm}: "
    out.print(Text.assemble(escaped(head), (escaped(found.cause.label), style)))
    out.print(f"  {found.answer}.")
    if found.hint:
        out.print(f"  {found.hint}.")
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for section in found.sections:
        for number, line in enumerate(section.lines):
            table.add_row("" if number else f"  {section.title}", line)
    out.print(table)
