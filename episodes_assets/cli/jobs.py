"""`episodes jobs`: the progress of the fleet; retry, waive and cancel.

The statements are in `ledger/`; starting workers is `serve` and `up`.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from episodes_assets.accounts.identity import operating_system_user
from episodes_assets.checks.ledger import stalled_days
from episodes_assets.cli.console import block, out
from episodes_assets.cli.context import ready_databases
from episodes_assets.days import parse_day
from episodes_assets.errors import DayNotPlanned
from episodes_assets.ledger.held import cancel_day, read_held_first, retry_held_jobs, waive_held_jobs
from episodes_assets.ledger.progress import DayProgress, backlog, open_days, read_fleet_progress
from episodes_assets.ledger.workers import Worker, read_workers
from episodes_assets.postgres.connect import connect_to_read, connect_to_write
from episodes_assets.postgres.databases import Database, Purpose
from episodes_assets.settings import load_settings
from episodes_assets.user_files import require_standard_output

By = Annotated[
    str | None, typer.Option(help="Who decided it, when not you; it is recorded beside your user@host.")
]

app = typer.Typer(no_args_is_help=True, help="See how far the fleet is; retry, waive or cancel jobs.")

DAYS_SHOWN = 14
HELD_SHOWN = 20
WORKERS_SHOWN = 10


@app.command()
def status(
    day: Annotated[str | None, typer.Argument(help="A day; default: the newest 14.")] = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="With the tracebacks of held jobs.")] = False,
) -> None:
    """Show how many of each day's jobs wait, run, have succeeded or are held or waived, why, and who works.

    Example: episodes jobs status 2018-03-01 --traceback
    """
    days = None if day is None else [parse_day(day)]
    require_standard_output()
    settings = load_settings()
    dsn = ready_databases(settings).require(Purpose.QUEUE)
    with connect_to_read(dsn, Database.QUEUE) as connection:
        fleet = read_fleet_progress(connection, days)
        progress = [each.counts for each in fleet.days]
        living = read_workers(connection)
        waiting = backlog(connection)
        shown = progress[-DAYS_SHOWN:]
        held = read_held_first(connection, [each.plan_id for each in shown if each.failed], HELD_SHOWN)
        unfinished = open_days(connection, dt.timedelta(seconds=settings.heartbeat_seconds), days)
    if days and not progress:
        raise DayNotPlanned(f"{day} has no planned jobs", f"run `episodes run {day}`")
    out.print(_progress_table(fleet.days[-DAYS_SHOWN:]))
    ends = f", at this throughput until {fleet.ends_at:%Y-%m-%d %H:%M} UTC" if fleet.ends_at else ""
    out.print(
        f"{waiting:,} jobs are with the fleet and not finished; "
        f"{len(living):,} workers live, {fleet.jobs_per_second:,.1f} jobs/s{ends}"
    )
    for worker in living[:WORKERS_SHOWN]:
        out.print(_describe_worker(worker))
    limit = dt.timedelta(minutes=settings.stall_minutes)
    for stuck in stalled_days(unfinished, dt.datetime.now(dt.UTC), limit):
        out.print(f"stalled: {stuck.describe()}")
    for each in shown:
        if each.waived:
            out.print(f"{each.day} is published without {each.waived:,} jobs: {each.decision}")
    for job in held:
        state = "waived" if job.is_waived else "held"
        out.print(
            f"{state}: {job.day} epid {job.epid} algorithm {job.algorithm_id} "
            f"after {job.starts} starts: {job.error}",
        )
        if traceback and job.traceback:
            out.print(block(job.traceback))
            if job.is_cut:
                out.print("(the end of its traceback; the whole is in ledger.job_attempts)")
    if held and not held[0].is_waived:
        out.print(f"Fix the cause, then: episodes jobs retry {held[0].day}")
        out.print(f"Or publish the day without them: episodes jobs waive {held[0].day} --reason ...")


def _describe_worker(worker: Worker) -> str:
    doing = (
        f"{worker.jobs:,} jobs of {worker.day or 'a day planned anew'}" if worker.jobs else "waits for work"
    )
    return f"worker {worker.name} (release {worker.release}): {doing}; {worker.finished:,} jobs finished"


def _progress_table(shown: Sequence[DayProgress]) -> Table:
    table = Table(box=None)
    table.add_column("day", no_wrap=True)
    for name in ("jobs", "waiting", "running", "succeeded", "held", "waived"):
        table.add_column(name, justify="right")
    table.add_column("jobs/s", justify="right")
    table.add_column("handed out")
    for each in shown:
        own = each.counts
        counts = (own.jobs, own.waiting, own.running, own.succeeded, own.held, own.waived)
        throughput = f"{each.jobs_per_second:,.1f}" if each.jobs_per_second else "-"
        table.add_row(
            str(own.day), *(f"{n:,}" for n in counts), throughput, "yes" if own.is_fanned_out else "no"
        )
    return table


@app.command()
def retry(day: Annotated[str, typer.Argument(help="The day whose held jobs are retried.")]) -> None:
    """Give a day's held jobs another round of starts, waived ones as well.

    Once they have succeeded, the day is published by the sensor, or by `episodes run DAY`.
    """
    settings = load_settings()
    parsed = parse_day(day)
    dsn = ready_databases(settings).require(Purpose.QUEUE)
    with connect_to_write(dsn, Database.QUEUE, settings.environment, autocommit=True) as connection:
        released = retry_held_jobs(connection, parsed)
    out.print(f"{released:,} held jobs of {day} wait for the fleet again")


@app.command()
def waive(
    day: Annotated[str, typer.Argument(help="The day to publish without its held jobs.")],
    reason: Annotated[str, typer.Option(help="Why; consumers read it with the published day.")],
    by: By = None,
) -> None:
    """Decide that a day is published without the jobs that are held now, and record that.

    Jobs that are held later are not covered. `episodes jobs retry DAY` takes jobs out of it again;
    when they have succeeded, the day is published with them. The sensor publishes the day, or
    `episodes run DAY` does.

    Example: episodes jobs waive 2018-03-01 --reason "the series was withdrawn"
    """
    settings = load_settings()
    parsed = parse_day(day)
    dsn = ready_databases(settings).require(Purpose.QUEUE)
    with connect_to_write(dsn, Database.QUEUE, settings.environment, autocommit=True) as connection:
        waiver = waive_held_jobs(
            connection,
            parsed,
            reason=reason,
            decided_by=_decided_by(by),
        )
    out.print(f"{day} is published without {waiver.jobs:,} held jobs, decided by {waiver.decided_by}")


@app.command()
def cancel(
    day: Annotated[str, typer.Argument(help="The day whose work is stopped.")],
    reason: Annotated[str, typer.Option(help="Why; it becomes part of the jobs' error.")],
    by: By = None,
) -> None:
    """Stop working a day: what is not finished is held, and the day is not published.

    What is finished stays. A batch that computes at this moment ends first, and what comes of it is
    thrown away. `episodes jobs retry DAY` lets the day go on where it was.

    Example: episodes jobs cancel 2018-03-01 --reason "the drop is to be replaced"
    """
    settings = load_settings()
    parsed = parse_day(day)
    dsn = ready_databases(settings).require(Purpose.QUEUE)
    with connect_to_write(dsn, Database.QUEUE, settings.environment, autocommit=True) as connection:
        cancelled = cancel_day(connection, parsed, reason=reason, cancelled_by=_decided_by(by))
    out.print(f"{cancelled:,} unfinished jobs of {day} are held; to go on: episodes jobs retry {day}")


def _decided_by(typed: str | None) -> str:
    """The user of this process, always; a name that is given by --by is added."""
    given = " ".join((typed or "").split())
    return f"{operating_system_user()}, as typed: {given}" if given else operating_system_user()
