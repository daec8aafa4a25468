"""`episodes run` and `episodes backfill`: the whole graph for a day or a range."""

from typing import Annotated, Any

import typer

from episodes_assets.commands.console import out
from episodes_assets.commands.dagster_runs import materialize_days, open_instance
from episodes_assets.commands.databases import (
    announce_open_hosts,
    ready_databases,
    refuse_writable_input,
    require_reachable,
)
from episodes_assets.commands.day_table import day_table
from episodes_assets.commands.processes import temporary_workers
from episodes_assets.databases.dsns import Dsns
from episodes_assets.days import days_between, parse_day, parse_range
from episodes_assets.settings import load_settings

Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Worker processes to run meanwhile. Default: 2 with the embedded databases, none with "
        "configured ones, whose fleet does the work.",
    ),
]
Refresh = Annotated[
    bool,
    typer.Option("--refresh", help="Take new snapshots although the days have some."),
]
Rework = Annotated[
    bool,
    typer.Option("--rework", help="Work all jobs again although the days have the same ones."),
]
EMBEDDED_WORKERS = 2


def run(
    day: Annotated[str, typer.Argument(help="The day, YYYY-MM-DD.")],
    workers: Workers = None,
    refresh: Refresh = False,
    rework: Rework = False,
) -> None:
    """Materialise the whole graph for one day and show what was published.

    Running a day again changes nothing unless its input or the code has changed.

    Example: episodes run 2018-03-01
    """
    _materialize(day, day, workers, refresh=refresh, rework=rework)


def backfill(
    first: Annotated[str, typer.Argument(metavar="FROM", help="The first day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="The last day, included.")],
    workers: Workers = None,
    refresh: Refresh = False,
    rework: Rework = False,
) -> None:
    """Materialise the whole graph for a range of days, in one Dagster run.

    The published rows are those that running the days one by one would give.

    Example: episodes backfill 2018-03-01 2018-03-31
    """
    _materialize(first, last, workers, refresh=refresh, rework=rework)


def workers_of_ones_own(workers: int | None, dsns: Dsns) -> int:
    """How many workers a command runs: as many as it was told, or what suits its databases."""
    if workers is None:
        return EMBEDDED_WORKERS if dsns.is_embedded else 0
    return workers


def run_config(*, refresh: bool = False, reason: str = "", rework: bool = False) -> dict[str, Any]:
    """The configuration of a run over the whole graph, as the launchpad takes it as well."""
    return {
        "ops": {
            "input_episodes": {"config": {"refresh": refresh, "reason": reason}},
            "episode_jobs": {"config": {"rework": rework}},
        }
    }


def _materialize(first: str, last: str, workers: int | None, *, refresh: bool, rework: bool) -> None:
    start, end = (parse_day(first),) * 2 if first == last else parse_range(first, last)
    settings = load_settings()
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    refuse_writable_input(settings, dsns)
    require_reachable(dsns)
    reason = "asked for by `episodes run --refresh`" if refresh else ""
    config = run_config(refresh=refresh, reason=reason, rework=rework)
    with (
        temporary_workers(settings, dsns, workers_of_ones_own(workers, dsns)),
        open_instance(settings, dsns) as instance,
    ):
        materialize_days(instance, dsns, start, end, config)
        out.print(day_table(settings, dsns, instance, list(days_between(start, end))))
