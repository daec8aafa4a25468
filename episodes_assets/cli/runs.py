"""`episodes run` and `episodes backfill`: the whole graph for a day or a range, with live progress.

The run executes in this process and is recorded in Dagster's instance like any other, so the UI shows it
with all its metadata. `episodes demo` and `episodes correct` use the same. What the steps do is in
`defs/assets/`; starting workers for them is `supervisor`.
"""

import datetime as dt
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from episodes_assets import failures
from episodes_assets.cli.console import err, out
from episodes_assets.cli.context import (
    announce_open_hosts,
    prepare_dagster_home,
    ready_databases,
    refuse_writable_input,
    require_reachable,
)
from episodes_assets.cli.profile import print_profiles_of_run
from episodes_assets.cli.results import day_table, print_repairs
from episodes_assets.cli.supervisor import temporary_workers
from episodes_assets.days import days_between, parse_date, parse_day, parse_range
from episodes_assets.errors import BadRunConfig, EpisodesError, ReasonMissing, RunFailed
from episodes_assets.ledger.progress import read_progress
from episodes_assets.postgres.connect import connect_to_read, connect_to_write, unreachable
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.postgres.dsn import Dsns
from episodes_assets.settings import Settings, load_settings

if TYPE_CHECKING:
    import dagster as dg


STEPS = (
    "take_input",
    "tracked_episodes",
    "episode_jobs",
    "job_outcomes",
    "published_results",
)
POLL_SECONDS = 0.5


@contextmanager
def open_instance(settings: Settings, dsns: Dsns) -> Iterator["dg.DagsterInstance"]:
    """Dagster's instance.

    Raises:
        DatabaseUnreachable: If its database does not answer.
        WrongEnvironment: If its database belongs to another environment.
    """
    with connect_to_write(dsns.require(Purpose.DAGSTER), Database.DAGSTER, settings.environment):
        pass
    prepare_dagster_home(settings)
    import dagster as dg  # a second

    with dg.DagsterInstance.get() as instance:
        yield instance


def materialize_days(
    instance: "dg.DagsterInstance",
    dsns: Dsns,
    first: dt.date,
    last: dt.date,
    run_config: Mapping[str, Any] | None = None,
    *,
    is_profiled: bool = False,
) -> str:
    """Materialise the whole graph for the days from `first` to `last` in one run.

    A run that is profiled shows where its time went, also if it fails.

    Returns:
        The run's id.

    Raises:
        RunFailed: If a step fails.
        DatabaseUnreachable: If Dagster's own database goes away.
        KeyboardInterrupt: If it is interrupted; the run is recorded as failed.
    """
    from episodes_assets.definitions import build_defs  # loads Dagster
    from episodes_assets.defs.profiles import PROFILE_TAG

    job = build_defs().resolve_implicit_global_asset_job_def()
    run_id = str(uuid.uuid4())
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    is_day = first == last
    partitions: dict[str, Any] = {"partition_key": first.isoformat()} if is_day else {}
    range_tags = {
        "dagster/asset_partition_range_start": first.isoformat(),
        "dagster/asset_partition_range_end": last.isoformat(),
    }
    began, is_whole = time.monotonic(), False
    try:
        with (
            _explaining_lost_storage(dsns),
            _interruptible(),
            _shown_progress(instance, dsns, run_id, first, last),
        ):
            result = job.execute_in_process(
                instance=instance,
                run_id=run_id,
                run_config={**quiet, **(run_config or {})},
                raise_on_error=False,
                tags={**({} if is_day else range_tags), **({PROFILE_TAG: "true"} if is_profiled else {})},
                **partitions,
            )
        is_whole = result.success
    finally:
        _print_duration(first, last, time.monotonic() - began, is_whole=is_whole)
    if is_profiled:
        print_profiles_of_run(dsns, run_id)
    if not result.success:
        raise _explain_failure(result, run_id)
    return run_id


def _label(first: dt.date, last: dt.date) -> str:
    return str(first) if first == last else f"{first} to {last}"


def _print_duration(first: dt.date, last: dt.date, seconds: float, *, is_whole: bool) -> None:
    """Print how long a run took, if stderr is no terminal and so shows no progress bar."""
    if not err.is_terminal:
        took = f"{seconds:.1f} s" if is_whole else f"not finished, ended after {seconds:.1f} s"
        err.print(f"{_label(first, last)}: {took}")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn Dagster's interrupt into Python's, and restore the handler of SIGTERM afterwards.

    Dagster gives SIGTERM the handler of SIGINT, which is ignored in a background job of a shell.

    Raises:
        KeyboardInterrupt: If the run is interrupted between two steps.
    """
    from dagster import DagsterExecutionInterruptedError

    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except DagsterExecutionInterruptedError as error:
        raise KeyboardInterrupt from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def _explaining_lost_storage(dsns: Dsns) -> Iterator[None]:
    """Name Dagster's database if it goes away, which ends a run in the middle, with what it had committed."""
    from sqlalchemy.exc import SQLAlchemyError  # loaded with Dagster

    try:
        yield
    except SQLAlchemyError as error:
        raise unreachable(dsns.require(Purpose.DAGSTER), error) from error


