"""`episodes run` and `episodes backfill`: the whole graph for a day or a range, with live progress.

Their options become a run's configuration here. Executing the run, and showing how far it is, is `execution`;
starting workers for it is `supervisor`, the table of days `results`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from episodes_assets.cli import context, execution, results, supervisor
from episodes_assets.cli.console import out
from episodes_assets.days import days_between, parse_date, parse_day, parse_range
from episodes_assets.errors import BadRunConfig, ReasonMissing
from episodes_assets.postgres.connect import connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg


@contextmanager
def open_instance(settings: Settings, dsns: Dsns) -> Iterator["dg.DagsterInstance"]:
    """Dagster's instance.

    Raises:
        DatabaseUnreachable: If its database does not answer.
        WrongEnvironment: If its database belongs to another environment.
    """
    with connect_to_write(dsns.require(Purpose.DAGSTER), Database.DAGSTER, settings.environment):
        pass
    context.prepare_dagster_home(settings)
    import dagster as dg  # a second

    with dg.DagsterInstance.get() as instance:
        yield instance


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
Repair = Annotated[
    bool,
    typer.Option(
        "--repair",
        help="Put back what something else has changed in the databases; what is whole stays as it is.",
    ),
]
Reason = Annotated[
    str,
    typer.Option(
        help="With --refresh, --repair or --accept-lost-viewings, which need one: why; kept on record."
    ),
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
        help="Take the viewings of earlier days from this one on; with --accept-lost-viewings those again "
        "that were taken. Default: where a history begins, all that the input still holds.",
    ),
]
AcceptLost = Annotated[
    bool,
    typer.Option(
        "--accept-lost-viewings",
        help="Take the input's viewings again although some that were taken before are gone from it: with "
        "the drop where the day is taken anew, else alone.",
    ),
]
EMBEDDED_WORKERS = 2


def run(
    day: Annotated[str, typer.Argument(help="The day, YYYY-MM-DD.")],
    workers: Workers = None,
    refresh: Refresh = False,
    rework: Rework = False,
    repair: Repair = False,
    reason: Reason = "",
    as_planned: AsPlanned = False,
    since: Since = "",
    accept_lost_viewings: AcceptLost = False,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Profile the steps, and some of the fleet's micro-batches; show the hottest lines.",
        ),
    ] = False,
) -> None:
    """Materialise the whole graph for one day and show what was published.

    Running a day again changes nothing unless its input or the code has changed.

    Example: episodes run 2018-03-01
    """
    config = _config(
        refresh=refresh,
        rework=rework,
        repair=repair,
        reason=reason,
        as_planned=as_planned,
        since=since,
        accept_lost=accept_lost_viewings,
    )
    _materialize(day, day, workers, config, repair=repair, profile=profile)


def backfill(
    first: Annotated[str, typer.Argument(metavar="FROM", help="The first day, YYYY-MM-DD.")],
    last: Annotated[str, typer.Argument(metavar="TO", help="The last day, included.")],
    workers: Workers = None,
    refresh: Refresh = False,
    rework: Rework = False,
    repair: Repair = False,
    reason: Reason = "",
    as_planned: AsPlanned = False,
    since: Since = "",
    accept_lost_viewings: AcceptLost = False,
) -> None:
    """Materialise the whole graph for a range of days, in one Dagster run.

    The published rows are those that running the days one by one would give.

    Example: episodes backfill 2018-03-01 2018-03-31
    """
    config = _config(
        refresh=refresh,
        rework=rework,
        repair=repair,
        reason=reason,
        as_planned=as_planned,
        since=since,
        accept_lost=accept_lost_viewings,
    )
    _materialize(first, last, workers, config, repair=repair)


def worker_count(workers: int | None, dsns: Dsns) -> int:
    """How many workers a command starts: the option's value, or the default for its databases."""
    if workers is None:
        return EMBEDDED_WORKERS if dsns.is_embedded else 0
    return workers


def run_config(
    *,
    refresh: bool = False,
    reason: str = "",
    rework: bool = False,
    repair: bool = False,
    as_planned: bool = False,
    since: str = "",
    accept_lost: bool = False,
) -> dict[str, Any]:
    """The configuration of a run over the whole graph, as the launchpad takes it as well."""
    only_if_said: dict[str, Any] = {"viewings_since": since} if since else {}
    if accept_lost:
        only_if_said["accept_lost_viewings"] = True
    repairing = {"repair": True} if repair else {}
    found: dict[str, Any] = {
        "take_input": {
            "config": {
                "refresh": refresh,
                "reason": reason if refresh or accept_lost else "",
                **only_if_said,
            },
        },
        "episode_jobs": {
            "config": {"rework": rework, **({"as_planned": True} if as_planned else {}), **repairing}
        },
    }
    if repair:
        found["tracked_episodes"] = {"config": {**repairing, "reason": reason}}
        found["published_results"] = {"config": repairing}
    return {"ops": found}


def _config(
    *,
    refresh: bool,
    rework: bool,
    repair: bool,
    reason: str,
    as_planned: bool,
    since: str,
    accept_lost: bool,
) -> dict[str, Any]:
    if as_planned and (refresh or accept_lost or not rework):
        raise BadRunConfig(
            "--as-planned is for --rework alone",
            "give --rework with it, and neither --refresh nor --accept-lost-viewings",
        )
    if repair and (refresh or rework or accept_lost):
        raise BadRunConfig(
            "--repair puts back what was there, so it does not go with --refresh, --rework or"
            " --accept-lost-viewings",
            "give --repair alone",
        )
    explained = {"--refresh": refresh, "--repair": repair, "--accept-lost-viewings": accept_lost}
    given = [option for option, is_given in explained.items() if is_given]
    if given and not reason.strip():
        raise ReasonMissing(f"{given[0]} needs a reason", "say by `--reason WHY` what was wrong")
    if reason and not given:
        raise BadRunConfig(
            "--reason is for --refresh, --repair and --accept-lost-viewings",
            "give one of them with it, or no reason",
        )
    if since:
        parse_date(since)
    return run_config(
        refresh=refresh,
        reason=reason.strip(),
        rework=rework,
        repair=repair,
        as_planned=as_planned,
        since=since,
        accept_lost=accept_lost,
    )


def _materialize(
    first: str,
    last: str,
    workers: int | None,
    config: dict[str, Any],
    *,
    repair: bool,
    profile: bool = False,
) -> None:
    start, end = (parse_day(first),) * 2 if first == last else parse_range(first, last)
    settings = load_settings()
    dsns = context.ready_databases(settings)
    context.announce_open_hosts(settings)
    context.refuse_writable_input(settings, dsns)
    context.require_reachable(dsns)
    with (
        supervisor.temporary_workers(settings, dsns, worker_count(workers, dsns)),
        open_instance(settings, dsns) as instance,
    ):
        run_id = execution.materialize_days(instance, dsns, start, end, config, is_profiled=profile)
        out.print(results.day_table(settings, dsns, instance, list(days_between(start, end))))
        if repair:
            results.print_repairs(dsns, run_id)
