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
from episodes_assets.days import days_between, parse_date, parse_day, parse_range
from episodes_assets.errors import BadRunConfig
from episodes_assets.postgres.dsn import Dsns
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
    typer.Option("--refresh", help="Take the days anew although they are kept."),
]
Rework = Annotated[
    bool,
    typer.Option("--rework", help="Work all jobs again although the days have the same ones."),
]
AsPlanned = Annotated[
    bool,
    typer.Option(
        "--as-planned",
        help="With --rework: from the viewings that the days' plans name, whatever has been taken since.",
    ),
]
Since = Annotated[
    str,
    typer.Option(
        "--since",
        metavar="DAY",
        help="Take the viewings of earlier days from this one on. Default: where a history begins, all that "
        "the input still holds.",
    ),
]
AcceptLost = Annotated[
    bool,
    typer.Option(
        "--accept-lost-viewings",
        help="Take the input's viewings although some that were taken before are gone from it.",
    ),
]
EMBEDDED_WORKERS = 2


def run(
    day: Annotated[str, typer.Argument(help="The day, YYYY-MM-DD.")],
    workers: Workers = None,
    refresh: Refresh = False,
    rework: Rework = False,
    as_planned: AsPlanned = False,
    since: Since = "",
    accept_lost_viewings: AcceptLost = False,
) -> None:
    """Materialise the whole graph for one day and show what was published.

    Running a day again changes nothing unless its input or the code has changed.

    Example: episodes run 2018-03-01
    """
    config = _config(refresh, rework, as_planned, since, accept_lost_viewings)
    _materialize(day, day, workers, config)


def backfill(
    first: Annotated[str, typer.Argument(metavar="FROM", help="The first day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="The last day, included.")],
    workers: Workers = None,
    refresh: Refresh = False,
    rework: Rework = False,
    as_planned: AsPlanned = False,
    since: Since = "",
    accept_lost_viewings: AcceptLost = False,
) -> None:
    """Materialise the whole graph for a range of days, in one Dagster run.

    The published rows are those that running the days one by one would give.

    Example: episodes backfill 2018-03-01 2018-03-31
    """
    config = _config(refresh, rework, as_planned, since, accept_lost_viewings)
    _materialize(first, last, workers, config)


def workers_of_ones_own(workers: int | None, dsns: Dsns) -> int:
    """How many workers a command runs: as many as it was told, or what suits its databases."""
    if workers is None:
        return EMBEDDED_WORKERS if dsns.is_embedded else 0
    return workers


def run_config(
    *,
    refresh: bool = False,
    reason: str = "",
    rework: bool = False,
    as_planned: bool = False,
    since: str = "",
    accept_lost: bool = False,
) -> dict[str, Any]:
    """The configuration of a run over the whole graph, as the launchpad takes it as well."""
    only_if_said: dict[str, Any] = {"viewings_since": since} if since else {}
    if accept_lost:
        only_if_said["accept_lost_viewings"] = True
    return {
        "ops": {
            "take_input": {"config": {"refresh": refresh, "reason": reason, **only_if_said}},
            "episode_jobs": {"config": {"rework": rework, **({"as_planned": True} if as_planned else {})}},
        }
    }


def _config(
    refresh: bool,
    rework: bool,
    as_planned: bool,
    since: str,
    accept_lost: bool,
) -> dict[str, Any]:
    if as_planned and (refresh or not rework):
        raise BadRunConfig("--as-planned is for --rework alone", "give --rework with it, and not --refresh")
    if accept_lost and not refresh:
        raise BadRunConfig("--accept-lost-viewings is for --refresh alone", "give --refresh with it")
    if since:
        parse_date(since)
    reason = "asked for by `episodes run --refresh`" if refresh else ""
    return run_config(
        refresh=refresh,
        reason=reason,
        rework=rework,
        as_planned=as_planned,
        since=since,
        accept_lost=accept_lost,
    )


def _materialize(first: str, last: str, workers: int | None, config: dict[str, Any]) -> None:
    start, end = (parse_day(first),) * 2 if first == last else parse_range(first, last)
    settings = load_settings()
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    refuse_writable_input(settings, dsns)
    require_reachable(dsns)
    with (
        temporary_workers(settings, dsns, workers_of_ones_own(workers, dsns)),
        open_instance(settings, dsns) as instance,
    ):
        materialize_days(instance, dsns, start, end, config)
        out.print(day_table(settings, dsns, instance, list(days_between(start, end))))