def _explain_failure(result: "dg.ExecuteInProcessResult", run_id: str) -> EpisodesError:
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        if data.user_failure_data is not None and data.user_failure_data.description:
            return RunFailed(data.user_failure_data.description)
        if data.error and data.error.cls_name == "DagsterExecutionInterruptedError":
            raise KeyboardInterrupt
        return _explain_error(data.error, str(event.step_key), run_id)
    for event in result.all_events:
        if event.is_failure and event.job_failure_data.error:  # of no step
            return _explain_error(event.job_failure_data.error, "the run", run_id)
    return RunFailed(f"run {run_id} failed", "see it in the UI (`episodes up`)")


def _explain_error(error: Any, what: str, run_id: str) -> EpisodesError:  # noqa: ANN401
    """What Dagster has recorded of an error, by its innermost cause."""
    where = f"run {run_id} has the traceback in the UI (`episodes up`)"
    if error is None:
        return RunFailed(f"{what} failed", where)
    if (cause := failures.explain_recorded(error)) is not None:
        return RunFailed(str(cause))
    return RunFailed(f"{what} failed unexpectedly ({failures.name_recorded_defect(error)})", where)


@contextmanager
def _shown_progress(
    instance: "dg.DagsterInstance", dsns: Dsns, run_id: str, first: dt.date, last: dt.date
) -> Iterator[None]:
    """Show which stage a run is in and how many jobs are finished, until the block ends."""
    label = _label(first, last)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    done = threading.Event()
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(f"{label}  starting", total=None)

        def watch() -> None:
            while not done.wait(POLL_SECONDS):
                try:
                    stage = _current_stage(instance, run_id)
                    finished, total = _finished_jobs(dsns, first, last)
                except Exception:  # noqa: BLE001, S112  a display must not end the run it shows
                    continue
                bar.update(
                    task,
                    description=f"{label}  {stage}",
                    completed=finished if stage == "job_outcomes" else 0,
                    total=total if stage == "job_outcomes" else None,
                )

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _current_stage(instance: "dg.DagsterInstance", run_id: str) -> str:
    begun = {step.step_key for step in instance.get_run_step_stats(run_id)}
    return next((step for step in reversed(STEPS) if step in begun), "starting")


def _finished_jobs(dsns: Dsns, first: dt.date, last: dt.date) -> tuple[int, int]:
    with connect_to_read(dsns.require(Purpose.QUEUE), Database.QUEUE) as connection:
        progress = read_progress(connection, list(days_between(first, last)))
    return sum(d.succeeded + d.failed for d in progress), sum(d.jobs for d in progress)


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
    typer.Option(help="With --refresh or --repair, which need one: why; kept on record."),
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
            "config": {"refresh": refresh, "reason": reason if refresh else "", **only_if_said},
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
    if as_planned and (refresh or not rework):
        raise BadRunConfig("--as-planned is for --rework alone", "give --rework with it, and not --refresh")
    if accept_lost and not refresh:
        raise BadRunConfig("--accept-lost-viewings is for --refresh alone", "give --refresh with it")
    if repair and (refresh or rework):
        raise BadRunConfig(
            "--repair puts back what was there, so it does not go with --refresh or --rework",
            "give --repair alone",
        )
    if (refresh or repair) and not reason.strip():
        option = "--refresh" if refresh else "--repair"
        raise ReasonMissing(f"{option} needs a reason", "say by `--reason WHY` what was wrong")
    if reason and not (refresh or repair):
        raise BadRunConfig("--reason is for --refresh or --repair", "give one of them with it, or no reason")
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
    dsns = ready_databases(settings)
    announce_open_hosts(settings)
    refuse_writable_input(settings, dsns)
    require_reachable(dsns)
    with (
        temporary_workers(settings, dsns, worker_count(workers, dsns)),
        open_instance(settings, dsns) as instance,
    ):
        run_id = materialize_days(instance, dsns, start, end, config, is_profiled=profile)
        out.print(day_table(settings, dsns, instance, list(days_between(start, end))))
        if repair:
            print_repairs(dsns, run_id)
